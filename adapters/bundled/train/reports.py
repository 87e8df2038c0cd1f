"""Short texts of several kinds, and their summaries in the length that is asked for."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

from . import words
from .corpus import Corpus
from .render import Message

SUMMARIZE = (
    "Summarize this text in {length}:\n\n{text}|Summarize this text in {length}:\n\n{text}|"
    "Summarize this text in {length}: {text}|Summarise this text in {length}:\n{text}|"
    "Write a summary of {length}:\n\n{text}|Summarize in {length}: {text}|"
    "Say in {length} what this text says:\n\n{text}|"
    "{text}\n\nSummarize this text in {length}.|Please summarize the following text in {length}:\n\n{text}|"
    "Give me {length} about this text: {text}|What does this text say? Answer in {length}.\n\n{text}"
).split("|")
LENGTHS = (
    "one sentence|one sentence|one sentence|one sentence|two sentences|three bullet points|a few words|"
    "one short sentence|ten words|one line"
).split("|")
TOPIC = "library bakery museum school market cafe theater garden station shop zoo park hotel cinema bridge".split()
CAUSES = "snow|heavy rain|a storm|ice on the line|a broken engine|a fallen tree|a strike|a fire|thick fog".split("|")
THINGS = "key ring watch book bag phone coat dog cat letter hat purse bicycle wallet camera guitar".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
NUMBERS = "two three four five six seven eight nine ten twelve twenty".split()
LEARNED = "the piano|the guitar|chess|cooking|Spanish|French|painting|dancing|swimming|the violin|Python".split("|")
WINS = "played a first concert|won a small prize|gave lessons to others|wrote a book about it".split("|")


def _opening(random: Random) -> tuple[list[str], str, str]:
    place, city, hour = random.choice(TOPIC), words.place(random), random.choice(NUMBERS[2:8])
    who, later = random.choice(("people", "children", "workers", "students")), random.choice(NUMBERS[6:10])
    text = [f"The {place} in {city} opens at {hour} in the morning.", f"Many {who} stop there before they go on."]
    text.append(f"By {later} o'clock it is full.")
    return text, f"The {place} in {city} opens at {hour} and is full by {later}.", f"The {place} in {city}"


def _new_place(random: Random) -> tuple[list[str], str, str]:
    owner = random.choice(("school", "city", "village", "town", "company"))
    place, many, count = random.choice(TOPIC), random.choice(NUMBERS), random.choice(NUMBERS)
    a, b = random.sample(("large windows", "quiet places", "long tables", "old trees", "small rooms", "blue doors"), 2)
    day = random.choice(DAYS)
    text = [f"Our {owner} has a new {place}.", f"It has {many} {a} and {count} {b}.", f"It is open from {day} on."]
    return text, f"The {owner} has a new {place} that is open from {day} on.", f"The new {place} of the {owner}"


def _learner(random: Random) -> tuple[list[str], str, str]:
    name, skill, months = words.name(random), random.choice(LEARNED), random.choice(NUMBERS)
    unit, win = random.choice(("months", "years", "weeks")), random.choice(WINS)
    hour = random.choice(("half an hour", "an hour", "ten minutes", "two hours"))
    text = [f"{name} wanted to learn {skill}.", f"{name} practised for {hour} each day."]
    text.append(f"After {months} {unit} {name} {win}.")
    return text, f"{name} learned {skill} and {win} after {months} {unit}.", f"How {name} learned {skill}"


def _late(random: Random) -> tuple[list[str], str, str]:
    vehicle, city, cause = random.choice(("train", "bus", "plane", "ship")), words.place(random), random.choice(CAUSES)
    hours, help_ = random.choice(NUMBERS[:6]), random.choice(("a taxi", "a small bus", "a truck", "another train"))
    text = [
        f"The {vehicle} to {city} was late because of {cause}.",
        f"The passengers waited {hours} hours in the cold.",
    ]
    text.append(f"In the end {help_} took them home.")
    summary = f"Because of {cause} the {vehicle} to {city} was late, and {help_} took the passengers home."
    return text, summary, f"The late {vehicle} to {city}"


def _found(random: Random) -> tuple[list[str], str, str]:
    a, b, thing = words.name(random), words.name(random), random.choice(THINGS)
    colour, place = random.choice(words.COLOURS), random.choice(TOPIC)
    text = [f"{a} found a {colour} {thing} near the {place}.", f"It belonged to {b}, who had lost it days before."]
    text.append(random.choice((f"{b} was very happy and baked a cake for {a}.", f"Now {a} and {b} are good friends.")))
    return text, f"{a} found the {colour} {thing} that {b} had lost.", f"The lost {thing} of {b}"


def _meeting(random: Random) -> tuple[list[str], str, str]:
    before, after = random.sample(DAYS, 2)
    hour, room, what = random.choice(NUMBERS), random.choice(NUMBERS), random.choice(("meeting", "lesson", "concert"))
    text = [f"The {what} on {before} is moved to {after}.", f"It begins at {hour} o'clock in room {room}."]
    text.append(random.choice(("Please bring a pencil.", "Please be on time.", "Please tell the others.")))
    return text, f"The {what} is now on {after} at {hour} in room {room}.", f"The {what} on {after}"


def _release(random: Random) -> tuple[list[str], str, str]:
    company, thing = words.made_up(random).capitalize(), random.choice(("phone", "car", "model", "program", "camera"))
    times, share = random.choice(NUMBERS[:6]), random.choice(("the same", "lower", "higher"))
    text = [f"{company} has shown a new {thing}.", f"It is {times} times faster than the old one."]
    text.append(f"The price is {share} and it comes in {random.choice(('spring', 'summer', 'autumn', 'winter'))}.")
    return (
        text,
        f"The new {thing} of {company} is {times} times faster than the old one.",
        f"A new {thing} by {company}",
    )


REPORTS: tuple[Callable[[Random], tuple[list[str], str, str]], ...] = (
    *(_opening, _new_place, _learner, _late, _found, _meeting, _release),
)


def summary(random: Random, corpus: Corpus) -> list[Message]:
    """A text and its summary, in the length that is asked for; of a long text, the sentences it begins with."""
    length = random.choice(LENGTHS)
    if random.random() < 0.75 or not corpus.documents:
        sentences, short, title = random.choice(REPORTS)(random)
    else:
        sentences = sentences_of(random.choice(corpus.documents))[: random.randint(3, 8)]
        short, title = sentences[0], " ".join(words_ for words_ in sentences[0].rstrip(".!?").split()[:8])
    answer = short
    if length == "two sentences":
        answer = f"{short} {sentences[-1]}"
    elif length == "three bullet points":
        answer = "\n".join(f"- {sentence}" for sentence in sentences[:3])
    elif length in ("a few words", "ten words", "one line"):
        answer = title
    text = ("\n\n" if random.random() < 0.05 else " ").join(sentences)
    user = random.choice(SUMMARIZE).format(length=length, text=text)
    return [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]


def sentences_of(text: str) -> list[str]:
    """A text cut after its full stops."""
    return [part for part in re.split(r"(?<=[.!?])\s+", text.strip()) if part]
