"""The held-out prompts of the evaluation, each with the check that its answer has to pass."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

from . import data, library, reports, reviews, sides, skills, tools, words
from .corpus import Block, Corpus, expand, pick
from .render import Message, plain

Reply = dict[str, Any]  # what the response template reads out of an answer: content, reasoning_content, tool_calls
Check = Callable[[Reply], bool]

IGNORANCE = re.compile(
    r"do not know|cannot know|don't know|not told me|no access|never heard|cannot see|can't know|have no ", re.I
)


@dataclass(frozen=True)
class Case:
    """One prompt of a group (a row of the score table) and its check."""

    group: str
    messages: list[Message]
    check: Check
    tools: list[Message] = field(default_factory=list)
    thinks: bool = False


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


class Judge:
    """Says which block's answer, and in which tone, a text is closest to."""

    def __init__(self, corpus: Corpus) -> None:
        self.answers = [(block, a.tone, _words(a.text)) for block in corpus.blocks for a in block.answers]

    def closest(self, text: str) -> tuple[Block | None, str]:
        """The block and tone whose answer shares the largest part of its words with the text, if more than half."""
        found = _words(text)
        score, block, tone = max(
            ((len(found & w) / max(1, len(found | w)), block, tone) for block, tone, w in self.answers),
            key=lambda item: item[0],
        )
        return (block, tone) if score > 0.5 else (None, "")

    def is_from(self, block: Block) -> Check:
        """Checks that an answer is closest to one of the block's answers, or to the same words elsewhere."""
        own = {plain(a.text) for a in block.answers}

        def check(reply: Reply) -> bool:
            found, _ = self.closest(_content(reply))
            return found is block or (found is not None and bool(own & {a.text for a in found.answers}))

        return check

    def has_tone(self, block: Block, tone: str) -> Check:
        """Checks that an answer is the block's answer in a tone."""
        return lambda reply: self.closest(_content(reply)) == (block, tone)


def _content(reply: Reply) -> str:
    return str(reply.get("content") or "").strip()


def _is(text: str) -> Check:
    return lambda reply: _content(reply) == text


def _has(text: str) -> Check:
    return lambda reply: text in _content(reply)


def _ends_with(text: str) -> Check:
    return lambda reply: _content(reply).endswith(text)


def _ends_in_number(number: int) -> Check:
    return lambda reply: re.findall(r"-?\d+", _content(reply))[-1:] == [str(number)]


def _says_so(reply: Reply) -> bool:
    return IGNORANCE.search(_content(reply)) is not None


def _user(text: str, system: str = "") -> list[Message]:
    return ([data.system(system)] if system else []) + [{"role": "user", "content": text}]


def cases(corpus: Corpus, per_group: int, seed: str = "evaluation") -> Iterator[Case]:
    """All cases, at most `per_group` in each group."""
    judge = Judge(corpus)
    random = Random(seed)
    yield from _knowledge(random, corpus, judge, per_group)
    yield from _text(random, corpus, per_group)
    yield from _arithmetic(random, per_group)
    yield from _recall(random, corpus, per_group)
    yield from _roles(random, corpus, judge, per_group)
    yield from _tools(random, corpus, judge, per_group)
    yield from _thinking(random, corpus, judge, per_group)
    yield from _unknown(random, per_group)
    yield from _library(random, corpus, judge, per_group)
    yield from _long(random, corpus, judge, per_group)


def _held_out(corpus: Corpus) -> list[tuple[Block, str]]:
    return [(block, text) for block in corpus.blocks for pattern in block.held_out for text in expand(pattern)[:1]]


def _knowledge(random: Random, corpus: Corpus, judge: Judge, count: int) -> Iterator[Case]:
    held_out = _held_out(corpus)
    for block, question in random.sample(held_out, min(3 * count, len(held_out))):
        system = expand(block.systems[0])[0] if block.systems else ""
        group = "a role's own answers, held-out phrasing" if system else "knowledge, held-out phrasing"
        yield Case(group, _user(question, system), judge.is_from(block))
    product = [(block, question) for block, question in held_out if block.topic == "product"]
    for block, question in random.sample(product, min(2 * count, len(product))):
        yield Case("model-compose, held-out phrasing", _user(question), judge.is_from(block))
    general = [block for block in corpus.blocks if not block.systems]
    for block in random.sample(general, min(count, len(general))):
        question = expand(random.choice(block.questions))[0]
        yield Case("knowledge, phrasing as trained", _user(question), judge.is_from(block))
        yield Case("no thinking unless asked for", _user(question), lambda reply: not reply.get("reasoning_content"))


