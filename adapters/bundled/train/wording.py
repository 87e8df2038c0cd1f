"""Other wordings of a question: as people begin it, with words exchanged or left out, or only its telling words.

A small model learns the phrasing that it sees; these are drawn anew for every example, so that it learns the words
which tell one question from another.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property
from random import Random

from .corpus import Block, expand

# Words that mean nearly the same in a question, in groups.
ALIKE = (
    "big large|fast quick quickly|start launch run|stop end close|show give tell|use try|choose pick|make create build|"
    "need want|fix repair solve|problem error|machine computer|picture image|answer reply response|program app|"
    "find get|see look|begin start|kind type sort|list name|explain describe|nice good great|usually mostly normally|"
    "little small|people humans|happen happens|important useful|simple easy|difference differ|world earth|"
    "learn know|remember keep|change set|send give|write type|folder directory|option setting|colour color|"
    "difficult hard|buy get|clean wash|illness disease|car auto|trip travel|town city|speak talk|shop store|"
    "father dad|mother mum|child kid|children kids|smart clever|afraid scared|maybe perhaps|many several"
)
_SAME: dict[str, list[str]] = {}
for _group in ALIKE.split("|"):
    for _word in _group.split():
        _SAME.setdefault(_word, []).extend(other for other in _group.split() if other != _word)

# What can be said instead of "What is x?", "How do I x?", "Explain x." and of questions of any other kind (l is x with
# a small first letter).
THINGS = (
    "Explain {x}.|Explain {x} to me.|What do you know about {x}?|What does {x} mean?|I want to know about {x}.|"
    "I would like to know what {x} is.|Can you explain {x}?|{x}?|{x}|What exactly is {x}?|what's {x}|"
    "Tell me something about {x}.|Could you tell me about {x}?|Describe {x}.|I have never heard of {x}. What is it?|"
    "Tell me: what is {x}?|Please explain {x}.|Do you know {x}?|What would you say about {x}?|Help me understand {x}."
).split("|")
WAYS = (
    "How to {x}?|How could I {x}?|I want to {x}. How?|I would like to {x}.|What do I have to do to {x}?|"
    "Tell me how to {x}.|What is the way to {x}?|Can you show me how to {x}?|Help me to {x}.|I need to {x}.|"
    "how do i {x}|What must I do if I want to {x}?|What is the best way to {x}?|Is there a way to {x}?|"
    "Please explain how to {x}.|I do not know how to {x}.|What steps do I need to {x}?|I am trying to {x}.|"
    "how would one {x}|What do I type to {x}?|Which command do I need to {x}?|Give me a hint how to {x}."
).split("|")
EXPLANATIONS = (
    "What is {x}?|What do you know about {x}?|I want to know about {x}.|Can you explain {x}?|{x}?|{x}|"
    "Tell me something about {x}.|What can you say about {x}?|Please describe {x}.|Say a few words about {x}.|"
    "I would like to hear about {x}.|Give me an explanation of {x}.|What should I know about {x}?"
).split("|")
OPEN_QUESTIONS = (
    "Do you know {l}?|Can you tell me {l}?|Could you say {l}?|I wonder {l}.|Tell me, {l}?|I want to know: {l}?|"
    "Here is a question: {l}?|My question is: {l}?|I was asked: {l}?|Someone asked me: {l}?|{x}"
).split("|")
YES_OR_NO = "I wonder: {l}?|Tell me, {l}?|{l}, yes or no?|Do you know: {l}?|My question is: {l}?|{x}".split("|")
FRAMES: tuple[tuple[str, list[str]], ...] = (
    (r"What(?: is|'s|s| are) (?P<x>[^?]+)\?", THINGS),
    (r"How (?:do|can|should|would|could) (?:I|you|we) (?P<x>[^?]+)\?", WAYS),
    (r"(?:Explain|Describe|Tell me about|Define) (?P<x>[^.?]+)[.?]", EXPLANATIONS),
    (r"(?P<x>(?:Which|What|Who|Where|When|Why|How) [^?]+)\?", OPEN_QUESTIONS),
    (r"(?P<x>(?:Can|Could|Does|Do|Is|Are|May|Must|Will) [^?]+)\?", YES_OR_NO),
)
BEFORE = (
    "please |hi, |hello, |hey, |ok, |so, |well, |can you tell me: |I have a question. |quick question: |Hello! |Hi! |"
    "Hey! |Good morning! |Good evening. |Hello there. |Sorry, |Excuse me, |Just one thing: |Another question: |"
    "I am new here. |My friend asked me this. |I need help. |Help me please. |One more question: |and |And now: |"
    "Tell me, |Please tell me: |Can you help me? |I forgot it: |For my work: |My teacher asked: |I am curious: |"
    "Thanks. |Thank you! |Okay. |Oh, |Now |um, |hmm, |Dear assistant, |Hi there, |First question: "
).split("|")
AFTER = (
    " please| Please.| Thanks!| thank you| Thank you.| I need it for my work.| I want to learn it.| Can you help?|"
    " I do not know.| I have no idea.| Help me.| I am new to this.| Do you know?| thanks a lot| Tell me more.| ok?|"
    " in simple words| In simple words, please.| I forgot."
).split("|")
KEYWORDS = (
    "{0}|{0}?|{0}|Something about {1}?|What about {1}?|What do you know about {1}?|I have a question about {1}.|"
    "Which one has to do with {1}?|I am thinking of {1}.|Tell me about {1}.|It is about {1}.|question: {0}|"
    "What has {1} to do with it?|I remember only {1}.|{1}, what is it?|help with {1}|Do you know about {1}?"
).split("|")
STOP_WORDS = frozenset(
    "a an and are as at be by can could did do does explain describe for from had has have how i if in is it its like "
    "many me mean much my name of on or please say should so some tell that the their them there these they this to "
    "us use was we were what when where which who whose why will with would you your about know give list not no yes "
    "than then but into more most very one two other any all also only thing things someone here just get make".split()
)


def words_of(text: str) -> list[str]:
    """The words of a text, as they are written."""
    return re.findall(r"[A-Za-z][A-Za-z0-9_'-]*|\d+", text)


class Keywords:
    """The telling words of each block: which of them occur together in no other block."""

    def __init__(self, blocks: Iterable[Block]) -> None:
        self.blocks = tuple(blocks)

    @cached_property
    def _telling(self) -> dict[int, list[tuple[str, ...]]]:
        """For each block, the telling words of each of its questions and of its first neutral answer."""
        found = {}
        for block in self.blocks:
            texts = [text for question in block.questions for text in expand(question)[:6]]
            lists = [_content_words(text) for text in texts]
            answer = _content_words(block.neutral[0])
            found[id(block)] = [words for words in lists if words] + ([answer] * 2 if answer else [])
        return found

    def lists(self, block: Block) -> list[tuple[str, ...]]:
        """The telling words of a block, one list for each text of it."""
        return self._telling.get(id(block), [])

    @cached_property
    def _where(self) -> dict[str, set[int]]:
        where: dict[str, set[int]] = defaultdict(set)
        for key, lists in self._telling.items():
            for words in lists:
                for word in words:
                    where[word.lower()].add(key)
        return where

    def draw(self, random: Random, block: Block) -> str | None:
        """A question of a few of the block's telling words that no other block has all of; None where none is found."""
        lists = self.lists(block)
        if not lists:
            return None
        for _ in range(3):
            pool = list(dict.fromkeys(random.choice(lists) + (random.choice(lists) if random.random() < 0.5 else ())))
            if len(pool) < 2:
                continue
            chosen = random.sample(pool, min(len(pool), random.choice((2, 2, 3, 3, 4))))
            if random.random() < 0.6:
                chosen.sort(key=pool.index)
            others = set.intersection(*(self._where[word.lower()] for word in chosen))
            if others == {id(block)}:
                joined = ", ".join(chosen[:-1]) + " and " + chosen[-1]
                return random.choice(KEYWORDS).format(" ".join(chosen), joined)
        return None


