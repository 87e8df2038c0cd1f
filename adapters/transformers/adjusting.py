"""What requests change of the model's logits before a token is chosen: masks, ends, bias and penalties, for all rows.

What a row asks for touches a few of its numbers, so they are changed by their places in all rows seen as one line. No
step here waits for a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .tensors import on_device

if TYPE_CHECKING:
    from .sampling import Sampler

LogitsProcessor = Callable[[Tensor, Tensor], Tensor]
"""transformers' form: token ids `[1, length]` and scores `[1, vocabulary]` -> scores."""


class Seen:
    """The different tokens of a sequence, and how often each of them was generated; on a device."""

    def __init__(self, prompt: Iterable[int], generated: Iterable[int], device: torch.device) -> None:
        self._places = {token: place for place, token in enumerate(dict.fromkeys(prompt))}
        self._ids = on_device([*self._places, *[0] * 64], device)
        self._counts = torch.zeros(len(self._ids), device=device)
        for token in generated:
            self.note(token)

    def __len__(self) -> int:
        return len(self._places)

    @property
    def ids(self) -> Tensor:
        """`[tokens]`."""
        return self._ids[: len(self)]

    @property
    def counts(self) -> Tensor:
        """`[tokens]`, of floats."""
        return self._counts[: len(self)]

    def note(self, token: int) -> None:
        """One more token was generated."""
        place = self._places.setdefault(token, len(self))
        if place == len(self._ids):
            self._ids, self._counts = (torch.cat([own, torch.zeros_like(own)]) for own in (self._ids, self._counts))
        self._ids[place] = token
        self._counts[place] += 1


def adjust(scores: Tensor, samplers: Sequence[Sampler]) -> dict[int, Exception]:
    """Change rows of scores, float32 `[rows, vocabulary]`, as their samplers ask; errors of a row's own, by its place.

    The order is vLLM's: grammar, min_tokens, logit_bias, penalties. Where only an end is possible, min_tokens gives
    way.
    """
    errors: dict[int, Exception] = {}
    for row, sampler in enumerate(samplers):
        try:
            sampler.process(scores[row])
        except Exception as error:  # a request's own fault: its grammar, its processors
            errors[row] = error
    rows = [(row * scores.shape[1], sampler) for row, sampler in enumerate(samplers) if row not in errors]
    line = scores.view(-1)
    _keep_ends_away(scores, [(start, sampler) for start, sampler in rows if sampler.withholds_ends])
    biased = [(start, sampler.bias(scores.device)) for start, sampler in rows if sampler.has_bias]
    if biased:
        places = torch.cat([ids + start for start, (ids, _) in biased])
        line.index_add_(0, places, torch.cat([values for _, (_, values) in biased]))
    _penalize(line, [(start, sampler) for start, sampler in rows if sampler.has_penalties])
    return errors


def _keep_ends_away(scores: Tensor, rows: Sequence[tuple[int, Sampler]]) -> None:
    if not rows:
        return
    line, size = scores.view(-1), scores.shape[1]
    places = on_device([start + end for start, sampler in rows for end in sampler.ends], scores.device)
    before = line[places]
    line.index_fill_(0, places, -math.inf)
    is_possible = (scores.amax(-1) > -math.inf).index_select(0, places // size)
    line.index_copy_(0, places, torch.where(is_possible, -math.inf, before))


def _penalize(line: Tensor, rows: Sequence[tuple[int, Sampler]]) -> None:
    seen = [(start, sampler, sampler.seen(line.device)) for start, sampler in rows]
    seen = [each for each in seen if len(each[2])]
    if not seen:
        return
    places = torch.cat([own.ids + start for start, _, own in seen])
    counts = torch.cat([own.counts for *_, own in seen])
    lengths = on_device([len(own) for *_, own in seen], line.device)
    values = on_device([sampler.penalties for _, sampler, _ in seen], line.device, torch.float32)
    repetition, frequency, presence = values.repeat_interleave(lengths, 0, output_size=len(places)).unbind(1)
    before = line[places]
    penalized = torch.where(before > 0, before / repetition, before * repetition)
    line.index_copy_(0, places, penalized - frequency * counts - presence * (counts > 0))
