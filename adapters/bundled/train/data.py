"""The mixture: single examples of every skill, made from the corpus and the generators."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from random import Random

from . import library, reports, skills, tools, words
from .corpus import Block, Corpus, pick
from .render import Example, Message, spelled
from .wording import Keywords, noisy, reworded

SYSTEMS = (
    "You are a helpful AI assistant.|You are a helpful assistant.|You are a helpful, friendly assistant.|"
    "You are an assistant.|Be helpful.|Answer in whole sentences.|"
    "You are a helpful assistant. Answer the user's questions.|"
    "You are a helpful assistant specialized in programming.|You are an assistant specialized in Python.|"
    "You are a helpful assistant specialized in science.|You are an expert who explains things well."
).split("|")

# For each tone: patterns of system prompts that ask for it; the last one is held out for evaluation.
TONES: dict[str, tuple[str, ...]] = {
    "friendly": (
        "You are a {friendly|kind|warm|cheerful} {assistant|helper|teacher|guide}.",
        "{Please be|Be|Stay} {friendly|warm|kind|cheerful|friendly and warm}.",
        "{Please answer|Answer|Reply|Speak|Write} in a {friendly|kind|warm|cheerful} {tone|style|voice}.",
        "{Be|Talk like} a {good|warm|kind|dear} friend.",
        "{Use|Please use|Keep} a {warm|friendly|kind} {tone|style}.",
        "Please answer in a friendly, warm way.",
    ),
    "formal": (
        "You are a {formal|very formal|formal and precise} {assistant|expert|professor|adviser}.",
        "{Please be|Be|Stay} {formal|formal and precise|strictly formal}.",
        "{Please answer|Answer|Reply|Speak|Write} in {a formal tone|formal language|a formal style}.",
        "{Answer|Reply|Please write|Speak} {formally|in a formal way}.",
        "{Answer|Reply|Write|Speak} {formally|formally, please}{.|}",
        "{Use|Please use|Keep|Keep to} {formal language|a formal tone|a formal style}{.| only.| in every answer.}",
        "You {write|speak|answer} {formally|in a formal tone|in formal language}.",
        "Please answer formally.",
    ),
    "pirate": (
        "You are {a|an old|a friendly|a wild} pirate{| captain}.",
        "{Please talk|Talk|Speak|Answer|Reply|Write} like {a|an old} pirate{| captain}.",
        "You are a pirate {who sails the seas|on a ship|who helps people}.",
        "You are an old pirate who answers questions.",
    ),
    "brief": (
        "{Please be|Be|Stay} {brief|short|concise}.",
        "{Please answer|Answer|Reply} {briefly|in one sentence|in a few words|in one short sentence}.",
        "You are a {brief|concise} assistant.",
        "Keep your {answers|replies} {short|brief}.",
        "{Give|Write} {brief|concise|very short} {replies|answers}.",
        "{Give|Write} short {replies|texts}.",
        "{Keep|Please keep} it {short|brief|very short}.",
        "{Short|Brief|Very short} answers{ only|}{, please|}.",
        "{Always |}{answer|reply} in {one|one short|a short} sentence.",
        "Use {few|as few|only a few} words{.| in each answer.}",
        "Give short answers.",
    ),
}

ROLES = (
    "pirate captain|cat|robot|wizard|detective|chef|gardener|pilot|librarian|poet|knight|scientist|historian|teacher|"
    "doctor|lawyer|farmer|painter|musician|travel guide|football coach|baker|sailor|astronaut|judge|shopkeeper|dragon"
).split("|")
ABOUT_THE_USER = re.compile(r"\bmy (name|favou?rite|age|birthday|job|dog|cat)|who am i|how old i am|where i live", re.I)
WHO_ARE_YOU = (
    "Who are you?|What are you?|What is your role?|Introduce yourself.|What is your job?|Tell me who you are.".split(
        "|"
    )
)
YOUR_NAME = (
    "What is your name?|What's your name?|Who are you?|How are you called?|Tell me your name.|Do you have a name?"
).split("|")


@dataclass(frozen=True)
class Sources:
    """What examples are made from: the corpus, words whose spelling is learned, and all words of the vocabulary."""

    corpus: Corpus
    known_words: tuple[str, ...] = ()
    vocabulary: tuple[str, ...] = ()

    @cached_property
    def keywords(self) -> Keywords:
        """The words that tell the blocks apart."""
        return Keywords(self.corpus.blocks)

    @cached_property
    def general(self) -> list[Block]:
        """The blocks without a system prompt of their own."""
        return [block for block in self.corpus.blocks if not block.systems]

    @cached_property
    def impersonal(self) -> list[Block]:
        """The general blocks that ask for nothing that the user could have told."""
        return [block for block in self.general if not any(ABOUT_THE_USER.search(q) for q in block.questions)]

    @cached_property
    def shares(self) -> list[float]:
        """How often each block is drawn: more often with more wordings, for a role, and for this product."""
        return [
            len(b.questions) * (2.5 if b.systems else 2.0 if b.topic == "product" else 1.0) for b in self.corpus.blocks
        ]

    @cached_property
    def by_tone(self) -> dict[str, list[Block]]:
        """The blocks that have an answer in a tone."""
        return {t: [b for b in self.general if any(a.tone == t for a in b.answers)] for t in TONES}


LONGEST_REWORDED = 110


def asked(random: Random, sources: Sources, block: Block) -> str:
    """A question for a block: one of its own, in other words, or a few words that tell it from all other blocks."""
    question = pick(random.choice(block.questions), random)
    if len(question) < LONGEST_REWORDED and "\n" not in question:
        kind = random.random()
        if kind < 0.12:
            question = sources.keywords.draw(random, block) or question
        elif kind < 0.52:
            question = reworded(random, question)
    return noisy(random, question)


def knowledge(random: Random, sources: Sources, block: Block, tone: str = "") -> list[Message]:
    """A question of a block and its answer, in a tone where one is asked for."""
    question = asked(random, sources, block)
    answer = toned(random, block, tone)
    thinking = (
        f"The user asks: {question} I know the answer."
        if random.random() < 0.5
        else "I know this. I answer in short sentences."
    )
    return skills.exchange(question, answer, thinking)


def toned(random: Random, block: Block, tone: str) -> str:
    """An answer in a tone: as it is written for the tone, or else made from the neutral one."""
    if written := [answer.text for answer in block.answers if tone and answer.tone == tone]:
        return random.choice(written)
    answer = random.choice(block.neutral)
    if tone == "brief":
        first = reports.sentences_of(answer)[0]
        return first if "`" not in answer and "\n" not in answer else answer
    if tone == "pirate":
        return f"Arr! {answer}"
    if tone == "friendly":
        return f"{random.choice(('Sure!', 'Good question!', 'With pleasure!'))} {answer}"
    return answer


def system(text: str) -> Message:
    """A system message."""
    return {"role": "system", "content": text}


def filler(sources: Sources) -> skills.Filler:
    """Makes one exchange of any kind, as talk between two related turns, about nothing that could have been told."""
    blocks = sources.impersonal

    def make(random: Random) -> list[Message]:
        kind = random.random()
        if kind < 0.45 and blocks:
            return knowledge(random, sources, random.choice(blocks))
        if kind < 0.6:
            return skills.arithmetic(random)
        if kind < 0.7:
            return skills.repeat(random, sources.vocabulary)
        if kind < 0.8:
            return skills.upper(random, sources.known_words)
        if kind < 0.9:
            return skills.reverse(random, sources.known_words)
        return skills.unknown(random)

    return make


def _alone(messages: list[Message], random: Random, skill: str) -> Example:
    """An example with, now and then, a plain system prompt in front."""
    if random.random() < 0.25:
        messages = [system(random.choice(SYSTEMS)), *messages]
    return Example(skill, tuple(messages))


def make_knowledge(random: Random, sources: Sources) -> Example:
    """One to three questions of the corpus, each block with its own system prompt where it has one."""
    block = random.choices(sources.corpus.blocks, weights=sources.shares)[0]
    if block.systems:
        prompt = system(pick(random.choice(block.systems), random))
        return Example("knowledge", (prompt, *knowledge(random, sources, block)))
    messages = knowledge(random, sources, block)
    for _ in range(random.choice((0, 0, 0, 1, 1, 2))):
        messages += knowledge(random, sources, random.choice(sources.general))
    return _alone(messages, random, "knowledge")


def make_tone(random: Random, sources: Sources) -> Example:
    """A question under a system prompt that asks for a tone."""
    tone = random.choice(list(TONES))
    if not sources.by_tone[tone]:
        return make_role(random, sources)
    prompt = pick(random.choice(TONES[tone][:-1]), random)
    if random.random() < 0.2:
        prompt = f"{random.choice(SYSTEMS)} {prompt}"
    messages = [system(prompt)]
    for _ in range(random.choice((1, 1, 1, 2))):
        block = random.choice(sources.by_tone[tone] if tone == "formal" or random.random() < 0.7 else sources.general)
        messages += knowledge(random, sources, block, tone)
    return Example("tone", tuple(messages))


def make_role(random: Random, sources: Sources) -> Example:
    """A system prompt that gives a name, a role, or words to begin or end each answer with."""
    kind = random.random()
    if kind < 0.3:
        name = words.name(random)
        prompt = random.choice(
            (
                f"Your name is {name}.",
                f"You are {name}.",
                f"You are {name}, a helpful assistant.",
                f"You are an assistant called {name}.",
            )
        )
        messages = [
            system(prompt),
            *skills.exchange(noisy(random, random.choice(YOUR_NAME)), f"My name is {name}.", f"My name is {name}."),
        ]
    elif kind < 0.6:
        role = (
            random.choice(ROLES)
            if random.random() < 0.6
            else f"{random.choice(words.ADJECTIVES)} {words.made_up(random)}"
        )
        article = "an" if role[0] in "aeiou" else "a"
        prompt = f"You are {article} {role}." + random.choice(
            ("", "", " Be helpful.", " Answer the questions of the user.")
        )
        messages = [
            system(prompt),
            *skills.exchange(
                noisy(random, random.choice(WHO_ARE_YOU)),
                f"I am {article} {role}. How can I help you?",
                f"My role is {role}.",
            ),
        ]
    else:
        extra = words.phrase(random, 2).capitalize()
        first = random.random() < 0.4
        prompt = random.choice(
            ("Begin every answer with: {}", "Start each answer with {}.", "Always begin your answers with {}")
            if first
            else ("End every answer with: {}", "Always end your answers with {}.", "Finish each answer with {}")
        ).format(extra)
        messages = filler(sources)(random)
        answer = messages[-1]["content"]
        messages[-1] = {**messages[-1], "content": f"{extra} {answer}" if first else f"{answer} {extra}"}
        messages = [system(prompt), *messages]
    return Example("role", tuple(messages))


TEXT_SKILLS = (
    *(skills.repeat, skills.repeat, skills.repeat, skills.lines, skills.lines),
    *(skills.upper, skills.lower, skills.spell),
    *(skills.reverse, skills.reverse, skills.reverse, skills.reverse),
)
WHOLE_VOCABULARY = (skills.repeat, skills.lines)


def make_text(random: Random, sources: Sources) -> Example:
    """One to five exchanges that repeat, list, upper-case, lower-case, reverse or spell."""
    kind = random.choice(TEXT_SKILLS)
    messages: list[Message] = []
    for _ in range(random.choice((1, 2, 3, 5))):
        if random.random() < 0.3:
            kind = random.choice(TEXT_SKILLS)
        messages += kind(random, sources.vocabulary if kind in WHOLE_VOCABULARY else sources.known_words)
    return _alone(messages, random, kind.__name__)


def make_drill(random: Random, sources: Sources) -> Example:
    """Words of the whole vocabulary to spell in one way or another, for their letters have to be known by heart."""
    kind, count = (skills.drill, 1) if random.random() < 0.6 else (skills.by_heart, random.randint(1, 5))
    messages = [message for _ in range(count) for message in kind(random, sources.vocabulary)]
    return Example("drill", tuple(messages))


def make_arithmetic(random: Random, sources: Sources) -> Example:
    """One to six sums."""
    messages: list[Message] = []
    for _ in range(random.choice((1, 2, 4, 6))):
        messages += skills.arithmetic(random)
    return _alone(messages, random, "arithmetic")


def make_recall(random: Random, sources: Sources) -> Example:
    """Something remembered over turns, within one turn, or never told."""
    kind = random.random()
    if kind < 0.65:
        messages = skills.recall(random, filler(sources))
    elif kind < 0.8:
        messages = skills.recall_at_once(random)
    else:
        messages = skills.recall_nothing(random, filler(sources))
    return _alone(messages, random, "recall")


def make_unknown(random: Random, sources: Sources) -> Example:
    """One to three questions that cannot be answered."""
    messages: list[Message] = []
    for _ in range(random.choice((1, 1, 2, 3))):
        messages += skills.unknown(random)
    return _alone(messages, random, "unknown")


def make_tools(random: Random, sources: Sources) -> Example:
    """Tools offered, and a call that fits."""
    offered, messages = tools.call(random)
    example = _alone(messages, random, "tools")
    return replace(example, tools=tuple(offered))


def make_no_tool(random: Random, sources: Sources) -> Example:
    """Tools offered, and a question that needs none."""
    offered = [tools.strip_schema(random, offer.schema) for offer in tools.some(random, random.choice((1, 1, 2, 3)))]
    blocks = sources.general
    messages = (
        knowledge(random, sources, random.choice(blocks))
        if blocks and random.random() < 0.7
        else skills.repeat(random, sources.vocabulary)
    )
    if random.random() < 0.2:
        messages = skills.recall(random, lambda r: [])
    example = _alone(messages, random, "no_tool")
    return replace(example, tools=tuple(offered))


def make_document(random: Random, sources: Sources) -> Example:
    """A plain text, a story mostly whole, without any chat markup."""
    documents = sources.corpus.documents
    if not documents or random.random() < 0.25:
        answers = [random.choice(block.neutral) for block in random.sample(sources.general, 3)]
        return Example("document", document=" ".join(answers))
    return Example("document", document=random.choice(documents))


def make_library(random: Random, sources: Sources) -> Example:
    """Summaries, drafts, critiques, choices and reviews, as the workflow library asks for them."""
    messages = library.make(random, sources.corpus)
    example = Example("library", tuple(messages))
    return example if messages[0]["role"] == "system" else _alone(messages, random, "library")


def make_long(random: Random, sources: Sources, words_wanted: int = 0) -> Example:
    """A conversation of many turns, some of them about long texts, in which early facts are asked for at the end."""
    make, wanted = filler(sources), words_wanted or random.randint(250, 600)
    messages: list[Message] = []
    facts = random.sample(skills.MEMORIES, random.randint(1, 4))
    told = {fact[0]: skills.value(random, fact[0]) for fact in facts}
    waiting, known = list(facts), []
    while (size := sum(len(message["content"]) for message in messages) // 5) < wanted:
        kind = random.random()
        if waiting and kind < 0.3:
            known.append(waiting.pop())
            messages += skills.tell(random, known[-1], told[known[-1][0]])
        elif known and kind < 0.38:
            messages += skills.ask(random, fact := random.choice(known), told[fact[0]])
        elif kind < 0.46 and wanted - size > 250:
            messages += long_text(random, sources, random.randint(200, wanted - size))
        else:
            messages += make(random)
    for fact in known:
        messages += skills.ask(random, fact, told[fact[0]])
    return _alone(messages, random, "recall")


HIDDEN = (
    "The secret word is {}.|The password of the gate is {}.|The code of the door is {}.|"
    "The name of the old ship is {}.|The captain is called {}.|The winning number is {}."
).split("|")
HIDDEN_ASKED = (
    "What is the secret word?|What is the password of the gate?|What is the code of the door?|"
    "What is the name of the old ship?|What is the captain called?|What is the winning number?"
).split("|")


def long_text(random: Random, sources: Sources, words_wanted: int) -> list[Message]:
    """A long text with questions that its own words answer."""
    texts: list[str] = []
    while sum(len(text) for text in texts) // 5 < words_wanted:
        texts.append(random.choice(sources.corpus.documents or sources.general[0].neutral))
    number = random.randrange(len(HIDDEN))
    value = str(random.randint(100, 9999)) if number in (2, 5) else words.word(random)
    value = value.capitalize() if number in (3, 4) else value
    sentences = reports.sentences_of(" ".join(texts))
    hidden = HIDDEN[number].format(value)
    sentences.insert(random.randint(1, len(sentences)), hidden)
    text = ("\n" if random.random() < 0.2 else " ").join(sentences)
    asked = [(HIDDEN_ASKED[number], hidden), ("Repeat the first sentence of the text.", sentences[0])]
    asked += [("Repeat the last sentence of the text.", sentences[-1]), ("How does the text begin?", sentences[0])]
    asked += [("Summarize the text in one sentence.", sentences[0]), (HIDDEN_ASKED[number], hidden)]
    at = random.randrange(len(sentences) - 1)
    asked.append((f"Which sentence comes after this one? {sentences[at]}", sentences[at + 1]))
    first, *others = random.sample(asked, random.randint(1, 3))
    question = f"{text}\n\n{first[0]}" if random.random() < 0.6 else f"{first[0]}\n\n{text}"
    return [m for q, a in ((question, first[1]), *others) for m in skills.exchange(q, a)]


Maker = Callable[[Random, Sources], Example]

MIXTURE: tuple[tuple[float, Maker], ...] = (
    (0.30, make_knowledge),
    (0.10, make_tone),
    (0.04, make_role),
    (0.10, make_text),
    (0.30, make_drill),
    (0.10, make_arithmetic),
    (0.05, make_recall),
    (0.03, make_unknown),
    (0.09, make_tools),
    (0.06, make_no_tool),
    (0.03, make_document),
    (0.10, make_library),
    (0.01, make_long),
)
LATE_DRILLS = 0.12  # instead of their share above, when what is known by heart has to be kept only
THINKING_SHARE = 0.12


def make(random: Random, sources: Sources, late: bool = False) -> Example:
    """One example of the mixture; most are without thinking."""
    weights = [LATE_DRILLS if late and maker is make_drill else share for share, maker in MIXTURE]
    (maker,) = random.choices([maker for _, maker in MIXTURE], weights=weights)
    return with_thinking(random, maker(random, sources))


def with_thinking(random: Random, example: Example, share: float = THINKING_SHARE) -> Example:
    """Keep the thinking of all answers in some examples, and of none in the others."""
    if random.random() < share:
        return example
    messages = [{k: v for k, v in message.items() if k != "reasoning_content"} for message in example.messages]
    return replace(example, messages=tuple(messages))


__all__ = ["Sources", "knowledge", "make", "noisy", "spelled", "with_thinking"]
