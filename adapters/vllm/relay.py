"""Handing on a server's answer with as little as possible done to it. Pure.

A stream is handed on in whole events, so that an error can follow any of them. Where no model has another name here,
a look for a few words in the bytes is all that is done: vLLM calls a model's thinking `reasoning`, half of the clients
know it as `reasoning_content`, so it is given under both names; and servers spell errors in several ways.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

from ..errors import UpstreamError
from ..events import Usage
from ..upstream import usage_of
from .failures import broken, error_in_stream

DONE = b"data: [DONE]\n\n"
LARGEST_EVENT = 256 << 20
LARGEST_LAST_EVENTS = 16 << 10
"""Bytes at the end of a stream where it may say what it took."""

_BETWEEN_EVENTS = re.compile(rb"(?>\r\n|\n|\r){2,}")
_LINE_END = re.compile(rb"\r\n|\n|\r")
_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
# In JSON a quote within a text has a backslash before it, so that these are found where they are keys only.
_REASONING = re.compile(rb'"reasoning"\s*:\s*("(?:[^"\\]|\\.)*+")')
_FINISH = re.compile(rb'"finish_reason"\s*:\s*"')


class StreamRelay:
    """Server-sent events on their way; `model` is the name to put in for the server's own, None if it is the same.

    After `is_done` nothing follows. `failure` is an error that the server told of in the stream.
    """

    def __init__(self, model: str | None) -> None:
        self._model = None if model is None else msgspec.Raw(msgspec.json.encode(model))
        self._held: list[bytes] = []
        self._held_size = 0
        self._last = (b"", b"")
        self.is_done = False
        self.failure: UpstreamError | None = None

    def feed(self, data: bytes) -> bytes:
        """The events that are complete now."""
        if self._held or not data.endswith(b"\n\n"):
            data = self._cut(data)
            if not data:
                return b""
        if self._model is None and not self.is_done and _is_plain(data):
            self._last = (self._last[1], data)
            self.is_done = data.endswith(DONE)
            return data
        return self._examined(data)

    def finish(self) -> bytes:
        """What is to be added at the end of the answer; raises UpstreamError if it has ended too early."""
        if self.is_done:
            return b""
        rest = b"".join(self._held).strip()
        if _data_of(rest) != b"[DONE]" and (rest or not _FINISH.search(b"".join(self._last))):
            raise broken("ended its answer too early")
        return DONE

    @property
    def usage(self) -> Usage | None:
        """What the answer took, if its last events say so."""
        last = b"".join(self._last)[-LARGEST_LAST_EVENTS:]
        place = last.rfind(b'"usage"')
        if place < 0:
            return None
        event = last[max(0, last.rfind(b"\n\n", 0, place)) :].lstrip(b"\n")
        return _usage_in(_data_of(_BETWEEN_EVENTS.split(event, 1)[0]))

    def _cut(self, data: bytes) -> bytes:
        """What is complete of what was held back and `data`; the rest is held back."""
        self._held_size += len(data)
        if self._held_size > LARGEST_EVENT:
            raise broken(f"sent an event of more than {LARGEST_EVENT} bytes")
        # An end may lie across the border; the copying of a large event again and again is avoided.
        around = (self._held[-1][-3:] if self._held else b"") + data
        self._held.append(data)
        if not _last_end(around):
            return b""
        whole = b"".join(self._held)
        end = _last_end(whole)
        self._held = [whole[end:]] if end < len(whole) else []
        self._held_size = len(whole) - end
        return whole[:end]

    def _examined(self, block: bytes) -> bytes:
        """Every event of a block looked at for itself."""
        events: list[bytes] = []
        for event in _BETWEEN_EVENTS.split(block):
            if self.is_done:
                break
            try:
                events.append(self._event(event))
            except UpstreamError as error:
                # What came before it is handed on first.
                self.failure = error
                break
        checked = b"".join(events)
        self._last = (self._last[1], checked or self._last[0])
        return checked

    def _event(self, event: bytes) -> bytes:
        data = _data_of(event)
        if data is None:
            # OpenAI's clients fail on events without data; comments do no harm.
            return event + b"\n\n" if event.startswith(b":") else b""
        if data == b"[DONE]":
            self.is_done = True
            return DONE
        if (error := _error_in(data)) is not None:
            raise error
        return b"data: %b\n\n" % _respelled(data, self._model)


def whole_answer(body: bytes, model: str | None) -> tuple[bytes, Usage | None]:
    """A JSON answer on its way, and what it took; raises UpstreamError if it is none."""
    try:
        outline = _outline.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        answer = _decoded(body)
        if not isinstance(answer, dict):
            raise broken(f"sent what is no JSON object: {body[:100]!r}") from None
        if (error := error_in_stream(answer)) is not None:
            raise error from None
        usage = usage_of(answer)
    else:
        usage = None if outline.usage is None else outline.usage.counts()
    name = None if model is None else msgspec.Raw(msgspec.json.encode(model))
    return _respelled(body, name), usage


class _Details(msgspec.Struct):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


_NONE = _Details()


class _Tokens(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None

    def counts(self) -> Usage:
        prompt, completion = self.prompt_tokens_details or _NONE, self.completion_tokens_details or _NONE
        return Usage(
            self.prompt_tokens, self.completion_tokens or 0, prompt.cached_tokens or 0, completion.reasoning_tokens or 0
        )


class _Outline(msgspec.Struct):
    """What is looked at in a whole answer, in its usual form; everything else is skipped."""

    object: Literal["chat.completion", "text_completion"] | None = None
    usage: _Tokens | None = None
    error: None = None


_outline = msgspec.json.Decoder(_Outline)


def _last_end(data: bytes) -> int:
    """Where the last event that is complete ends; 0 if none is."""
    return max(at + len(end) if (at := data.rfind(end)) >= 0 else 0 for end in _ENDS)


def _is_plain(block: bytes) -> bool:
    """Whether every event of a block is one line of data with an object, of no special kind, as nearly all are; the end
    mark may be the last of them.
    """
    if block == DONE:
        return True
    # Every line end is one of two after an event; to count these pairs themselves takes three times as long.
    events = block.count(b"\n") // 2 - block.endswith(DONE)
    return (
        block.startswith(b"data: {")
        and block.endswith(b"\n\n")
        and block.count(b"\n\ndata: {") == events - 1
        and b'"reasoning"' not in block
        and b'"error"' not in block
    )


def _data_of(event: bytes) -> bytes | None:
    """The data of an event, None if it has none."""
    if event.startswith(b"data: ") and b"\n" not in event and b"\r" not in event:
        return event[6:]
    lines = [line.partition(b":") for line in _LINE_END.split(event)]
    data = [value.removeprefix(b" ") for field, _, value in lines if field == b"data"]
    # JSON may be cut over lines where a line end is as good as a space.
    return b" ".join(data) or None


def _error_in(data: bytes) -> UpstreamError | None:
    if not data.startswith(b"{"):
        raise broken(f"sent what is no JSON object: {data[:100]!r}")
    return error_in_stream(_decoded(data)) if b'"error"' in data else None


def _usage_in(data: bytes | None) -> Usage | None:
    try:
        return usage_of(msgspec.json.decode(data)) if data is not None and b'"usage"' in data else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _respelled(data: bytes, model: msgspec.Raw | None) -> bytes:
    """A JSON object with the model's name as it is here, and its thinking under both names."""
    if model is not None:
        fields = _fields(data)
        if "model" in fields:
            data = msgspec.json.encode(fields | {"model": model})
    if b'"reasoning"' in data and b'"reasoning_content"' not in data:
        data = _REASONING.sub(rb'"reasoning_content":\1,"reasoning":\1', data)
    return data


def _fields(data: bytes) -> dict[str, msgspec.Raw]:
    try:
        return msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise broken(f"sent what is no JSON object: {data[:100]!r}") from error


def _decoded(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise broken(f"sent what is no JSON: {data[:100]!r}") from error
