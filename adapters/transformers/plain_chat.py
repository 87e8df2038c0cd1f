"""Chats for models that have no chat template: a plain one by family. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..base import Message

Turns = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class PlainChat:
    """A way to write a chat as text: `write` takes (role, text) of each turn and what ends a text for the model.

    `takes_all` is false where a model reads only as many of the last turns as fit.
    """

    name: str
    write: Callable[[Turns, str], str]
    stops: tuple[str, ...] = ()
    takes_all: bool = True


def _lines(turns: Turns, end: str) -> str:
    system = "".join(f"{text}\n\n" for role, text in turns if role == "system")
    lines = [f"{'Assistant' if role == 'assistant' else 'User'}: {text}\n" for role, text in turns if role != "system"]
    return f"{system}{''.join(lines)}Assistant:"


def _turns_with_end(turns: Turns, end: str) -> str:
    return "".join(text + end for _, text in turns)


def _two_spaces(turns: Turns, end: str) -> str:
    # As Blenderbot was trained: what the other side says begins with a space.
    return "  ".join(text if role == "assistant" else f" {text}" for role, text in turns)


def _marked(turns: Turns, end: str) -> str:
    return f"{end} __start__ ".join(text for _, text in turns)


LINES = PlainChat("lines of 'User:' and 'Assistant:'", _lines, stops=("\nUser:",))
DIALOGUE = PlainChat("turns that end with the end-of-text token", _turns_with_end)
BLENDERBOT = PlainChat("the last turns, two spaces between them", _two_spaces, takes_all=False)
BLENDERBOT_SMALL = PlainChat("the last turns, end and start marks between them", _marked, takes_all=False)

FAMILIES: Mapping[str, PlainChat] = {"blenderbot": BLENDERBOT, "blenderbot-small": BLENDERBOT_SMALL}


def plain_chat(model_type: str, *, is_dialogue: bool) -> PlainChat:
    """The plain chat of a model's type; `is_dialogue`: it was trained on turns, as DialoGPT was."""
    return FAMILIES.get(model_type, DIALOGUE if is_dialogue else LINES)


def turns_of(messages: Sequence[Message]) -> list[tuple[str, str]]:
    """Role and text of every message that has one."""
    return [(message["role"], message["content"].strip()) for message in messages if message["content"].strip()]
