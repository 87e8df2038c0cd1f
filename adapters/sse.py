"""Reading streams as they come: server-sent events, and lines. Pure: `feed` takes bytes, cut anywhere.

The format of server-sent events is that of the HTML standard, section 9.2.6.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator

import msgspec


class ServerEvent(msgspec.Struct, frozen=True):
    """One event: its name (empty if it has none) and its data."""

    data: str
    name: str = ""


class Lines:
    """UTF-8 text as lines that end in LF, CR or CRLF; a byte order mark at the start is left out."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._pieces: list[str] = []
        self._ended_in_cr = False

    def feed(self, data: bytes) -> Iterator[str]:
        """The lines that are complete now, without their ends."""
        yield from self._split(self._decoder.decode(data))

    def finish(self) -> Iterator[str]:
        """The last line, if it has no end."""
        yield from self._split(self._decoder.decode(b"", True))
        if rest := "".join(self._pieces):
            self._pieces.clear()
            yield rest

    def _split(self, text: str) -> Iterator[str]:
        if self._ended_in_cr and text:
            text = text.removeprefix("\n")
            self._ended_in_cr = False
        self._ended_in_cr = self._ended_in_cr or text.endswith("\r")
        *whole, rest = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        for line in whole:
            yield "".join((*self._pieces, line))
            self._pieces.clear()
        if rest:
            self._pieces.append(rest)


class EventDecoder:
    """Server-sent events; an event that the end of the stream cuts off is given out too, as it is all there will be."""

    def __init__(self) -> None:
        self._lines = Lines()
        self._data: list[str] = []
        self._name = ""

    def feed(self, data: bytes) -> Iterator[ServerEvent]:
        """The events that are complete now."""
        for line in self._lines.feed(data):
            yield from self._line(line)

    def finish(self) -> Iterator[ServerEvent]:
        """What is left at the end of the stream."""
        for line in self._lines.finish():
            yield from self._line(line)
        yield from self._line("")

    def _line(self, line: str) -> Iterator[ServerEvent]:
        if not line:
            if self._data:
                yield ServerEvent("\n".join(self._data), self._name)
            self._data, self._name = [], ""
            return
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._name = value
