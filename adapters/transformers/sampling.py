"""From logits to tokens: how each sequence's are chosen, and the choice for all of a step's."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TypeVar

import msgspec
import torch
from torch import Tensor

from ..base import Sampling
from ..errors import ComposeError
from .adjusting import LogitsProcessor, Seen, adjust
from .ahead import MaskAhead
from .drawing import Draw, drawn_tokens
from .kernels import Kernels
from .tensors import on_device, rows_at

T = TypeVar("T")
NO_PROBABILITIES = ComposeError(
    "the next token has no probabilities: the model's numbers overflow, in its precision or by the request's "
    "repetition_penalty"
)


class Sampler:
    """How the tokens of one sequence are chosen; `choose` does it, for several at a time.

    After what `adjusting.py` does come temperature, then top_k, top_p, min_p, as in vLLM. The draw inverts the
    cumulative distribution with one number of the sequence's own random numbers, so a seed gives the same text whatever
    else runs; choice `k` of a seeded request has its own numbers. `tokens` are the sequence's own, which grow outside
    of here: those it starts with are the prompt's.
    """

    def __init__(
        self,
        sampling: Sampling,
        tokens: Sequence[int],
        *,
        eos_token_ids: frozenset[int] = frozenset(),
        choice: int = 0,
        matcher: MaskAhead | None = None,
        processors: Sequence[LogitsProcessor] = (),
    ) -> None:
        self._sampling = sampling
        self._temperature = _given(sampling.temperature, 1.0)
        self._filters = _given(sampling.top_k, 0), _given(sampling.top_p, 1.0), _given(sampling.min_p, 0.0)
        self._is_greedy = self._temperature < 1e-5  # dividing by less overflows float32
        self._random = Random() if sampling.seed is None else Random(f"{sampling.seed}/{choice}")
        self.ends = sorted(eos_token_ids.union(sampling.stop_token_ids))
        self._matcher = matcher
        self._processors = tuple(processors)
        self._tokens = tokens
        self._prompt_length = len(tokens)
        self._seen: Seen | None = None
        self._bias: tuple[Tensor, Tensor] | None = None
        repetition = _given(sampling.repetition_penalty, 1.0)
        self.penalties = repetition, sampling.frequency_penalty, sampling.presence_penalty
        self._is_plain = not (
            self.has_penalties or sampling.logit_bias or sampling.min_tokens or self._processors or matcher is not None
        )

    @property
    def is_plain(self) -> bool:
        """Whether the token is chosen from the logits as they are."""
        return self._is_plain

    def wait(self, seconds: float) -> bool:
        """Whether what the choice goes by is there, at once or within so many seconds."""
        return self._matcher is None or self._matcher.wait(seconds)

    def drop(self) -> None:
        """There will be no further token."""
        if self._matcher is not None:
            self._matcher.drop()

    @property
    def is_greedy(self) -> bool:
        return self._is_greedy

    @property
    def draw(self) -> Draw:
        """What the next draw goes by."""
        return Draw(self._temperature, *self._filters, self._random.random())

    def process(self, scores: Tensor) -> None:
        """Change one row of scores, `[vocabulary]`, by the model's own processors and the grammar."""
        if self._processors:
            ids = torch.tensor([list(self._tokens)], device=scores.device)
            processed = scores[None]
            for processor in self._processors:
                processed = processor(ids, processed)
            scores.copy_(processed[0])
        if self._matcher is not None:
            self._matcher.mask(scores)

    @property
    def withholds_ends(self) -> bool:
        return bool(self.ends) and len(self._tokens) - self._prompt_length < self._sampling.min_tokens

    @property
    def has_bias(self) -> bool:
        return bool(self._sampling.logit_bias)

    def bias(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Token ids, and what is added to their scores."""
        if self._bias is None:
            given = self._sampling.logit_bias
            self._bias = on_device([*given], device), on_device([*given.values()], device, torch.float32)
        return self._bias

    @property
    def has_penalties(self) -> bool:
        return self.penalties != (1, 0, 0)

    def seen(self, device: torch.device) -> Seen:
        """The tokens that penalties are for: those of the answer, and for a repetition penalty those of the prompt."""
        if self._seen is None:
            prompt, generated = self._tokens[: self._prompt_length], self._tokens[self._prompt_length :]
            self._seen = Seen(prompt if self.penalties[0] != 1 else (), generated, device)
        return self._seen

    def note(self, token: int) -> None:
        """Take note of the token that was chosen."""
        if self._matcher is not None:
            self._matcher.accept(token)
        if self._seen is not None:
            self._seen.note(token)


def choose(logits: Tensor, samplers: Sequence[Sampler], kernels: Kernels | None = None) -> list[int | Exception]:
    """The next token of each sequence, from its row of the model's `logits` `[sequences, vocabulary]`; or its error.

    The logits stay as they are. What a row asks for is computed for the rows that ask, and drawn by `kernels`.
    """
    chosen: list[int | Exception] = [0] * len(samplers)
    plain = [row for row, sampler in enumerate(samplers) if sampler.is_plain]
    others = [row for row, sampler in enumerate(samplers) if not sampler.is_plain]
    if plain:
        picked = _picked(rows_at(logits, plain), [samplers[row] for row in plain], kernels)
        for row, token in zip(plain, picked, strict=True):
            chosen[row] = token
    if others:
        own = [samplers[row] for row in others]
        scores = rows_at(logits, others).to(torch.float32, copy=True)
        errors = adjust(scores, own)
        for place, (row, token) in enumerate(zip(others, _picked(scores, own, kernels), strict=True)):
            chosen[row] = errors.get(place, token)
    return chosen


def _picked(scores: Tensor, samplers: Sequence[Sampler], kernels: Kernels | None) -> list[int | Exception]:
    """The likeliest token, or one that is drawn, for each row of scores `[rows, vocabulary]`."""
    picked: list[int | Exception] = [0] * len(samplers)
    greedy = [row for row, sampler in enumerate(samplers) if sampler.is_greedy]
    drawn = [row for row, sampler in enumerate(samplers) if not sampler.is_greedy]
    if greedy:
        for row, token in zip(greedy, _likeliest(rows_at(scores, greedy)).tolist(), strict=True):
            picked[row] = token
    if drawn:
        draws, own = [samplers[row].draw for row in drawn], rows_at(scores, drawn)
        if kernels is not None:
            tokens = kernels.drawn(own.to(torch.float32, copy=True), draws)
        else:
            tokens = drawn_tokens(own.float(), draws)
        for row, token in zip(drawn, tokens, strict=True):
            picked[row] = NO_PROBABILITIES if token is None else token
    return picked


def _likeliest(scores: Tensor) -> Tensor:
    """The first of the likeliest tokens of each row; `argmax` does the same in five times the time on a CPU."""
    return scores.max(-1).indices


def _given(value: T | None, default: T) -> T:
    return default if value is None else value


def with_defaults(sampling: Sampling, defaults: Sampling) -> Sampling:
    """`sampling` with what it leaves open filled in from the model's own `defaults`.

    A request that filters (top_p, top_k, min_p) asks for a draw, so a model that is greedy by default draws then.
    """
    filters = (sampling.top_p or 1) < 1 or (sampling.top_k or 0) > 0 or (sampling.min_p or 0) > 0
    temperature = 1.0 if filters and not defaults.temperature else defaults.temperature
    if sampling.temperature is None:
        sampling = msgspec.structs.replace(sampling, temperature=temperature)
    open_fields = {
        name: getattr(defaults, name)
        for name in ("top_p", "top_k", "min_p", "repetition_penalty")
        if getattr(sampling, name) is None
    }
    return msgspec.structs.replace(sampling, **open_fields)
