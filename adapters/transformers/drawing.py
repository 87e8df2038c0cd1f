"""Tokens drawn by chance from what top_k, top_p and min_p leave of each row's probabilities.

Sorting a large vocabulary can cost more than the model. So where top_p is all that rules tokens out, a few hundred of
the likeliest are looked at first, which nearly always hold enough; else the probability that the last one has is found
by halving. How a row is drawn depends on nothing but the row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .tensors import on_device, rows_at

FEW = 256
"""Likeliest tokens that are looked at for top_k, if it is no more, and first of all for top_p."""

HALVINGS = 24
"""Of the range that the logarithm of a row's least probable token lies in, which then is as exact as float32 is."""

CACHED = 1 << 18
"""Numbers that are read again and again at a time, so that they stay in the processor's cache."""

RUN = 128


class Draw(NamedTuple):
    """What one draw goes by; `uniform` is a random number from 0 to 1."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    uniform: float

    def is_limited(self, size: int) -> bool:
        """Whether there are more than top_k tokens."""
        return 0 < self.top_k < size


class Choice(NamedTuple):
    """What rows of scores may be drawn from: `probabilities` `[rows, tokens]`, which need not add up to 1.

    They are those of the tokens `ids` `[rows, tokens]`, or of the whole vocabulary in its order.
    """

    rows: Sequence[int]
    probabilities: Tensor
    ids: Tensor | None = None


def drawn_tokens(scores: Tensor, draws: Sequence[Draw]) -> list[int | None]:
    """A token for each row of scores, float32 `[rows, vocabulary]`; None for rows without probabilities."""
    drawn: list[int | None] = [None] * len(draws)
    scores = scores / _column([draw.temperature for draw in draws], scores.device)
    for choice in choices(scores, draws):
        uniforms = [draws[row].uniform for row in choice.rows]
        for row, token in zip(choice.rows, inverted(choice.probabilities, uniforms, choice.ids), strict=True):
            drawn[row] = token
    return drawn


def choices(scores: Tensor, draws: Sequence[Draw]) -> Iterator[Choice]:
    """What every row may be drawn from, in groups of rows; `scores` have their temperature.

    top_k counts first, top_p is a share of what it leaves, min_p is relative to the likeliest token.
    """
    size = scores.shape[-1]
    limited = [row for row, draw in enumerate(draws) if draw.is_limited(size)]
    shared = [row for row, draw in enumerate(draws) if not draw.is_limited(size) and draw.top_p < 1]
    free = [row for row, draw in enumerate(draws) if not draw.is_limited(size) and draw.top_p >= 1]
    if free:
        own = [draws[row] for row in free]
        probabilities = rows_at(scores, free).softmax(-1)
        yield Choice(free, _likely_enough(probabilities, probabilities.amax(-1, keepdim=True), own))
    widths = {row: min(size, max(FEW, 1 << (draws[row].top_k - 1).bit_length())) for row in limited}
    for width in sorted(set(widths.values())):
        yield _limited(scores, [row for row in limited if widths[row] == width], draws, width)
    if shared:
        yield from _shared(scores, shared, draws)


def _limited(scores: Tensor, rows: Sequence[int], draws: Sequence[Draw], width: int) -> Choice:
    """For rows of whose likeliest tokens top_k leaves some of `width`.

    Among equal ones `topk` takes others for another width, which therefore is not to depend on other rows.
    """
    own = [draws[row] for row in rows]
    values, ids = rows_at(scores, rows).topk(width)
    allowed = torch.arange(width, device=values.device) < _column([draw.top_k for draw in own], values.device)
    return Choice(rows, _first_share(values.masked_fill(~allowed, -math.inf).softmax(-1), own), ids)


def _shared(scores: Tensor, rows: Sequence[int], draws: Sequence[Draw]) -> Iterator[Choice]:
    """For rows that top_p alone rules tokens out of."""
    mine, own = rows_at(scores, rows), [draws[row] for row in rows]
    if mine.device.type != "cpu":  # to look whether a few were enough, one would have to wait
        yield Choice(rows, _largest_share(mine.softmax(-1), own))
        return
    total = mine.logsumexp(-1, keepdim=True)
    values, ids = mine.topk(min(FEW, mine.shape[-1]))
    probabilities = (values - total).exp()
    enough = (probabilities.sum(-1) >= _column([draw.top_p for draw in own], mine.device)[:, 0]).tolist()
    few = [place for place, is_enough in enumerate(enough) if is_enough]
    many = [place for place, is_enough in enumerate(enough) if not is_enough]
    if few:
        kept = _first_share(rows_at(probabilities, few), [own[place] for place in few])
        yield Choice([rows[place] for place in few], kept, rows_at(ids, few))
    together = max(1, CACHED // mine.shape[-1])
    for some in (many[start : start + together] for start in range(0, len(many), together)):
        probabilities = (rows_at(mine, some) - rows_at(total, some)).exp()
        yield Choice([rows[place] for place in some], _largest_share(probabilities, [own[place] for place in some]))


def _first_share(probabilities: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Probabilities that fall, `[rows, tokens]`, without those beyond a share of top_p or below min_p."""
    share = _column([draw.top_p for draw in draws], probabilities.device)
    keep = probabilities.cumsum(-1) - probabilities < share
    keep[:, 0] = True
    return _likely_enough(probabilities * keep, probabilities[:, :1], draws)


def _largest_share(probabilities: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Probabilities `[rows, tokens]` without all but the largest that have a share of top_p, and those below min_p.

    `high` is too large for the least of them, `low` is not.
    """
    share = _column([draw.top_p for draw in draws], probabilities.device)
    most = probabilities.amax(-1, keepdim=True)
    low, high = ((1 - share) / probabilities.shape[-1]).clamp_min(1e-30).log(), most.log()
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        is_enough = torch.where(probabilities >= middle.exp(), probabilities, 0).sum(-1, keepdim=True) >= share
        low, high = torch.where(is_enough, middle, low), torch.where(is_enough, high, middle)
    keep = (probabilities >= low.exp()) | (probabilities == most)
    return _likely_enough(probabilities * keep, most, draws)


def _likely_enough(probabilities: Tensor, most: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Probabilities without those below a share of `most` `[rows, 1]`, min_p."""
    if not any(draw.min_p for draw in draws):
        return probabilities
    least = _column([draw.min_p for draw in draws], probabilities.device)
    return probabilities * (probabilities >= least * most)


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
    target = total * _column(uniforms, sums.device, sums.dtype)
    met = _met(sums, target)
    before = (sums - runs.sum(-1, dtype=torch.float32).double()).gather(-1, met)
    inside = runs.gather(1, met[..., None].expand(-1, -1, run))[:, 0].double().cumsum(-1)
    at = met * run + _met(inside, target - before)
    if ids is not None:
        at = ids.gather(-1, at)
    found = torch.where(total > 0, at, -1)[:, 0].tolist()
    return [None if place < 0 else place for place in found]


def _column(values: Sequence[float], device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """A value for each row, `[rows, 1]`."""
    return on_device(values, device, dtype)[:, None]


def _met(sums: Tensor, target: Tensor) -> Tensor:
    """The first of rising sums above the target, or the last one that rises."""
    last = (sums < sums[:, -1:]).sum(-1, keepdim=True).clamp(max=sums.shape[-1] - 1)
    return torch.minimum(torch.searchsorted(sums, target, right=True), last)
