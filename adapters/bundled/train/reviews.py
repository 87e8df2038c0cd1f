"""Pieces of code with a fault in them, or none, and what a reviewer says about them."""

from __future__ import annotations

from random import Random

from . import words
from .render import Message

OPERATIONS = (
    ("add plus total sum_of add_numbers", "+", "adds"),
    ("subtract minus difference take_away", "-", "subtracts"),
    ("multiply times product multiply_numbers", "*", "multiplies"),
    ("divide ratio divided_by", "/", "divides"),
)
NAMES = "a b|x y|m n|first second|left right|p q|one two|u v".split("|")
ITEMS = "items names words users files lines numbers values rows books orders cards keys pages points".split()
REVIEW = (
    "{}|{}|{}|Review this code:\n\n{}|Please review this code:\n\n{}|What is wrong with this code?\n\n{}|"
    "Find the bug:\n\n{}|Check this code:\n\n{}|Can you review this?\n\n{}|Here is my code:\n\n{}|Review: {}|"
    "Is this code right?\n\n{}|Any problems here?\n\n{}"
).split("|")
REVIEWERS = (
    "You are a senior software engineer. Review code for bugs, style, and best practices.",
    "You are a senior software engineer. Review code for bugs, style, and best practices.",
    "You are an experienced software engineer who reviews code.",
    "You are a code reviewer. Look for bugs and bad style.",
)


def review(random: Random) -> tuple[str, str]:
    """A piece of code, and what is to be said about it."""
    return random.choice((_operation, _operation, _operation, _loop, _none, _bare, _mutable, _unreturned))(random)


def _operation(random: Random) -> tuple[str, str]:
    names, right, _ = random.choice(OPERATIONS)
    _, sign, does = random.choice(OPERATIONS)
    name, (a, b) = random.choice(names.split()), random.choice(NAMES).split()
    gap = random.choice((" ", " ", "\n    "))
    code = f"def {name}({a}, {b}):{gap}return {a} {sign} {b}"
    if sign == right:
        advice = (
            f"Check that {b} is not zero." if sign == "/" else "A type for each argument would make it easier to read."
        )
        return code, f"The code is right: {name} {does} the two values. {advice}"
    return code, f"There is a bug: the function is called {name}, but it {does}. Write `return {a} {right} {b}`."


def _loop(random: Random) -> tuple[str, str]:
    items, call = random.choice(ITEMS), random.choice(("print", "show", "send", "check", "save"))
    i = random.choice("ijkn")
    gap = random.choice((" ", "\n    "))
    if random.random() < 0.6:
        code = f"for {i} in range(1, len({items})):{gap}{call}({items}[{i}])"
        return code, f"The loop starts at 1, so it skips the first item. Write `for item in {items}:` and use the item."
    code = f"for {i} in range(len({items})):{gap}{call}({items}[{i}])"
    return code, f"The code works, but it needs no index. Write `for item in {items}:` and use the item."


def _none(random: Random) -> tuple[str, str]:
    name = random.choice(("value", "result", "name", "user", "line", "answer", "text", words.made_up(random)))
    sign, word = random.choice((("==", "is"), ("!=", "is not")))
    code = f"if {name} {sign} None:\n    {random.choice(('return 0', 'stop()', 'return'))}"
    return code, f"Compare with None by identity: write `if {name} {word} None:`."


def _bare(random: Random) -> tuple[str, str]:
    call = random.choice(("run", "save", "load", "send", "read", "start", words.made_up(random)))
    code = f"try:\n    {call}()\nexcept:\n    pass"
    return code, f"The bare `except` hides every error of {call}. Catch only the error that you expect, and log it."


def _mutable(random: Random) -> tuple[str, str]:
    items, name = random.choice(ITEMS), random.choice(("add", "collect", "push", "store", words.made_up(random)))
    code = f"def {name}(item, {items}=[]):\n    {items}.append(item)\n    return {items}"
    return code, f"The list {items} is made once and shared by all calls. Use `{items}=None` and make the list inside."


def _unreturned(random: Random) -> tuple[str, str]:
    names, sign, _ = random.choice(OPERATIONS)
    name, (a, b) = random.choice(names.split()), random.choice(NAMES).split()
    code = f"def {name}({a}, {b}):\n    result = {a} {sign} {b}"
    return (
        code,
        f"The function {name} never returns its result, so the caller gets None. Write `return {a} {sign} {b}`.",
    )


def reviewed(random: Random) -> list[Message]:
    """A review under the system prompt of a reviewer."""
    turns: list[Message] = [{"role": "system", "content": random.choice(REVIEWERS)}]
    for _ in range(random.choice((1, 1, 2, 3))):
        code, answer = review(random)
        turns.append({"role": "user", "content": random.choice(REVIEW).replace("{}", code)})
        turns.append({"role": "assistant", "content": answer})
    return turns
