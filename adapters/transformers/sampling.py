"""From logits to a token: masks, bias, penalties, filters and the draw, for one sequence."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random
from typing import TypeVar

import msgspec
import torch
from torch import Tensor

from ..base import Sampling
from ..errors import ComposeError
from .grammar import Matcher

T = TypeVar("T")
LogitsProcessor = Callable[[Tensor, Tensor], Tensor]
"""transformers' form: token ids `[1, length]` and scores `[1, vocabulary]` -> scores."""


class Sampler:
    """Chooses the tokens of one sequence.

    The order is vLLM's: grammar, min_tokens, logit_bias, penalties, temperature, then top_k, top_p, min_p. Where only
    an end is possible, min_tokens gives way. The draw inverts the cumulative distribution with one number of the
    sequence's own random numbers, so a seed gives the same text whatever else runs; choice `k` of a seeded request has
    its own numbers. `tokens` are the sequence's own, which grow outside of here: those it starts with are the prompt's.
    """

    def __init__(
        self,
        sampling: Sampling,
        tokens: Sequence[int],
        *,
        eos_token_ids: frozenset[int] = frozenset(),
        choice: int = 0,
        matcher: Matcher | None = None,
        processors: Sequence[LogitsProcessor] = (),
    ) -> None:
        self._sampling = sampling
        self._temperature = _given(sampling.temperature, 1.0)
        self._filters = _given(sampling.top_k, 0), _given(sampling.top_p, 1.0), _given(sampling.min_p, 0.0)
        self._repetition_penalty = _given(sampling.repetition_penalty, 1.0)
        self._is_greedy = self._temperature < 1e-5  # dividing by less overflows float32
        self._random = Random() if sampling.seed is None else Random(f"{sampling.seed}/{choice}")
        self._ends = sorted(eos_token_ids.union(sampling.stop_token_ids))
        self._matcher = matcher
        self._processors = tuple(processors)
        self._tokens = tokens
        self._prompt_length = len(tokens)
        self._seen: Tensor | None = None
        self._counts: Tensor | None = None
        self._has_penalties = bool(sampling.presence_penalty or sampling.frequency_penalty)
        self._is_plain = not (
            self._has_penalties
            or self._repetition_penalty != 1
            or sampling.logit_bias
            or sampling.min_tokens
            or self._processors
            or matcher is not None
        )

    def choose(self, logits: Tensor) -> int:
        """The next token, given the model's `logits` `[vocabulary]` of any float type, which stay as they are."""
        if not self._is_plain:
            logits = self._adjusted(logits.to(torch.float32, copy=True))
        token = int(logits.argmax()) if self._is_greedy else self._drawn(logits.float())
        self._note(token)
        return token

    def _adjusted(self, logits: Tensor) -> Tensor:
        sampling = self._sampling
        if self._processors:
            ids = torch.tensor([list(self._tokens)], device=logits.device)
            for processor in self._processors:
                logits = processor(ids, logits[None])[0]
        if self._matcher is not None:
            self._matcher.mask(logits)
        if len(self._tokens) - self._prompt_length < sampling.min_tokens:
            logits = _without(logits, self._ends)
        if sampling.logit_bias:
            logits[list(sampling.logit_bias)] += torch.tensor(list(sampling.logit_bias.values()), device=logits.device)
        if self._repetition_penalty != 1:
            seen, penalty = self._seen_tokens(logits), self._repetition_penalty
            logits = torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
        if self._has_penalties:
            counts = self._generated_counts(logits)
            logits -= sampling.frequency_penalty * counts + sampling.presence_penalty * (counts > 0)
        return logits

    def _seen_tokens(self, logits: Tensor) -> Tensor:
        if self._seen is None:
            self._seen = torch.zeros_like(logits, dtype=torch.bool)
            self._seen[list(self._tokens)] = True
        return self._seen

    def _generated_counts(self, logits: Tensor) -> Tensor:
        if self._counts is None:
            self._counts = torch.zeros_like(logits)
        return self._counts

    def _note(self, token: int) -> None:
        if self._matcher is not None:
            self._matcher.accept(token)
        if self._seen is not None:
            self._seen[token] = True
        if self._counts is not None:
            self._counts[token] += 1

    def _drawn(self, logits: Tensor) -> int:
        ids, probabilities = filtered(logits / self._temperature, *self._filters)
        cumulative = probabilities.cumsum(-1, dtype=torch.float64)
        if not cumulative[-1] > 0:
            raise ComposeError(
                "the next token has no probabilities: the model's numbers overflow, in its precision or by the "
                "request's repetition_penalty"
            )
        at = torch.searchsorted(cumulative, cumulative[-1:] * self._random.random(), right=True)
        return int(at if ids is None else ids[at])


def _without(logits: Tensor, tokens: Sequence[int]) -> Tensor:
    """The logits with these tokens made impossible, unless nothing else is possible."""
    others = logits.index_fill(-1, torch.tensor(tokens, dtype=torch.long, device=logits.device), -math.inf)
    return others if others.max() > -math.inf else logits


def filtered(logits: Tensor, top_k: int, top_p: float, min_p: float) -> tuple[Tensor | None, Tensor]:
    """The tokens that may be drawn (None: all, in order) and their probabilities, which need not add up to 1.

    top_k counts first, top_p is a share of what it leaves, min_p is relative to the likeliest token.
    """
    if not 0 < top_k < logits.numel():
        top_k = 0
    if not top_k and top_p >= 1:
        probabilities = logits.softmax(-1)
        return None, probabilities * (probabilities >= min_p * probabilities.max()) if min_p else probabilities
    if top_k:
        values, ids = logits.topk(top_k)
        probabilities = values.softmax(-1)
    else:
        ids, probabilities = _nucleus(logits, top_p)
    keep = probabilities.cumsum(-1) - probabilities < top_p
    keep[0] = True
    if min_p:
        keep &= probabilities >= min_p * probabilities[0]
    return ids, probabilities * keep


def _nucleus(logits: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """Likeliest tokens with their probabilities, in falling order, enough of them to hold `top_p`.

    Sorting a large vocabulary can cost more than the model, and a few hundred tokens nearly always hold enough.
    """
    total = logits.logsumexp(-1)
    for count in (256, logits.numel()):
        values, ids = logits.topk(min(count, logits.numel()))
        probabilities = (values - total).exp()
        if count >= logits.numel() or float(probabilities.sum()) >= top_p:
            break
    return ids, probabilities


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
