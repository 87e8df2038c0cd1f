"""Calls as upstream servers stream them, put into the one right form. Pure.

Seen in the wild: id and name repeated in every piece, or an id that comes late or never; no `index`, or one that counts
from 1; arguments as an object in place of JSON text; several whole calls in one piece.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import msgspec

from ..events import ToolCallDelta


class CallPieces:
    """The calls of one choice: `feed` takes the `tool_calls` of a delta, `finish` gives out what was held back."""

    def __init__(self, choice: int) -> None:
        self._choice = choice
        self._calls: list[_Call] = []

    def feed(self, pieces: Any) -> Iterator[ToolCallDelta]:
        """What is new in these pieces."""
        for piece in pieces if isinstance(pieces, list) else ():
            if isinstance(piece, dict):
                yield from self._call_of(piece).feed(piece)

    def finish(self) -> Iterator[ToolCallDelta]:
        """Pieces of calls that never got a name."""
        for call in self._calls:
            yield from call.finish()

    def _call_of(self, piece: dict[str, Any]) -> _Call:
        index, id = piece.get("index"), piece.get("id")
        if isinstance(index, int):
            found = next((call for call in self._calls if call.key == index), None)
        elif id:
            found = next((call for call in self._calls if call.id == id), None)
        elif self._calls and not (_function(piece).get("name") and self._calls[-1].is_begun):
            found = self._calls[-1]
        else:
            found = None
        if found is None:
            found = _Call(len(self._calls), self._choice, index if isinstance(index, int) else None)
            self._calls.append(found)
        return found


class _Call:
    """One call; nothing of it is given out before its name is known."""

    def __init__(self, index: int, choice: int, key: int | None) -> None:
        self.key = key
        self.id = ""
        self._index = index
        self._choice = choice
        self._held = ""
        self.is_begun = False

    def feed(self, piece: dict[str, Any]) -> Iterator[ToolCallDelta]:
        function = _function(piece)
        self.id = self.id or _text(piece.get("id"))
        arguments = self._held + _arguments(function.get("arguments"))
        name = _text(function.get("name"))
        if self.is_begun:
            if arguments:
                yield ToolCallDelta(self._index, arguments=arguments, choice=self._choice)
        elif name:
            self._held = ""
            yield self._first(name, arguments)
        else:
            self._held = arguments

    def finish(self) -> Iterator[ToolCallDelta]:
        if not self.is_begun and self._held:
            yield self._first("", self._held)

    def _first(self, name: str, arguments: str) -> ToolCallDelta:
        self.is_begun = True
        self.id = self.id or f"call_{secrets.token_hex(12)}"
        return ToolCallDelta(self._index, self.id, name, arguments, self._choice)


def _function(piece: dict[str, Any]) -> dict[str, Any]:
    function = piece.get("function")
    return function if isinstance(function, dict) else {}


def _arguments(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return msgspec.json.encode(value).decode()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
