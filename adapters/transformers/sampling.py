"""From logits to tokens: masks, bias, penalties, filters and the draw."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple, TypeVar

import msgspec
import torch
from torch import Tensor

from ..base import Sampling
from ..errors import ComposeError
from .ahead import MaskAhead

T = TypeVar("T")
FEW = 256
"""Likeliest tokens that are looked at first where only their share of the probability is given."""
RUN = 128
NO_PROBABILITIES = ComposeError(
    "the next token has no probabilities: the model's numbers overflow, in its precision or by the request's "
    "repetition_penalty"
)
LogitsProcessor = Callable[[Tensor, Tensor], Tensor]
"""transformers' form: token ids `[1, length]` and scores `[1, vocabulary]` -> scores."""


class Draw(NamedTuple):
    """What one draw goes by; `uniform` is a random number from 0 to 1."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    uniform: float

    def is_filtered(self, size: int) -> bool:
        """Whether only the likeliest of `size` tokens may be drawn."""
        return 0 < self.top_k < size or self.top_p < 1


class Sampler:
    """How the tokens of one sequence are chosen; `choose` does it, for several at a time.

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
        matcher: MaskAhead | None = None,
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

    def adjusted(self, logits: Tensor) -> Tensor:
        """The sequence's own scores from its row of logits, float32 `[vocabulary]`, which is written into."""
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

    def note(self, token: int) -> None:
        """Take note of the token that was chosen."""
        if self._matcher is not None:
            self._matcher.accept(token)
        if self._seen is not None:
            self._seen[token] = True
        if self._counts is not None:
            self._counts[token] += 1


def _without(logits: Tensor, tokens: Sequence[int]) -> Tensor:
    """The logits with these tokens made impossible, unless nothing else is possible."""
    others = logits.index_fill(-1, torch.tensor(tokens, dtype=torch.long, device=logits.device), -math.inf)
    return others if others.max() > -math.inf else logits


def choose(logits: Tensor, samplers: Sequence[Sampler]) -> list[int | Exception]:
    """The next token of each sequence, from its row of the model's `logits` `[sequences, vocabulary]`; or its error.

    The logits stay as they are. What a row asks for is computed for the rows that ask.
    """
    if all(sampler.is_plain and sampler.is_greedy for sampler in samplers):
        return list(_likeliest(logits).tolist())
    chosen: list[int | Exception] = [0] * len(samplers)
    scores: dict[int, Tensor] = {}
    for index, sampler in enumerate(samplers):
        if sampler.is_plain:
            scores[index] = logits[index]
            continue
        try:
            scores[index] = sampler.adjusted(logits[index].to(torch.float32, copy=True))
        except Exception as error:  # a request's own fault: its grammar, its processors
            chosen[index] = error
    greedy = [index for index in scores if samplers[index].is_greedy]
    drawn = [index for index in scores if not samplers[index].is_greedy]
    if greedy:
        best = _likeliest(torch.stack([scores[index].float() for index in greedy])).tolist()
        for index, token in zip(greedy, best, strict=True):
            chosen[index] = token
    if drawn:
        rows = torch.stack([scores[index].float() for index in drawn])
        for index, token in zip(drawn, _drawn(rows, [samplers[index].draw for index in drawn]), strict=True):
            chosen[index] = token
    return chosen


def _likeliest(scores: Tensor) -> Tensor:
    """The first of the likeliest tokens of each row; `argmax` does the same in five times the time on a CPU."""
    return scores.max(-1).indices


def _drawn(scores: Tensor, draws: Sequence[Draw]) -> list[int | Exception]:
    """A token for each row of scores `[rows, vocabulary]`."""
    drawn: list[int | Exception] = [NO_PROBABILITIES] * len(draws)
    scores = scores / torch.tensor([[draw.temperature] for draw in draws], device=scores.device)
    for is_filtered in (True, False):
        rows = [row for row, draw in enumerate(draws) if draw.is_filtered(scores.shape[-1]) == is_filtered]
        if not rows:
            continue
        own = [draws[row] for row in rows]
        mine = scores if len(rows) == len(draws) else scores[rows]
        ids, probabilities = filtered(mine, own) if is_filtered else (None, _all(mine, own))
        for row, at in zip(rows, inverted(probabilities, [draw.uniform for draw in own], ids), strict=True):
            if at is not None:
                drawn[row] = at
    return drawn


