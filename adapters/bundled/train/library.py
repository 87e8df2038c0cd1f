"""The prompts of the workflow library and their like: critiques, choices, stories, translations and the rest."""

from __future__ import annotations

import json
import re
from random import Random

from . import sides, words
from .corpus import Corpus, pick
from .render import Message
from .reports import summary
from .reviews import reviewed

Turns = list[Message]

CHOOSE = (
    "{task}\n\nHere are several answers, as a list in JSON. Answer with the best of them, word for word, and nothing "
    "else.\n\n{drafts}"
)
CHOOSE_ELSE = (
    "{task}\n\nWhich of these answers is the best? Answer with it and nothing else.\n\n{drafts}",
    "Here are several answers to this question: {task}\n\n{drafts}\n\nRepeat the best of them and nothing else.",
)
STORY_TASKS = (
    "Write a short story about {}.|Write a short story about {}.|Tell me a short story about {}.|"
    "Tell me a story about {}.|Write a story about {}.|A story about {}, please.|"
    "I would like to hear a story about {}.|Make up a story about {}.|Can you write a story about {}?|story about {}"
).split("|")
STORY_SUBJECTS = (
    "robot dragon cat dog king princess pirate wizard ship rocket farmer fox bear bird tree river mountain moon star "
    "boy girl teacher witch mouse rabbit owl lion snow train island sailor knight garden letter clock key castle baker "
    "horse"
).split()


def choose(random: Random, corpus: Corpus) -> Turns:
    """A task with several answers, of which the whole and fitting one is to be given again."""
    task, answer = _task(random, corpus)
    wrong = [_worse(random, answer, corpus) for _ in range(random.choice((0, 1, 1, 2, 2, 3)))]
    drafts = [*wrong, answer, *([answer] if random.random() < 0.2 else [])]
    random.shuffle(drafts)
    form = CHOOSE if random.random() < 0.75 else random.choice(CHOOSE_ELSE)
    return _turns(form.format(task=task, drafts=json.dumps(drafts, ensure_ascii=False)), answer)


