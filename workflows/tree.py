"""A compose file as its user wrote it: values with the place and path they have in the file, and what is wrong there.

Spellings move values around; each keeps its own place and path, so that errors speak of the file and not of our form.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

from ..adapters.errors import ConfigError


class Place(msgspec.Struct, frozen=True):
    """Where something stands; lines and columns count from 1, `order` is the file's number among those given."""

    file: str
    line: int = 0
    column: int = 0
    order: int = 0


class Problem(msgspec.Struct, frozen=True):
    """One mistake; printed as `file:line:column: path: message`."""

    place: Place
    path: str
    message: str

    @property
    def sort_key(self) -> tuple[int, int, int]:
        return self.place.order, self.place.line, self.place.column

    def __str__(self) -> str:
        where = f"{self.place.file}:{self.place.line}:{self.place.column}" if self.place.line else self.place.file
        return ": ".join(part for part in (where, self.path, self.message) if part)


class ConfigErrors(ConfigError):
    """Everything that is wrong with a compose file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: problem.sort_key))
        super().__init__("\n".join(map(str, self.problems)))


class Node(msgspec.Struct, frozen=True):
    """A value of the file: a mapping or list of nodes, or a scalar. `key` is where its key or dash stands.

    `tag` is how it goes into an earlier file: merged, put in its place (`!override`), or taking it away (`!reset`).
    """

    value: Any
    place: Place
    path: str
    key: Place
    tag: Literal["merge", "override", "reset"] = "merge"

    @property
    def fields(self) -> dict[str, Node]:
        """A copy of the mapping; empty for anything else."""
        return dict(self.value) if isinstance(self.value, dict) else {}

    @property
    def items(self) -> list[Node]:
        """A copy of the list; empty for anything else."""
        return list(self.value) if isinstance(self.value, list) else []

    @property
    def text(self) -> str:
        """The text; empty for anything else."""
        return self.value if isinstance(self.value, str) else ""

    def with_value(self, value: Any) -> Node:
        return msgspec.structs.replace(self, value=value)

    def problem(self, message: str, *, at_key: bool = False) -> Problem:
        return Problem(self.key if at_key else self.place, self.path, message)


def plain(node: Node) -> Any:
    """The value without places."""
    match node.value:
        case dict():
            return {key: plain(child) for key, child in node.value.items()}
        case list():
            return [plain(child) for child in node.value]
        case _:
            return node.value


def find(root: Node, path: Sequence[str | int]) -> tuple[Node, tuple[str | int, ...]]:
    """The node at a path of the internal form, or the last one on the way to it; and what of the path is left."""
    node = root
    for number, step in enumerate(path):
        match node.value, step:
            case dict(), str() if step in node.value:
                node = node.value[step]
            case list(), int() if step < len(node.value):
                node = node.value[step]
            case _:
                return node, tuple(path[number:])
    return node, ()


def joined(path: str, key: str) -> str:
    """The path of a key in the mapping at `path`."""
    return f"{path}.{key}" if path else key


def suggestion(name: str, known: Iterable[str], *, list_all: bool = True) -> str:
    """`; did you mean 'messages'?`, or what there is to choose from, or nothing."""
    known = list(dict.fromkeys(known))
    if near := difflib.get_close_matches(name, known, n=1, cutoff=0.6):
        return f"; did you mean '{near[0]}'?"
    return f"; known are {', '.join(known)}" if known and list_all else ""
