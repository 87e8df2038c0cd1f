"""An answer in pieces -> its regions: thinking, tool calls, the rest. Pure; the format is data.

The format is a transformers `response_template`. The reading is our own because nothing may be lost: every character
that comes in goes out again, as a region's text or as one of its marks, so that a region that turns out to be nothing
can be given back as the text it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from transformers.utils.chat_parsing.response_templates import ResponseTemplate, ResponseTemplateField

from .response_formats import begun_answer

TRIM_AFTER = 8192


@dataclass(frozen=True)
class Part:
    """A piece of a region, or one of its marks; `raw` is the text as the model wrote it, which ends at place `end`.

    `field` is None for text that belongs to no region of the format.
    """

    kind: Literal["open", "text", "close"]
    field: ResponseTemplateField | None
    raw: str
    end: int
    captures: dict[str, str]


class _Mark(NamedTuple):
    start: int
    end: int
    is_open: bool
    field: ResponseTemplateField
    captures: dict[str, str]


class RegionReader:
    """Cuts the text of one answer into the regions of its format."""

    def __init__(self, template: ResponseTemplate, prompt: str) -> None:
        self._template = template
        self._implicit = template.fields[template.implicit] if template.implicit is not None else None
        self._explicit = [field for field in template.fields.values() if field.open_re is not None]
        self._field: ResponseTemplateField | None = None
        self._captures: dict[str, str] = {}
        self._buffer = begun_answer(template, prompt)
        self._at = 0  # how much of the buffer is read
        self._base = -len(self._buffer)  # the place of the buffer's first character; the answer's is 0
        list(self._read(at_end=False))

    @property
    def field(self) -> ResponseTemplateField | None:
        """The region that the answer is in now, if it is one that had to be opened."""
        return self._field

    def feed(self, text: str) -> list[Part]:
        """The parts that `text` makes clear; what may be the beginning of a mark is held back."""
        if self._at > TRIM_AFTER:
            # One character stays, so that a mark that stands only at the very beginning is not found again.
            cut = self._at - 1
            self._buffer, self._at, self._base = self._buffer[cut:], 1, self._base + cut
        self._buffer += text
        return list(self._read(at_end=False))

    def finish(self) -> list[Part]:
        """What was held back, now that no more text comes."""
        return list(self._read(at_end=True))

    def _read(self, *, at_end: bool) -> Iterator[Part]:
        while True:
            mark, held_from = self._next_mark(at_end)
            yield from self._text(mark.start if mark is not None else held_from)
            if mark is None:
                return
            empty = mark.start == mark.end
            if mark.is_open:
                self._field, self._captures = mark.field, mark.captures
            yield from self._part("open" if mark.is_open else "close", mark.field, mark.end)
            if not mark.is_open:
                self._field, self._captures = None, {}
                if empty and mark.field is self._implicit:
                    return

    def _next_mark(self, at_end: bool) -> tuple[_Mark | None, int]:
        """The first mark that is certain, and where the text begins that may still become one."""
        found: list[_Mark] = []
        held_from = len(self._buffer)
        for is_open, pattern, field in self._watched():
            match = pattern.search(self._buffer, self._at, partial=not at_end)
            if match is None:
                continue
            if not at_end and (match.partial or self._can_grow(match, field, is_open)):
                held_from = min(held_from, match.start())
            elif match.end() > match.start() or is_open or field is not self._implicit:
                captures = {name: value for name, value in match.groupdict().items() if value is not None}
                found.append(_Mark(match.start(), match.end(), is_open, field, captures))
        first = min(found, key=lambda mark: (mark.start, mark.start - mark.end, not mark.is_open), default=None)
        if first is not None and first.start >= held_from:
            first = None
        return first, held_from

    def _watched(self) -> Iterator[tuple[bool, Any, ResponseTemplateField]]:
        if self._field is not None:
            if self._field.close_re is not None:
                yield False, self._field.close_re, self._field
            return
        for field in self._explicit:
            yield True, field.open_re, field
        if self._implicit is not None and self._implicit.close_re is not None:
            yield False, self._implicit.close_re, self._implicit

    def _can_grow(self, match: Any, field: ResponseTemplateField, is_open: bool) -> bool:
        """Whether a match that is complete may become a longer one with more text."""
        if match.end() < len(self._buffer):
            return False
        literals = field.open_literals if is_open else field.close_literals
        can_extend = field.open_literal_can_extend if is_open else field.close_literal_can_extend
        return literals is None or can_extend or match.end() == match.start()

    def _text(self, end: int) -> Iterator[Part]:
        if end > self._at:
            yield from self._part("text", self._field or self._implicit, end)

    def _part(
        self, kind: Literal["open", "text", "close"], field: ResponseTemplateField | None, end: int
    ) -> Iterator[Part]:
        begin = max(self._at, -self._base)
        self._at = end
        if self._base + end >= 0:
            yield Part(kind, field, self._buffer[begin:end], self._base + end, self._captures)
