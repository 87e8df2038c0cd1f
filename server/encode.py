"""From events to the bytes OpenAI's clients read: chunks of a stream, or one whole answer. Pure.

What is the same in all chunks of a stream is encoded once; a chunk costs the encoding of its piece.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, Protocol

import msgspec

from ..adapters.events import (
    CompletedChoice,
    Completion,
    Event,
    Finish,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"

_NO_PROBABILITY = -9999.0
"""What OpenAI says of a token that could not have been chosen."""

_json = msgspec.json.Encoder().encode


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """What is the same in every piece of one answer; `choices` is how many there will be.

    `usage` says how often a stream tells what it took. `service_tier` is echoed to those who ask for one.
    `old_functions`: the request used OpenAI's older functions, so calls are answered in that form.
    """

    id: str
    created: int
    model: str
    fingerprint: str
    choices: int = 1
    usage: Literal["never", "last", "always"] = "never"
    service_tier: str | None = None
    old_functions: bool = False

    def fields(self, kind: str) -> dict[str, Any]:
        """The fields an answer begins with; `kind` is OpenAI's name for this sort of object."""
        fields = {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }
        return fields if self.service_tier is None else fields | {"service_tier": self.service_tier}


class Encoder(Protocol):
    """Makes an answer's bytes of its events, in pieces (`opening`, then `chunk` for every event) or as a `whole`."""

    def opening(self) -> bytes: ...
    def chunk(self, event: Event) -> bytes: ...
    def whole(self, completion: Completion) -> bytes: ...


def error_chunk(envelope: dict[str, Any]) -> bytes:
    """An error that comes up after the answer has begun."""
    return b"data: %b\n\n" % _json(envelope)


class _Chunks:
    """The frame of a stream's chunks. Usage before the end is what can be seen here: a token a piece, and no prompt."""

    def __init__(self, frame: Frame, kind: str) -> None:
        self._frame = frame
        self._head = b'data: %b,"choices":[' % _json(frame.fields(kind))[:-1]
        self._tail = b"]}\n\n" if frame.usage == "never" else b'],"usage":null}\n\n'
        self._so_far = 0

    def choice(
        self, index: int, body: bytes, logprobs: bytes = b"null", finish: bytes = b"null", tokens: int = 1
    ) -> bytes:
        """A chunk with a piece of one choice; `body` is its delta or text as a JSON member."""
        self._so_far += tokens
        tail = self._tail if self._frame.usage != "always" else self._usage(Usage(0, self._so_far))
        return b'%b{"index":%d,%b,"logprobs":%b,"finish_reason":%b}%b' % (
            self._head,
            index,
            body,
            logprobs,
            finish,
            tail,
        )

    def usage(self, usage: Usage) -> bytes:
        """The last chunk, for those who asked for it."""
        return b"" if self._frame.usage == "never" else self._head + self._usage(usage)

    @staticmethod
    def _usage(usage: Usage) -> bytes:
        return b'],"usage":%b}\n\n' % _json(_usage(usage))