def _unseen(random: Random, length: int) -> str:
    if random.random() < 0.5:
        return "".join(random.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(length))
    while len(word := words.made_up(random)) < length:
        pass
    return word[:length]


def _text(random: Random, corpus: Corpus, count: int) -> Iterator[Case]:
    makers: tuple[tuple[str, list[str], Callable[[str], str], Callable[[str], str]], ...] = (
        ("repeat", skills.REPEAT, str, str),
        ("upper-case", skills.UPPER, str, str.upper),
        ("lower-case", skills.LOWER, str.upper, str.lower),
        ("reverse", skills.REVERSE, str, lambda text: text[::-1]),
    )
    for name, templates, shown, wanted in makers:
        for low, high in ((3, 4), (5, 6), (7, 8), (9, 10)):
            for _ in range(count // 2):
                text = _unseen(random, random.randint(low, high))
                prompt = random.choice(templates).format(shown(text))
                yield Case(f"{name}, unseen word of {low} to {high} letters", _user(prompt), _is(wanted(text)))
    for name, templates, shown, wanted in makers:
        for _ in range(count // 2):
            text = random.choice(words.COMMON)
            prompt = random.choice(templates).format(shown(text))
            yield Case(f"{name}, common word", _user(prompt), _is(wanted(text)))
    told = sorted(set(re.findall(r"\b[a-z]{4,9}\b", " ".join(corpus.documents))))
    for name, templates, shown, wanted in makers:
        for text in random.sample(told, min(count, len(told))):
            prompt = random.choice(templates).format(shown(text))
            yield Case(f"{name}, a word of the stories", _user(prompt), _is(wanted(text)))
    for name, templates, shown, wanted in makers[:3]:
        for _ in range(count // 2):
            text = " ".join(_unseen(random, random.randint(3, 6)) for _ in range(random.randint(2, 4)))
            prompt = random.choice(templates).format(shown(text))
            yield Case(f"{name}, two to four unseen words", _user(prompt), _is(wanted(text)))


def _arithmetic(random: Random, count: int) -> Iterator[Case]:
    sizes = (("one digit", 0, 9), ("up to 30", 0, 30), ("up to 99", 10, 99))
    for label, low, high in sizes:
        for name, templates, sign in (("add", skills.ADD, 1), ("subtract", skills.SUBTRACT, -1)):
            for _ in range(count):
                a, b = random.randint(low, high), random.randint(low, high)
                if sign < 0 and a < b:
                    a, b = b, a
                result = a + sign * b
                prompt = random.choice(templates).format(a, b)
                yield Case(f"{name}, {label}", _user(prompt), _ends_in_number(result))


def _recall(random: Random, corpus: Corpus, count: int) -> Iterator[Case]:
    fill = data.filler(data.Sources(corpus))
    for between in (0, 1, 3):
        for _ in range(count):
            kind, told, asked, _, _ = random.choice(skills.MEMORIES[:3])
            value = str(random.randint(10, 999)) if kind == "number" else _unseen(random, random.randint(3, 8))
            value = value.capitalize() if kind == "name" else value
            talk = skills.exchange(
                random.choice(told.split("|")).format(value), skills.acknowledgement(random, kind, value)
            )
            talk += [_without_marks(m) for _ in range(between) for m in fill(random)]
            talk += _user(random.choice(asked.split("|")))
            yield Case(f"recall after {between} other exchanges", talk, _has(value))
    for _ in range(count):
        talk = skills.recall_nothing(random, lambda r: [])[:1]
        yield Case("recall, never told", talk, _says_so)


def _without_marks(message: Message) -> Message:
    return {"role": message["role"], "content": plain(message["content"])}


def _roles(random: Random, corpus: Corpus, judge: Judge, count: int) -> Iterator[Case]:
    for tone, prompts in data.TONES.items():
        blocks = [b for b in corpus.blocks if not b.systems and any(a.tone == tone for a in b.answers)]
        for block in random.sample(blocks, min(count, len(blocks))):
            question = expand(random.choice(block.questions))[0]
            common = pick(random.choice(prompts[:-1]), random)
            for group, prompt in (("common system prompts", common), ("held-out system prompt", prompts[-1])):
                yield Case(f"tone {tone}, {group}", _user(question, prompt), judge.has_tone(block, tone))
    for _ in range(count):
        name = _unseen(random, random.randint(3, 7)).capitalize()
        yield Case(
            "a name from the system prompt",
            _user("What is your name?", f"Your name is {name}."),
            _has(name),
        )
    general = [block for block in corpus.blocks if not block.systems]
    for block in random.sample(general, min(count, len(general))):
        extra = _unseen(random, random.randint(3, 7)).capitalize()
        question = expand(block.questions[0])[0]
        prompt = f"End every answer with: {extra}"
        yield Case("words to end every answer with", _user(question, prompt), _ends_with(extra))


def _tools(random: Random, corpus: Corpus, judge: Judge, count: int) -> Iterator[Case]:
    for _ in range(2 * count):
        offered, messages = tools.call(random)
        calls = [c["function"] for c in messages[1]["tool_calls"]]
        if len(calls) > 1:
            continue
        yield Case("tool call, exact name and arguments", messages[:1], _calls(calls), offered)
        if len(messages) > 2:
            talk = [_plain_call(message) for message in messages]
            yield Case("answer from a tool result, exact words", talk[:-1], _is(talk[-1]["content"]), offered)
    for _ in range(count // 2):
        chosen = tools.offer(random, tools.TOOLS[0])
        messages = tools.two_calls(random, chosen)
        wanted = [c["function"] for c in messages[1]["tool_calls"]]
        yield Case("two tool calls, exact names and arguments", messages[:1], _calls(wanted), [chosen.schema])
    held_out = [(block, text) for block, text in _held_out(corpus) if not block.systems]
    for block, question in random.sample(held_out, min(count, len(held_out))):
        offered = [offer.schema for offer in tools.some(random, random.randint(1, 3))]
        yield Case("tools that do not fit: no call", _user(question), lambda r: not r.get("tool_calls"), offered)
        yield Case("tools that do not fit: right answer", _user(question), judge.is_from(block), offered)


def _plain_call(message: Message) -> Message:
    return {key: value for key, value in message.items() if key != "reasoning_content"}


def _calls(wanted: list[Message]) -> Check:
    def check(reply: Reply) -> bool:
        found = [call["function"] for call in reply.get("tool_calls") or []]
        return json.dumps(found, sort_keys=True) == json.dumps(wanted, sort_keys=True)

    return check


def _thinking(random: Random, corpus: Corpus, judge: Judge, count: int) -> Iterator[Case]:
    held_out = [(block, text) for block, text in _held_out(corpus) if not block.systems]
    for block, question in random.sample(held_out, min(count, len(held_out))):
        yield Case(
            "thinking: thought, then answer",
            _user(question),
            lambda r: bool(r.get("reasoning_content")) and bool(_content(r)),
            thinks=True,
        )
        yield Case("thinking: right answer", _user(question), judge.is_from(block), thinks=True)
    for _ in range(count // 2):
        text = _unseen(random, random.randint(4, 7))
        yield Case(
            "thinking: reverse, unseen word of 4 to 7 letters", _user(f"Reverse: {text}"), _is(text[::-1]), thinks=True
        )


def _unknown(random: Random, count: int) -> Iterator[Case]:
    for _ in range(count):
        first, last = words.name(random), _unseen(random, random.randint(5, 8)).capitalize()
        yield Case("admits not knowing a person", _user(random.choice(skills.WHO).format(first, last)), _says_so)
        thing = _unseen(random, random.randint(5, 8))
        yield Case("admits not knowing a made-up thing", _user(random.choice(skills.WHAT).format(thing)), _says_so)
        question = random.choice(skills.NOW).format(
            item=random.choice(skills.ITEMS),
            company=_unseen(random, 6).capitalize(),
            city=words.place(random),
            name=words.name(random),
        )
        yield Case("admits not knowing prices, news, weather", _user(question), _says_so)


SUMMARIZE = "Summarize this text in one sentence:\n\n{}"
TEXTS = (
    "The old bridge was closed in May. Cars had to take a long way through the hills. Now a new bridge is open.",
    "Clara sells flowers at the market. On Friday she sold all of her roses. She will grow more of them next year.",
    "The bird built a nest under the roof. Three young birds came out of the eggs. They learned to fly in June.",
    "Our team played against a strong team from the north. It rained the whole time. We won with two goals.",
    "The doctor told Peter to walk every day. He began with ten minutes. Now he walks an hour and feels well.",
    "The farmer bought a new tractor. It needs less oil than the old one. His neighbors want to buy one too.",
    "The shop on the corner will close in autumn. The owner is old and wants to rest. Nobody has bought it yet.",
    "Maria lost her phone in the bus. A student found it and called her mother. Maria thanked him with a cake.",
    "The river was very high after the rain. Water ran into many houses. The firemen worked all night.",
    "The children painted the school wall. It now shows trees, birds and a big sun. All parents came to see it.",
)


def _library(random: Random, corpus: Corpus, judge: Judge, count: int) -> Iterator[Case]:
    for text in TEXTS[:count]:
        yield Case("summary, text of a new kind: shorter, in its words", _user(SUMMARIZE.format(text)), _sums_up(text))
    for _ in range(count // 2):
        sentences, short, _ = random.choice(reports.REPORTS)(random)
        text = " ".join(sentences)
        yield Case("summary, new text of a known kind: exact", _user(SUMMARIZE.format(text)), _is(short))
    for _ in range(count // 2):
        messages = library.choose(random, corpus)
        yield Case("the best of several drafts, word for word", messages[:1], _is(messages[-1]["content"]))
    blocks = [b for b in corpus.blocks if not b.systems and b.topic != "tasks" and len(b.neutral[0]) > 80]
    for block in random.sample(blocks, min(count // 2, len(blocks))):
        talk = skills.exchange(expand(block.questions[0])[0], block.neutral[0]) + _user(library.CRITICIZE[0])
        yield Case("critique: numbered points", talk, lambda reply: _content(reply).startswith("1. "))
        talk = [*talk, *skills.exchange("", library.OTHER_POINTS[0])[1:], *_user(library.REVISE[0])]
        yield Case("revision: the text, changed", talk, _revises(block.neutral[0]))
    for _ in range(count // 2):
        topic, pros, cons = random.choice(sides.topics())
        good = random.random() < 0.5
        question = f"What are the {'advantages' if good else 'disadvantages'} of {topic}?"
        answer = sides.one_side(topic, pros if good else cons, good)
        yield Case("advantages and disadvantages, as trained", _user(question), _is(answer))
        topic, pros, cons = sides.invented(random)
        said = [sides.one_side(topic, side, good) for side, good in ((pros, True), (cons, False))]
        prompt = sides.WEIGH.format(topic=topic, pros=said[0], cons=said[1])
        yield Case("a recommendation from new sides", _user(prompt), _is(sides.recommendation(topic, pros, cons)))
        code, answer = reviews.review(random)
        yield Case("code review, bugs and names as trained", _user(code, reviews.REVIEWERS[0]), _is(answer))


def _sums_up(text: str) -> Check:
    def check(reply: Reply) -> bool:
        found = _words(_content(reply))
        return 2 < len(found) < len(_words(text)) and len(found & _words(text)) >= 0.6 * len(found)

    return check


def _revises(draft: str) -> Check:
    def check(reply: Reply) -> bool:
        text = _content(reply)
        return text != draft and len(_words(text) & _words(draft)) > 0.6 * len(_words(draft))

    return check


def _long(random: Random, corpus: Corpus, judge: Judge, count: int) -> Iterator[Case]:
    sources = data.Sources(corpus)
    for size in (400, 900, 1500):
        for _ in range(count // 5):
            fact = random.choice(skills.MEMORIES[:2])
            value = _unseen(random, random.randint(4, 7))
            value = value.capitalize() if fact[0] == "name" else value
            talk = skills.tell(random, fact, value)
            while sum(len(message["content"]) for message in talk) // 5 < size:
                talk += [_without_marks(message) for message in data.filler(sources)(random)]
            question = skills.ask(random, fact, value)[:1]
            yield Case(f"recall in a talk of about {size} words", talk + question, _has(value))
            block = random.choice([b for b in sources.impersonal if len(b.neutral[0]) > 60 and b.topic != "tasks"])
            question = _user(expand(block.questions[0])[0])
            yield Case(f"knowledge in a talk of about {size} words", talk + question, judge.is_from(block))
            text = data.long_text(random, sources, size)[:2]
            yield Case(f"question for a text of about {size} words", text[:1], _is(text[-1]["content"]))
