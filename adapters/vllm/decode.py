"""From a server's stream of chunks to events. Pure: `feed` takes bytes, cut anywhere.

What servers do differently from OpenAI is put right here, so that nobody behind has to know of it: thinking under
either name, reasons to end that OpenAI has not, ends without a reason, usage in any chunk, errors in any spelling.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from ..errors import UpstreamError
from ..events import Event, Finish, FinishReason, ReasoningDelta, TextDelta, ToolCallDelta, Usage
from ..sse import EventDecoder, ServerEvent
from ..upstream import DONE, usage_of
from . import logprobs
from .failures import broken, error_in_stream
from .tool_calls import CallPieces

_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "function_call": "tool_calls",
    "max_tokens": "length",
    "tool_use": "tool_calls",
}
"""All others, such as `eos` and `stop_sequence`, are ways to stop."""

_NOT_REASONS = frozenset({"abort", "error"})
"""With these vLLM ends an answer that it has not finished."""


class StreamDecoder:
    """The chunks of one answer of so many choices; after the `Usage` nothing follows, and `is_done` is true."""

    def __init__(self, choices: int, *, is_chat: bool) -> None:
        self._sse = EventDecoder()
        self._is_chat = is_chat
        self._unfinished = dict.fromkeys(range(choices))
        self._seen: set[int] = set()
        self._calls = {choice: CallPieces(choice) for choice in range(choices)}
        self._usage: Usage | None = None
        self.is_done = False

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events that are complete now; raises UpstreamError."""
        for event in self._sse.feed(data):
            yield from self._event(event)

    def finish(self) -> Iterator[Event]:
        """What is left when no more bytes come; raises UpstreamError if that is too early."""
        for event in self._sse.finish():
            yield from self._event(event)
        if not self.is_done:
            if self._unfinished:
                raise broken("ended its answer too early")
            yield from self._end()

    def _event(self, event: ServerEvent) -> Iterator[Event]:
        if self.is_done or not event.data.strip():
            return
        if event.data.strip() == DONE:
            yield from self._end()
            return
        try:
            chunk = msgspec.json.decode(event.data)
        except (msgspec.DecodeError, RecursionError) as error:
            raise broken(f"sent what is no JSON: {event.data[:100]!r}") from error
        if (failure := error_in_stream(chunk)) is not None:
            raise failure
        self._usage = usage_of(chunk) or self._usage
        choices = chunk.get("choices") if isinstance(chunk, dict) else None
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                yield from self._choice(choice)

    def _choice(self, choice: dict[str, Any]) -> Iterator[Event]:
        index = choice.get("index")
        index = index if isinstance(index, int) else 0
        if index not in self._unfinished:
            return
        self._seen.add(index)
        if self._is_chat:
            delta = choice.get("delta") or choice.get("message")
            yield from self._delta(index, delta if isinstance(delta, dict) else {}, choice.get("logprobs"))
        else:
            text, told = choice.get("text"), logprobs.of_text(choice.get("logprobs"))
            if text or told:
                yield TextDelta(text if isinstance(text, str) else "", index, told)
        if reason := choice.get("finish_reason"):
            yield from self._finished(index, str(reason))

    def _delta(self, index: int, delta: dict[str, Any], told: Any) -> Iterator[Event]:
        tokens = logprobs.of_chat(told)
        pieces = [*_texts(index, delta), *self._calls[index].feed(_calls(delta))]
        if not pieces and tokens:
            pieces = [TextDelta("", index)]
        for piece in pieces:
            # One list for the whole chunk: whichever piece carries it, collected they add up to the same.
            yield msgspec.structs.replace(piece, logprobs=tokens) if piece is pieces[-1] and tokens else piece

    def _finished(self, index: int, reason: str) -> Iterator[Event]:
        if reason in _NOT_REASONS:
            raise UpstreamError(f"the model's server gave up on the answer ({reason})", status=502, retry_after=1)
        yield from self._calls[index].finish()
        del self._unfinished[index]
        yield Finish(_REASONS.get(reason, "stop"), index)

    def _end(self) -> Iterator[Event]:
        """The server says that this is all, also if it did not say why."""
        self.is_done = True
        for index in list(self._unfinished):
            if index not in self._seen:
                raise broken("ended without every answer it was asked for")
            yield from self._finished(index, "stop")
        yield self._usage or Usage(0, 0)


def _texts(index: int, delta: dict[str, Any]) -> Iterator[TextDelta | ReasoningDelta | ToolCallDelta]:
    reasoning = delta.get("reasoning_content") or delta.get("reasoning")
    if isinstance(reasoning, str) and reasoning:
        yield ReasoningDelta(reasoning, index)
    text = delta.get("content") or delta.get("refusal")
    if isinstance(text, list):
        text = "".join(str(part.get("text", "")) for part in text if isinstance(part, dict))
    if isinstance(text, str) and text:
        yield TextDelta(text, index)


def _calls(delta: dict[str, Any]) -> Any:
    """The pieces of calls; OpenAI's older form has one call only."""
    older = delta.get("function_call")
    return [{"index": 0, "function": older}] if isinstance(older, dict) else delta.get("tool_calls")