def _content_words(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(w for w in words_of(text) if w.lower() not in STOP_WORDS and len(w) > 1))


def reworded(random: Random, question: str) -> str:
    """The question in other words: in another frame, with words exchanged, or without some small ones."""
    kind = random.random()
    if kind < 0.3:
        question = _framed(random, question)
    if 0.2 < kind < 0.55:
        question = _exchanged(random, question)
    if 0.5 < kind < 0.65:
        question = _thinned(random, question)
    return question


def _framed(random: Random, question: str) -> str:
    for pattern, frames in FRAMES:
        if match := re.fullmatch(pattern, question):
            x = match["x"]
            return random.choice(frames).format(x=x, l=x[:1].lower() + x[1:])
    return question


def _exchanged(random: Random, question: str) -> str:
    def other(match: re.Match[str]) -> str:
        word = match[0]
        same = _SAME.get(word.lower())
        if not same or random.random() < 0.5:
            return word
        chosen = random.choice(same)
        return chosen.capitalize() if word[0].isupper() else chosen

    return re.sub(r"[A-Za-z]+", other, question)


def _thinned(random: Random, question: str) -> str:
    kept = [w for w in question.split(" ") if w.lower().strip("?.,!") not in STOP_WORDS or random.random() < 0.5]
    return " ".join(kept) if len(kept) > 1 else question


def noisy(random: Random, text: str) -> str:
    """The text as people type it: lower case, no full stop, a polite word, a letter wrong."""
    if random.random() < 0.35:
        return text
    if random.random() < 0.35:
        before = random.choice(BEFORE)
        text = before + (text[:1].lower() + text[1:] if before[-2:] in (", ", ": ") and text[1:2].islower() else text)
    if random.random() < 0.12:
        text = text + random.choice(AFTER)
    if random.random() < 0.3:
        text = text.rstrip("?.!")
    if random.random() < 0.35:
        text = text.lower()
    elif random.random() < 0.15:
        text = text[:1].upper() + text[1:]
    if random.random() < 0.08:
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