class ChatEncoder:
    """Chat completions."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._chunks = _Chunks(frame, "chat.completion.chunk")

    def opening(self) -> bytes:
        """The role of every choice, in order: clients fail on a choice whose predecessors they have not seen."""
        role = b'"delta":{"role":"assistant","content":""}'
        return b"".join(self._chunks.choice(index, role, tokens=0) for index in range(self._frame.choices))

    def chunk(self, event: Event) -> bytes:
        match event:
            case TextDelta(logprobs=None):
                return self._chunks.choice(event.choice, b'"delta":{"content":%b}' % _json(event.text))
            case TextDelta():
                delta = b'"delta":{"content":%b}' % _json(event.text)
            case ReasoningDelta():
                text = _json(event.text)
                # Half of the clients read the one name, half the other.
                delta = b'"delta":{"reasoning_content":%b,"reasoning":%b}' % (text, text)
            case ToolCallDelta():
                delta = b'"delta":%b' % _json(_call_delta(event, self._frame.old_functions))
            case Finish():
                return self._chunks.choice(
                    event.choice, b'"delta":{}', finish=_json(self._reason(event.reason)), tokens=0
                )
            case Usage():
                return self._chunks.usage(event)
            case _:
                return b""
        logprobs = b"null" if event.logprobs is None else _json(_chat_logprobs(event.logprobs))
        return self._chunks.choice(event.choice, delta, logprobs)

    def whole(self, completion: Completion) -> bytes:
        return _json(
            {
                **self._frame.fields("chat.completion"),
                "choices": [self._choice(index, choice) for index, choice in enumerate(completion.choices)],
                "usage": _usage(completion.usage),
            }
        )

    def _choice(self, index: int, choice: CompletedChoice) -> dict[str, Any]:
        return {
            "index": index,
            "message": _message(choice, self._frame.old_functions),
            "logprobs": None if choice.logprobs is None else _chat_logprobs(choice.logprobs),
            "finish_reason": self._reason(choice.finish_reason),
        }

    def _reason(self, reason: str | None) -> str | None:
        return "function_call" if reason == "tool_calls" and self._frame.old_functions else reason


class TextEncoder:
    """Text completions. Their chunks have the shape of the whole answer; reasoning and calls have no place in it."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._chunks = _Chunks(frame, "text_completion")
        self._offsets = [0] * frame.choices

    def opening(self) -> bytes:
        return b""

    def chunk(self, event: Event) -> bytes:
        match event:
            case TextDelta():
                logprobs = b"null" if event.logprobs is None else _json(self._logprobs(event.choice, event.logprobs))
                return self._chunks.choice(event.choice, b'"text":%b' % _json(event.text), logprobs)
            case Finish():
                return self._chunks.choice(event.choice, b'"text":""', finish=_json(event.reason), tokens=0)
            case Usage():
                return self._chunks.usage(event)
            case _:
                return b""

    def whole(self, completion: Completion) -> bytes:
        return _json(
            {
                **self._frame.fields("text_completion"),
                "choices": [
                    {
                        "text": choice.text,
                        "index": index,
                        "logprobs": None if choice.logprobs is None else self._logprobs(index, choice.logprobs),
                        "finish_reason": choice.finish_reason,
                    }
                    for index, choice in enumerate(completion.choices)
                ],
                "usage": _usage(completion.usage),
            }
        )

    def _logprobs(self, choice: int, tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
        """OpenAI's older form: lists of equal length; offsets count characters from the start of the returned text."""
        offsets = []
        for token in tokens:
            offsets.append(self._offsets[choice])
            self._offsets[choice] += _characters(token.raw)
        return {
            "tokens": [token.token for token in tokens],
            "token_logprobs": [_finite(token.logprob) for token in tokens],
            "top_logprobs": [_by_text(token) for token in tokens],
            "text_offset": offsets,
        }


def _message(choice: CompletedChoice, old_functions: bool) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": choice.text if choice.text or not choice.tool_calls else None,
        "refusal": None,
    }
    if choice.reasoning:
        message |= {"reasoning_content": choice.reasoning, "reasoning": choice.reasoning}
    calls = [{"name": call.name, "arguments": call.arguments} for call in choice.tool_calls]
    if calls and old_functions:
        message["function_call"] = calls[0]
    elif calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": function}
            for call, function in zip(choice.tool_calls, calls, strict=True)
        ]
    return message


def _call_delta(event: ToolCallDelta, old_functions: bool) -> dict[str, Any]:
    """A piece of a call; what is only in its first piece must not be repeated, because clients append it."""
    function = {"name": event.name, "arguments": event.arguments} if event.name else {"arguments": event.arguments}
    if old_functions:
        return {"function_call": function}
    first = {"id": event.id, "type": "function"} if event.name else {}
    return {"tool_calls": [{"index": event.index, **first, "function": function}]}


def _chat_logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    return {
        "content": [
            {
                **_token(token.token, token.logprob, token.raw),
                "top_logprobs": [_token(top.token, top.logprob, top.raw) for top in token.top],
            }
            for token in tokens
        ],
        "refusal": None,
    }


def _token(text: str, logprob: float | None, raw: bytes) -> dict[str, Any]:
    return {"token": text, "logprob": _finite(logprob), "bytes": list(raw)}


def _by_text(token: TokenLogprob) -> dict[str, float | None] | None:
    """The likeliest tokens and the chosen one; of several with the same text the likeliest stands."""
    if token.logprob is None:
        return None
    by_text: dict[str, float | None] = {}
    for text, logprob in _pairs(token):
        by_text.setdefault(text, _finite(logprob))
    return by_text


def _pairs(token: TokenLogprob) -> Iterable[tuple[str, float | None]]:
    yield from ((top.token, top.logprob) for top in token.top)
    yield token.token, token.logprob


def _finite(logprob: float | None) -> float | None:
    return None if logprob is None else max(logprob, _NO_PROBABILITY)


def _characters(raw: bytes) -> int:
    """How many characters begin in these bytes of UTF-8."""
    return sum(byte & 0xC0 != 0x80 for byte in raw)


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }
