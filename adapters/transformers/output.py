"""Tokens -> events, for one choice."""

from __future__ import annotations

from collections.abc import Sequence

from ..base import GenerationRequest
from ..events import Event, Finish, FinishReason, TextDelta
from .answer import Answer
from .load import LoadedModel
from .logprobs import Logprob, WaitingLogprobs, token_logprob
from .prompt import EncodedPrompt

__all__ = ["ChoiceOutput", "Logprob"]


class ChoiceOutput:
    """What one choice has said so far. `reasoning_tokens` counts the tokens of its thinking, the marks included."""

    def __init__(self, loaded: LoadedModel, request: GenerationRequest, prompt: EncodedPrompt, choice: int = 0) -> None:
        form = loaded.response_format if request.is_chat else None
        self._vocabulary = loaded.vocabulary
        self._hidden = self._vocabulary.special_ids if form is None else form.hidden_ids
        self._stop_tokens = self._vocabulary.special_ids_of(request.sampling.stop)
        self._detokenizer = self._vocabulary.detokenizer(prompt.token_ids if prompt.continues else ())
        self._prompt = prompt
        self._choice = choice
        self._logprobs = WaitingLogprobs() if request.logprobs is not None else None
        self._answer = Answer(request, prompt, form, self._logprobs, choice)
        self._written = 0  # characters of raw text so far
        self._has_stopped = False
        self.reasoning_tokens = 0

    @property
    def stopped(self) -> bool:
        """Whether the choice wants no more tokens: a stop string was met, or the only tool call allowed is made."""
        return self._has_stopped or self._answer.is_over

    def echo(self, logprobs: Sequence[Logprob] = ()) -> list[Event]:
        """The prompt as the beginning of the answer, with its tokens' logprobs if those were asked for."""
        tokens = zip(self._prompt.token_ids, logprobs, strict=False)
        shown = tuple(token_logprob(self._vocabulary, *token) for token in tokens)
        return [TextDelta(self._prompt.text, self._choice, None if self._logprobs is None else shown)]

    def feed(self, token_id: int, logprob: Logprob | None = None) -> list[Event]:
        """The events of one more token; the end-of-sequence token that ends the choice is not to be fed."""
        if token_id in self._stop_tokens:
            self._has_stopped = True
            return []
        was_thinking = self._answer.is_thinking
        is_hidden = token_id in self._hidden
        text = "" if is_hidden else self._detokenizer.feed(token_id)
        start, self._written = self._written, self._written + len(text)
        if self._logprobs is not None and logprob is not None:
            # A token that shows nothing yet holds the first bytes of the character to come.
            end = self._written if text or is_hidden else start + 1
            self._logprobs.add(start, end, token_logprob(self._vocabulary, token_id, logprob))
        events = self._answer.feed(text, self._written)
        self.reasoning_tokens += was_thinking or self._answer.is_thinking
        return events

    def finish(self, reason: FinishReason) -> list[Event]:
        """What was held back, then Finish; its reason is `tool_calls` where the choice ended by itself after some."""
        text = self._detokenizer.finish()
        self._written += len(text)
        events = self._answer.feed(text, self._written) + self._answer.finish(self._written)
        if self._answer.calls and reason == "stop":
            reason = "tool_calls"
        return [*events, Finish(reason, self._choice)]
