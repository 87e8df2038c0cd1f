"""Tokens -> text, stops, reasoning, tool calls -> events, for one choice."""

from __future__ import annotations

from typing import NamedTuple

from ..base import GenerationRequest
from ..events import Event, Finish, FinishReason, TextDelta, TokenLogprob, TopLogprob
from ..text import StopStrings
from .load import LoadedModel
from .prompt import EncodedPrompt


class Logprob(NamedTuple):
    """A sampled token's natural-log probability (None: a prompt's first token), and the likeliest (token id, logprob)."""

    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()


class ChoiceOutput:
    """What one choice has said so far, token by token."""

    def __init__(self, loaded: LoadedModel, request: GenerationRequest, prompt: EncodedPrompt, choice: int = 0) -> None:
        self._tokenizer = loaded.tokenizer
        self._choice = choice
        self._stops = StopStrings((*request.sampling.stop, *prompt.stops))
        self._ids: list[int] = []
        self._shown = ""
        self._pending: list[TokenLogprob] = []
        self._with_logprobs = request.logprobs is not None
        self.reasoning_tokens = 0

    @property
    def stopped(self) -> bool:
        """Whether a stop string was met; the choice then wants no more tokens."""
        return self._stops.stopped

    def feed(self, token_id: int, logprob: Logprob | None = None) -> list[Event]:
        """The events of one more token (no end-of-sequence token: that only ends the choice)."""
        self._ids.append(token_id)
        if logprob is not None:
            self._pending.append(self._token_logprob(token_id, logprob))
        text = self._tokenizer.decode(self._ids, skip_special_tokens=True)
        if text.endswith("�"):
            return []
        piece, self._shown = text[len(self._shown) :], text
        return self._emit(self._stops.feed(piece))

    def finish(self, reason: FinishReason) -> list[Event]:
        """The rest, and Finish; `reason` may become `tool_calls`."""
        return [*self._emit(self._stops.finish()), Finish(reason, self._choice)]

    def _emit(self, text: str) -> list[Event]:
        if not text:
            return []
        logprobs, self._pending = tuple(self._pending), []
        return [TextDelta(text, self._choice, logprobs if self._with_logprobs else None)]

    def _token_logprob(self, token_id: int, logprob: Logprob) -> TokenLogprob:
        text = self._tokenizer.decode([token_id])
        top = tuple(
            TopLogprob(self._tokenizer.decode([other]), value, self._tokenizer.decode([other]).encode())
            for other, value in logprob.top
        )
        return TokenLogprob(text, logprob.logprob, text.encode(), top)
