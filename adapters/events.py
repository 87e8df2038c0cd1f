"""What a model answers with: a stream of events, and the fold that makes a whole answer of it.

A stream is: at most one `Accepted`, then deltas, then one `Finish` for every choice, then exactly one `Usage`.

    Accepted        nothing can refuse the request any more; the answer will come
    TextDelta       a piece of the answer's text
    ReasoningDelta  a piece of the model's thinking, apart from its answer
    ToolCallDelta   a piece of a call the model wants made; the first piece of a call has its id and name
    Finish          one choice is complete, and why
    Usage           what it took; the last event

A *choice* is one of the alternative answers to a request (`n`, or several prompts), counted from 0 in the order
OpenAI gives them: prompt by prompt, then answer by answer. Events are immutable and travel between processes as they
are (msgspec encodes them with their class name as tag).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Literal

import msgspec

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


class TopLogprob(msgspec.Struct, frozen=True):
    """A token the model might have chosen; `logprob` is a natural logarithm, `raw` may be half a character."""

    token: str
    logprob: float
    raw: bytes


class TokenLogprob(msgspec.Struct, frozen=True):
    """The token at one place and the likeliest in its stead; `logprob` is None for the first token of a prompt."""

    token: str
    logprob: float | None
    raw: bytes
    top: tuple[TopLogprob, ...] = ()


class Accepted(msgspec.Struct, frozen=True, tag=True):
    """The request is valid and has its place; what goes wrong from here on goes wrong in mid-stream."""


class TextDelta(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """A piece of the answer; `logprobs` are those of its tokens, if the request asked for them."""

    text: str
    choice: int = 0
    logprobs: tuple[TokenLogprob, ...] | None = None


class ReasoningDelta(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """A piece of the model's thinking."""

    text: str
    choice: int = 0
    logprobs: tuple[TokenLogprob, ...] | None = None


class ToolCallDelta(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """A piece of call number `index`; `id` and `name` come with the first piece, `arguments` add up to JSON."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""
    choice: int = 0
    logprobs: tuple[TokenLogprob, ...] | None = None


class Finish(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """A choice is complete."""

    reason: FinishReason
    choice: int = 0


class Usage(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """Counts of tokens; `cached` are those prompt tokens that cost nothing because their KV cache was still there."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )


Event = Accepted | TextDelta | ReasoningDelta | ToolCallDelta | Finish | Usage


class ToolCall(msgspec.Struct, frozen=True):
    """A whole call; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str


class CompletedChoice(msgspec.Struct, frozen=True):
    """One whole answer; `finish_reason` is None if the stream ended without saying why."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[TokenLogprob, ...] | None = None
    finish_reason: FinishReason | None = None


class Completion(msgspec.Struct, frozen=True):
    """All choices of a request, in order, and what they took."""

    choices: tuple[CompletedChoice, ...]
    usage: Usage


class _Choice:
    """The pieces of one choice, while they come in."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.calls: dict[int, list[ToolCallDelta]] = {}
        self.logprobs: list[TokenLogprob] | None = None
        self.finish_reason: FinishReason | None = None

    def add(self, event: TextDelta | ReasoningDelta | ToolCallDelta | Finish) -> None:
        match event:
            case TextDelta():
                self.text.append(event.text)
            case ReasoningDelta():
                self.reasoning.append(event.text)
            case ToolCallDelta():
                self.calls.setdefault(event.index, []).append(event)
            case Finish():
                self.finish_reason = event.reason
                return
        if event.logprobs is not None:
            self.logprobs = self.logprobs if self.logprobs is not None else []
            self.logprobs.extend(event.logprobs)

    def whole(self) -> CompletedChoice:
        return CompletedChoice(
            text="".join(self.text),
            reasoning="".join(self.reasoning),
            tool_calls=tuple(
                ToolCall(pieces[0].id, pieces[0].name, "".join(piece.arguments for piece in pieces))
                for _, pieces in sorted(self.calls.items())
            ),
            logprobs=None if self.logprobs is None else tuple(self.logprobs),
            finish_reason=self.finish_reason,
        )


async def collect(events: AsyncIterator[Event]) -> Completion:
    """The whole answer that a stream of events adds up to."""
    choices: dict[int, _Choice] = {}
    usage = Usage(0, 0)
    async for event in events:
        match event:
            case Accepted():
                pass
            case Usage():
                usage = event
            case _:
                choices.setdefault(event.choice, _Choice()).add(event)
    return Completion(tuple(choices[index].whole() for index in sorted(choices)), usage)
