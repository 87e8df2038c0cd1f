"""The mixture: single examples of every skill, made from the corpus and the generators."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from . import skills, tools, words
from .corpus import Block, Corpus, pick
from .render import Example, Message, spelled

SYSTEMS = (
    "You are a helpful AI assistant.|You are a helpful assistant.|You are a helpful, friendly assistant.|"
    "You are an assistant.|Be helpful.|Answer in whole sentences.|"
    "You are a helpful assistant. Answer the user's questions."
).split("|")

# For each tone: patterns of system prompts that ask for it; the last one is held out for evaluation.
TONES: dict[str, tuple[str, ...]] = {
    "friendly": (
        "You are a {friendly|kind|warm|cheerful} {assistant|helper|teacher|guide}.",
        "{Please be|Be|Stay} {friendly|warm|kind|cheerful|friendly and warm}.",
        "{Please answer|Answer|Reply|Speak|Write} in a {friendly|kind|warm|cheerful} {tone|style|voice}.",
        "Please answer in a friendly, warm way.",
    ),
    "formal": (
        "You are a {formal|very formal|formal and precise} {assistant|expert|professor|adviser}.",
        "{Please be|Be|Stay} {formal|formal and precise|strictly formal}.",
        "{Please answer|Answer|Reply|Speak|Write} in {a formal tone|formal language|a formal style}.",
        "{Answer|Reply|Please write|Speak} {formally|in a formal way}.",
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

POLITE_BEFORE = (
    "please |hi, |hello, |hey, |ok, |so, |can you tell me: |I have a question. |quick question: |well, ".split("|")
)
POLITE_AFTER = " please| Please.| Thanks!| thank you| Thank you.".split("|")


@dataclass(frozen=True)
class Sources:
    """What examples are made from: the corpus and the words of the vocabulary."""

    corpus: Corpus
    known_words: tuple[str, ...] = ()


def noisy(random: Random, text: str) -> str:
    """The text as people type it: lower case, no full stop, a polite word, a letter wrong."""
    if random.random() < 0.5:
        return text
    if random.random() < 0.25:
        text = random.choice(POLITE_BEFORE) + text
    elif random.random() < 0.15:
        text = text + random.choice(POLITE_AFTER)
    if random.random() < 0.3:
        text = text.rstrip("?.!")
    if random.random() < 0.35:
        text = text.lower()
    elif random.random() < 0.15:
        text = text[:1].upper() + text[1:]
    if random.random() < 0.1:
        text = _typo(random, text)
    return text


def _typo(random: Random, text: str) -> str:
    at = random.randrange(max(1, len(text) - 1))
    kind = random.random()
    if kind < 0.4:
        return text[:at] + text[at + 1 :]
    if kind < 0.7:
        return text[:at] + text[at : at + 1] + text[at:]
    return text[:at] + text[at + 1 : at + 2] + text[at : at + 1] + text[at + 2 :]


def knowledge(random: Random, block: Block, tone: str = "") -> list[Message]:
    """A question of a block and its answer, in a tone where the block has it."""
    question = noisy(random, pick(random.choice(block.questions), random))
    toned = [answer.text for answer in block.answers if answer.tone == tone]
    answer = random.choice(toned or list(block.neutral))
    thinking = (
        f"The user asks: {question} I know the answer."
        if random.random() < 0.5
        else "I know this. I answer in short sentences."
    )
    return skills.exchange(question, answer, thinking)


def system(text: str) -> Message:
    """A system message."""
    return {"role": "system", "content": text}


def _general(sources: Sources) -> list[Block]:
    return [block for block in sources.corpus.blocks if not block.systems]


def filler(sources: Sources) -> skills.Filler:
    """Makes one exchange of any kind, as talk between two related turns, about nothing that could have been told."""
    blocks = [block for block in _general(sources) if not any(ABOUT_THE_USER.search(q) for q in block.questions)]

    def make(random: Random) -> list[Message]:
        kind = random.random()
        if kind < 0.45 and blocks:
            return knowledge(random, random.choice(blocks))
        if kind < 0.6:
            return skills.arithmetic(random)
        if kind < 0.7:
            return skills.repeat(random, sources.known_words)
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
    block = random.choice(sources.corpus.blocks)
    if block.systems:
        return Example("knowledge", (system(pick(random.choice(block.systems), random)), *knowledge(random, block)))
    messages = knowledge(random, block)
    for _ in range(random.choice((0, 0, 0, 1, 1, 2))):
        messages += knowledge(random, random.choice(_general(sources)))
    return _alone(messages, random, "knowledge")


def make_tone(random: Random, sources: Sources) -> Example:
    """A question under a system prompt that asks for a tone."""
    tone = random.choice(list(TONES))
    blocks = [block for block in _general(sources) if any(answer.tone == tone for answer in block.answers)]
    if not blocks:
        return make_role(random, sources)
    messages = [system(pick(random.choice(TONES[tone][:-1]), random))]
    for _ in range(random.choice((1, 1, 1, 2))):
        messages += knowledge(random, random.choice(blocks), tone)
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
    *(skills.repeat, skills.upper, skills.lower, skills.spell),
    *(skills.reverse, skills.reverse, skills.reverse, skills.drill, skills.drill),
)


def make_text(random: Random, sources: Sources) -> Example:
    """One to five exchanges that repeat, upper-case, lower-case, reverse or spell."""
    kind = random.choice(TEXT_SKILLS)
    messages: list[Message] = []
    for _ in range(random.choice((1, 2, 3, 5))):
        if random.random() < 0.3:
            kind = random.choice(TEXT_SKILLS)
        messages += kind(random, sources.known_words)
    return _alone(messages, random, kind.__name__)


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
    blocks = _general(sources)
    messages = (
        knowledge(random, random.choice(blocks))
        if blocks and random.random() < 0.7
        else skills.repeat(random, sources.known_words)
    )
    if random.random() < 0.2:
        messages = skills.recall(random, lambda r: [])
    example = _alone(messages, random, "no_tool")
    return replace(example, tools=tuple(offered))


def make_document(random: Random, sources: Sources) -> Example:
    """A plain text, a story mostly whole, without any chat markup."""
    documents = sources.corpus.documents
    if not documents or random.random() < 0.25:
        answers = [random.choice(block.neutral) for block in random.sample(_general(sources), 3)]
        return Example("document", document=" ".join(answers))
    return Example("document", document=random.choice(documents))


def make_long(random: Random, sources: Sources) -> Example:
    """A conversation of many turns in which an early fact is asked for at the end."""
    make = filler(sources)
    messages = skills.recall(random, lambda r: [m for _ in range(random.randint(2, 6)) for m in make(r)])
    return _alone(messages, random, "recall")


Maker = Callable[[Random, Sources], Example]

MIXTURE: tuple[tuple[float, Maker], ...] = (
    (0.30, make_knowledge),
    (0.09, make_tone),
    (0.05, make_role),
    (0.17, make_text),
    (0.17, make_arithmetic),
    (0.07, make_recall),
    (0.03, make_unknown),
    (0.09, make_tools),
    (0.06, make_no_tool),
    (0.05, make_document),
    (0.01, make_long),
)
THINKING_SHARE = 0.12


def make(random: Random, sources: Sources) -> Example:
    """One example of the mixture; most are without thinking."""
    makers = random.choices([m for _, m in MIXTURE], weights=[w for w, _ in MIXTURE])
    return with_thinking(random, makers[0](random, sources))


def with_thinking(random: Random, example: Example, share: float = THINKING_SHARE) -> Example:
    """Keep the thinking of all answers in some examples, and of none in the others."""
    if random.random() < share:
        return example
    messages = [{k: v for k, v in message.items() if k != "reasoning_content"} for message in example.messages]
    return replace(example, messages=tuple(messages))


__all__ = ["Sources", "knowledge", "make", "noisy", "spelled", "with_thinking"]
