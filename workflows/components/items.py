"""What the body of an HTTP answer says: the items of a stream, and errors. Pure."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import Any

from ...adapters.sse import EventDecoder, Lines, ServerEvent
from ...adapters.upstream import DONE, said
from .streams import Form


class BrokenStream(ValueError):
    """An item that is none, or an error in an item's place."""


class ItemDecoder:
    """The items in a body of some content type: events' data, lines, or for plain text the text as it comes.

    JSON that is no stream is one item. After OpenAI's end mark nothing more is given out, and `is_done` is true.
    """

    def __init__(self, form: Form, kind: str) -> None:
        self._form = form
        self._is_whole = is_json(kind)
        self._is_plain = form == "text" and kind != "text/event-stream"
        self._events: EventDecoder | Lines = EventDecoder() if kind == "text/event-stream" else Lines()
        self._text = codecs.getincrementaldecoder("utf-8")("replace")
        self._body: list[str] = []
        self.is_done = False

    def feed(self, data: bytes) -> Iterator[Any]:
        """The items that are complete now; raises BrokenStream."""
        if self._is_plain or self._is_whole:
            yield from self._pass_on(self._text.decode(data))
            return
        for found in self._events.feed(data):
            yield from self._item(found)

    def finish(self) -> Iterator[Any]:
        """What is left at the end of the body."""
        if self._is_plain or self._is_whole:
            yield from self._pass_on(self._text.decode(b"", True))
            if self._body:
                yield self._json("".join(self._body))
            return
        for found in self._events.finish():
            yield from self._item(found)

    def _pass_on(self, text: str) -> Iterator[str]:
        if self._is_plain and text:
            yield text
        elif text:
            self._body.append(text)

    def _item(self, found: ServerEvent | str) -> Iterator[Any]:
        is_line = isinstance(found, str)
        text = found if isinstance(found, str) else found.data
        self.is_done = self.is_done or text.strip() == DONE
        if self.is_done or (is_line and not text.strip()):
            return
        if isinstance(found, ServerEvent) and found.name == "error":
            raise BrokenStream(said(text))
        yield text if self._form == "text" else self._json(text)

    def _json(self, text: str) -> Any:
        item = parsed(text)
        if isinstance(item, dict) and item.get("error") and "choices" not in item:
            raise BrokenStream(said(text))
        return item


def parsed(text: str) -> Any:
    """JSON text's value; raises BrokenStream."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BrokenStream(f"this is not JSON: {text[:200]!r}") from error


def is_json(kind: str) -> bool:
    """Whether this content type is that of one JSON value."""
    return kind.endswith(("/json", "+json"))