def _worse(random: Random, answer: str, corpus: Corpus) -> str:
    kind = random.random()
    if kind < 0.5:
        return _task(random, corpus)[1]
    if kind < 0.65:
        return random.choice(("I do not know.", "I do not know that.", "No.", "I cannot help you with that."))
    parts = answer.split()
    return " ".join(parts[: max(2, random.randint(len(parts) // 3, max(2, len(parts) - 3)))])


def story(random: Random, corpus: Corpus) -> tuple[str, str]:
    """A wish for a story about something, and the story that has most of it."""
    subject = random.choice(STORY_SUBJECTS)
    found = max(corpus.documents, key=lambda text: min(3, text.count(f" {subject}")) - len(text) / 10_000)
    article = "an" if subject[0] in "aeiou" else "a"
    return random.choice(STORY_TASKS).format(f"{article} {subject}" if subject != "snow" else subject), found


def _task(random: Random, corpus: Corpus, shortest: int = 0) -> tuple[str, str]:
    """A question of the corpus with its answer, short enough to stand in a list."""
    if corpus.documents and random.random() < 0.25:
        return story(random, corpus)
    while True:
        block = random.choice(corpus.blocks)
        question = pick(random.choice(block.questions), random)
        answer = random.choice(block.neutral)
        if not block.systems and len(question) < 160 and shortest <= len(answer) < 420:
            return question, answer


CRITICIZE = (
    "What could be better about this text? Name the two or three most important things.",
    "What could be better about this text? Name the two or three most important things.",
    "What could be better about this text?",
    "How can I improve this text?",
    "Criticize this text.",
    "Name two or three things that could be better here.",
)
REVISE = (
    "Now write the text again, and better. Answer with the text and nothing else.",
    "Now write the text again, and better. Answer with the text and nothing else.",
    "Write it again, and better.",
    "Now improve the text.",
    "Please write a better version.",
)
STORY_POINTS = (
    "1. The beginning should say where and when the story happens.\n"
    "2. The end comes too fast and needs a sentence more.|"
    "1. The story begins too fast: say first what kind of day it was.\n2. The last sentence should say what came of it."
).split("|")
OTHER_POINTS = (
    "1. The text could begin by saying what it is about.\n2. A short last sentence should sum it up.|"
    "1. The first sentence should name the subject at once.\n2. The end is missing: one sentence should close the text."
).split("|")
SHORT_POINTS = (
    "1. The text ends in the middle of a thought.\n2. Something important is missing.\n"
    "3. It should end with a full stop."
)
STORY_BEGINNINGS = (
    "It was a quiet morning in spring.|It was a cold evening in autumn.|It was the first warm day of the year.|"
    "It was a dark night, and the wind was strong."
).split("|")
STORY_ENDS = (
    "From that day on, nobody forgot what had happened.|And they talked about it for many years.|"
    "That night everyone slept well.|It was a day to remember."
).split("|")


def better(random: Random, answer: str, is_story: bool) -> str:
    """A whole text with a beginning and an end added."""
    if is_story:
        return f"{random.choice(STORY_BEGINNINGS)} {answer} {random.choice(STORY_ENDS)}"
    return f"Here is the answer in a few words. {answer} That is the most important part."


def critique(random: Random, corpus: Corpus) -> Turns:
    """A text, what could be better about it, and mostly the better text."""
    task, answer = _task(random, corpus, shortest=80)
    is_story = "story" in task
    if random.random() < 0.3:
        draft, points, revised = _cut(random, answer), SHORT_POINTS, answer
    else:
        draft, points = answer, random.choice(STORY_POINTS if is_story else OTHER_POINTS)
        revised = better(random, answer, is_story)
    turns = [*_turns(task, draft), *_turns(random.choice(CRITICIZE), points)]
    turns[1]["weight"] = 0
    if random.random() < 0.7:
        turns += _turns(random.choice(REVISE), revised)
    return turns


def _cut(random: Random, answer: str) -> str:
    parts = answer.split()
    return " ".join(parts[: max(2, random.randint(len(parts) // 3, max(2, len(parts) - 3)))])


TRANSLATE = (
    "Translate '{}' to {}.|Translate '{}' to {}.|Translate {} to {}.|Say '{}' in {}.|{} in {}?|"
    "What does '{}' mean in {}?|How do I say {} in {}?|translate {} into {}|Translate into {1}: {0}"
).split("|")


def translation(random: Random, corpus: Corpus) -> Turns:
    """A word in another language, asked for as the workflow does; of what is not known, that it is not."""
    known = _translations(corpus)
    if random.random() < 0.25 or not known:
        text = words.phrase(random, 4)
        language = random.choice(("Spanish", "French", "German", "Italian", "Chinese", "Korean", "Dutch"))
        answer = f"I know only a few words of {language}, and these are not among them: {text}"
    else:
        (text, language), answer = random.choice(list(known.items()))
    return _turns(random.choice(TRANSLATE).format(text, language), answer)


def _translations(corpus: Corpus) -> dict[tuple[str, str], str]:
    found = {}
    for block in corpus.blocks:
        if match := re.match(r'In (\w+), "([^"]+)" is', block.neutral[0]):
            found[(match[2], match[1])] = block.neutral[0]
    return found


def make(random: Random, corpus: Corpus) -> Turns:
    """One to three exchanges of one kind."""
    kind = random.random()
    if kind < 0.27:
        return [message for _ in range(random.choice((1, 1, 2))) for message in summary(random, corpus)]
    if kind < 0.45:
        return [message for _ in range(random.choice((1, 2, 3))) for message in sides.exchange(random)]
    if kind < 0.6:
        return choose(random, corpus)
    if kind < 0.78:
        return critique(random, corpus)
    if kind < 0.88:
        return reviewed(random)
    if kind < 0.94 and corpus.documents:
        return _turns(*story(random, corpus))
    return [message for _ in range(random.choice((1, 2, 3))) for message in translation(random, corpus)]


def _turns(question: str, answer: str) -> Turns:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
