"""The news of a run as server-sent events. Pure.

A text may have any line ends; an event's text has LF, whose lines are `data:` lines.
"""

from __future__ import annotations

import re

import msgspec

from ..adapters.runs import FieldPiece, JobNews, JsonPiece, News, TextPiece
from .tasks import Task

_LINE_END = re.compile(r"\r\n|\r|\n")


class EventEncoder:
    """The events of one run, in their order."""

    def __init__(self, *, tells_form: bool = False) -> None:
        """`tells_form` puts an event before the first piece that says whether the pieces are text or JSON."""
        self._is_form_due = tells_form
        self._ended_in_cr = False

    def event(self, news: News) -> bytes:
        """What is sent for a piece of news, if anything."""
        match news:
            case TextPiece(text=text):
                return self._form("text") + _event("", self._lines(text))
            case JsonPiece(value=value):
                return self._form("json") + _event("", [msgspec.json.encode(value).decode()])
            case FieldPiece():
                return _event("field", [msgspec.json.encode(news).decode()])
            case JobNews():
                return _event("job", [msgspec.json.encode(news).decode()])
            case _:
                return b""

    def last(self, task: Task) -> bytes:
        """The event that tells that this was all, or that something is missing."""
        return _event(
            "completed" if task.status == "completed" else "failed", [msgspec.json.encode(task.summary).decode()]
        )

    def _form(self, form: str) -> bytes:
        if not self._is_form_due:
            return b""
        self._is_form_due = False
        return _event("output", [f'{{"form":"{form}"}}'])

    def _lines(self, text: str) -> list[str]:
        rest = text.removeprefix("\n") if self._ended_in_cr else text
        if text:
            self._ended_in_cr = text.endswith("\r")
        return _LINE_END.split(rest) if rest else []


def _event(name: str, data: list[str]) -> bytes:
    lines = [f"event: {name}"] if name else []
    return "\n".join([*lines, *(f"data: {line}" for line in data), "", ""]).encode() if data else b""