def inverted(probabilities: Tensor, uniforms: Sequence[float], ids: Tensor | None = None) -> list[int | None]:
    """For each row of `probabilities` `[rows, tokens]`, which need not add up to 1, where its number between 0 and 1
    falls, or the id that stands there; None for rows without probabilities.

    A vocabulary is added up in runs, and only the run that is met token by token.
    """
    run = min(RUN, probabilities.shape[-1])
    if padding := -probabilities.shape[-1] % run:
        probabilities = torch.nn.functional.pad(probabilities, (0, padding))
    runs = probabilities.unflatten(-1, (-1, run))
    sums = runs.sum(-1, dtype=torch.float32).double().cumsum(-1)
    total = sums[:, -1:]
    target = total * torch.tensor([[uniform] for uniform in uniforms], dtype=sums.dtype, device=sums.device)
    met = _met(sums, target)
    before = (sums - runs.sum(-1, dtype=torch.float32).double()).gather(-1, met)
    inside = runs.gather(1, met[..., None].expand(-1, -1, run))[:, 0].double().cumsum(-1)
    at = met * run + _met(inside, target - before)
    if ids is not None:
        at = ids.gather(-1, at)
    pairs = zip(at[:, 0].tolist(), (total[:, 0] > 0).tolist(), strict=True)
    return [place if is_right else None for place, is_right in pairs]


def _met(sums: Tensor, target: Tensor) -> Tensor:
    """The first of rising sums above the target, or the last one that rises."""
    last = (sums < sums[:, -1:]).sum(-1, keepdim=True).clamp(max=sums.shape[-1] - 1)
    return torch.minimum(torch.searchsorted(sums, target, right=True), last)


def _all(scores: Tensor, draws: Sequence[Draw]) -> Tensor:
    """The probabilities where nothing but `min_p` rules tokens out."""
    probabilities = scores.softmax(-1)
    if any(draw.min_p for draw in draws):
        least = torch.tensor([[draw.min_p] for draw in draws], device=scores.device)
        probabilities *= probabilities >= least * probabilities.max(-1, keepdim=True).values
    return probabilities


def filtered(scores: Tensor, draws: Sequence[Draw]) -> tuple[Tensor, Tensor]:
    """The likeliest tokens of each row of scores `[rows, vocabulary]`, falling, and their probabilities.

    top_k counts first, top_p is a share of what it leaves, min_p is relative to the likeliest token. What is ruled out
    has probability 0; the others need not add up to 1. Sorting a large vocabulary can cost more than the model, and a
    few hundred tokens nearly always hold enough.
    """
    size = scores.shape[-1]
    device = scores.device
    counts = [draw.top_k if 0 < draw.top_k < size else size for draw in draws]
    least = torch.tensor([[draw.min_p] for draw in draws], device=device)
    share = torch.tensor([[draw.top_p] for draw in draws], device=device)
    total = torch.full((len(draws), 1), -math.inf, device=device)
    if open_rows := [row for row, count in enumerate(counts) if count == size]:
        total[open_rows] = scores[open_rows].logsumexp(-1, keepdim=True)
    some = max(min(max((count for count in counts if count < size), default=0), size), min(FEW, size))
    while True:
        values, ids = scores.topk(some)
        allowed = torch.arange(some, device=device) < torch.tensor([[count] for count in counts], device=device)
        values = values.masked_fill(~allowed, -math.inf)
        sums = torch.where(total > -math.inf, total, values.logsumexp(-1, keepdim=True))
        probabilities = (values - sums).exp()
        sufficient = (probabilities.sum(-1, keepdim=True) >= share) | allowed.logical_not().any(-1, keepdim=True)
        if some >= size or bool(sufficient.all()):
            break
        some = size
    keep = probabilities.cumsum(-1) - probabilities < share
    keep[:, 0] = True
    keep &= probabilities >= least * probabilities[:, :1]
    return ids, probabilities * keep


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
