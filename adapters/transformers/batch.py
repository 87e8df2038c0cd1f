"""The tokens of one step, of all sequences, in one line; and attention, which sorts out whose is whose.

Everything in a model but attention treats each token by itself, so tokens of different sequences can stand side by
side, `[1, tokens]`, without padding. Attention takes them apart again: `Part` by `Part`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from .kernels import Kernels
from .rows import Row, Slab
from .team import Team, threads
from .tensors import on_device, put

_attend_with_sums: Any = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
"""What is under `scaled_dot_product_attention` on a CPU; gives each row's logarithm of its sum of exponentials too."""

HAVE_LOWER_RIGHT = {"cuda"}
"""Devices whose fast attention knows a piece that ends where its row ends; a mask that says so would make it slow."""


class Means(NamedTuple):
    """What computes attention: so many threads (None: as it is); a team that of single tokens, or kernels of both."""

    threads: int | None = None
    team: Team | None = None
    kernels: Kernels | None = None


class How(NamedTuple):
    """How tokens attend: scores times `scaling` (None: 1 / sqrt(size)), to the last `window` tokens (None: to all)."""

    scaling: float | None = None
    window: int | None = None
    means: Means = Means()


class Attending(Protocol):
    """Tokens of a batch, from place `start` to `end`, that attend in one operation.

    All tensors are `[tokens, heads, size]`.
    """

    start: int
    end: int

    def write(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Keep a layer's new keys and values, which are the whole batch's."""

    def attend(self, layer: int, queries: Tensor, how: How, out: Tensor | None = None) -> Tensor:
        """What the part's own `queries` attend to in their rows; it is put into `out`, if given."""


class Part:
    """Tokens that attend in one operation: one each for all rows of a slab, or several of one row.

    `start` to `end` are their places in the batch; `first` is the position of each row's first one.
    """

    def __init__(self, slab: Slab, rows: Sequence[Row], count: int, start: int) -> None:
        self.slab = slab
        self.count = count
        self.start, self.end = start, start + count * len(rows)
        self.first = [row.filled for row in rows]
        self.length = max(self.first) + count
        self._rows = len(rows)
        self._masks: dict[tuple[int | None, int], tuple[int, Tensor | None]] = {}

    @property
    def attended(self) -> int:
        """How many tokens' keys and values attention reads in a layer."""
        return self._rows * self.length

    @property
    def positions(self) -> list[int]:
        return [position for first in self.first for position in range(first, first + self.count)]

    def write(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Keep a layer's new keys and values, `[tokens, heads, size]` of the whole batch."""
        for room, new in ((self.slab.keys[layer], keys), (self.slab.values[layer], values)):
            own = new[self.start : self.end]
            if self.count > 1:
                room[0, :, self.first[0] : self.length] = own.transpose(0, 1)
            else:
                room.flatten(0, 2).index_copy_(0, self._slots, own.flatten(0, 1))

    def attend(self, layer: int, queries: Tensor, how: How, out: Tensor | None = None) -> Tensor:
        scaling, window, means = how
        if means.kernels is not None and self.count > 1 and means.kernels.can_attend_pieces(queries.shape[-1]):
            keys, values = self.slab.keys[layer, 0], self.slab.values[layer, 0]
            return means.kernels.attended_piece(queries, keys, values, self.first[0], scaling, window, out)
        if means.team is not None and self.count == 1:
            return put(self._attended_by(means.team, layer, queries, scaling, window), out)
        heads, size = queries.shape[-2:]
        own = queries.view(self._rows, self.count, heads, size).transpose(1, 2)
        if self._is_in_two(window):
            attended = self._attended_in_two(layer, own, scaling)
        else:
            begin, mask = self._mask(window, queries.dtype)
            keys, values = self._kept(layer, begin)
            attended = F.scaled_dot_product_attention(
                own,
                keys,
                values,
                attn_mask=mask,
                scale=scaling,
                is_causal=mask is None and self.count > 1,
                enable_gqa=heads != keys.shape[1],
            )
        return put(attended.transpose(1, 2).reshape(len(queries), heads, attended.shape[-1]), out)

    @cached_property
    def _slots(self) -> Tensor:
        """Where the next token of each row goes, head by head, in a layer's slab seen as one line of vectors."""
        heads = self.slab.keys.shape[2]
        filled = on_device(self.first, self.slab.keys.device)
        places = torch.arange(self._rows * heads, device=filled.device) * self.slab.length
        return (places.view(self._rows, heads) + filled[:, None]).flatten()

    def _is_in_two(self, window: int | None) -> bool:
        """Whether this is a later piece of a prompt for which no mask has to be made."""
        keys, values = self.slab.keys, self.slab.values
        return (
            self.count > 1
            and self.first[0] > 0
            and (window is None or self.length <= window)
            and keys.device.type == "cpu"
            and keys.shape[-1] == values.shape[-1]
            and _attend_with_sums is not None
        )

    def _attended_in_two(self, layer: int, queries: Tensor, scaling: float | None) -> Tensor:
        """Attention to all that was read before, and, causally, to the piece itself; each counts by its sum."""
        keys, values = self.slab.keys[layer, :1], self.slab.values[layer, :1]
        known, new = slice(0, self.first[0]), slice(self.first[0], self.length)
        before, sums_before = _attend_with_sums(queries, keys[:, :, known], values[:, :, known], scale=scaling)
        itself, sums = _attend_with_sums(queries, keys[:, :, new], values[:, :, new], is_causal=True, scale=scaling)
        share = torch.sigmoid(sums_before - sums).to(itself.dtype)
        return torch.lerp(itself, before, share[..., None])

    def _attended_by(
        self, team: Team, layer: int, queries: Tensor, scaling: float | None, window: int | None
    ) -> Tensor:
        """One token in each row, of which every thread has as many rows, or heads of them, as any other."""
        heads, size = self.slab.keys.shape[2], queries.shape[-1]
        begin, mask = self._mask(window, queries.dtype, heads)
        keys, values = self._kept(layer, begin)
        own = queries.reshape(self._rows * heads, -1, 1, size)
        keys, values = keys.flatten(0, 1)[:, None], values.flatten(0, 1)[:, None]

        def attended(part: slice) -> Tensor:
            mine = None if mask is None else mask[part]
            return F.scaled_dot_product_attention(
                own[part], keys[part], values[part], attn_mask=mine, scale=scaling, enable_gqa=own.shape[1] > 1
            )

        return team.computed(attended, len(own)).view(len(queries), -1, values.shape[-1])

    def _kept(self, layer: int, begin: int) -> tuple[Tensor, Tensor]:
        """A layer's keys and values of this part's rows, from the token `begin` on."""
        place = (layer, slice(self._rows), slice(None), slice(begin, self.length))
        return self.slab.keys[place], self.slab.values[place]

    def _mask(self, window: int | None, dtype: torch.dtype, times: int = 1) -> tuple[int, Tensor | None]:
        """Where the keys that matter begin, and what is added to the scores of each; None: all count, or causally.

        Each row's scores are there so many `times`, and all layers share them.
        """
        if (window, times) not in self._masks:
            begin, mask = self._made_mask(window, dtype)
            self._masks[window, times] = begin, mask if mask is None or times == 1 else mask.repeat_interleave(times, 0)
        return self._masks[window, times]

    def _made_mask(self, window: int | None, dtype: torch.dtype) -> tuple[int, Tensor | None]:
        begin = 0 if window is None else max(0, min(self.first) - window + 1)
        is_plain = self.length - begin <= (window or self.length)
        if self.count == 1 and min(self.first) == self.length - 1:
            return begin, None
        if self.count > 1 and self.first[0] == 0 and is_plain:
            return begin, None
        device = self.slab.keys.device
        if self.count > 1 and is_plain and device.type in HAVE_LOWER_RIGHT:
            return begin, _lower_right(self.count, self.length - begin)
        queries = on_device(self.positions, device).view(self._rows, 1, self.count, 1)
        keys = torch.arange(begin, self.length, device=device)
        counts = keys <= queries
        if not is_plain and window is not None:
            counts &= keys > queries - window
        return begin, torch.zeros(counts.shape, dtype=dtype, device=device).masked_fill_(~counts, -math.inf)


def _lower_right(queries: int, keys: int) -> Tensor:
    """A mask of no size that says that the last query sees all keys, and each one before it one key less."""
    from torch.nn.attention.bias import CausalBias, CausalVariant

    # Made as PyTorch makes it, it would be a tensor of two times as many numbers as the mask has.
    mask = Tensor.__new__(CausalBias)
    mask.variant, mask.seq_len_q, mask.seq_len_kv = CausalVariant.LOWER_RIGHT, queries, keys
    return mask


class Singles:
    """One token each of rows that lie anywhere, each in a slab of its own, for kernels to attend with."""

    def __init__(self, rows: Sequence[Row], start: int, kernels: Kernels) -> None:
        self.start, self.end = start, start + len(rows)
        self.positions = [row.filled for row in rows]
        self.attended = sum(self.positions) + len(rows)
        self._kernels = kernels
        self._kv_heads = rows[0].keys.shape[1]
        self.places = kernels.places(rows)

    def write(self, layer: int, keys: Tensor, values: Tensor) -> None:
        own = slice(self.start, self.end)
        self._kernels.keep(keys[own], values[own], self.places, layer)

    def attend(self, layer: int, queries: Tensor, how: How, out: Tensor | None = None) -> Tensor:
        return self._kernels.attended(queries, self.places, layer, self._kv_heads, how.scaling, how.window, out)


class Batch:
    """One step's tokens `[tokens]`, with their positions, and the places of those whose logits are wanted (None: all).

    `means` are for attention. Tokens beyond those of the parts are of no meaning.
    """

    def __init__(
        self,
        parts: Sequence[Attending],
        token_ids: Tensor,
        positions: Tensor,
        wanted: Tensor | None = None,
        means: Means | None = None,
    ) -> None:
        self.parts, self.token_ids, self.positions, self.wanted = parts, token_ids, positions, wanted
        self._means = means or Means()
        self._filler = len(token_ids) - parts[-1].end

    @classmethod
    def of(
        cls,
        parts: Sequence[Part | Singles],
        token_ids: Sequence[int],
        wanted: Sequence[int],
        means: Means | None = None,
        size: int = 0,
        device: torch.device | None = None,
    ) -> Batch:
        """A batch of at least `size` tokens, on a device."""
        filler = [0] * (size - len(token_ids))
        positions = [position for part in parts for position in part.positions]
        inputs = on_device([[*token_ids, *filler], [*positions, *filler]], device)
        are_all = len(wanted) == len(inputs[0])
        return cls(parts, inputs[0], inputs[1], None if are_all else on_device(wanted, device), means)

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def singles(self) -> Singles | None:
        """The part that the batch is, if it is nothing but single tokens for kernels."""
        first = self.parts[0]
        return first if isinstance(first, Singles) and first.end == len(self) else None

    def attend(
        self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, scaling: float | None, window: int | None
    ) -> Tensor:
        """Attention of a layer, its keys and values kept; all are `[tokens, heads, size]`."""
        for part in self.parts:
            part.write(layer, keys, values)
        how = How(scaling, window, self._means)
        with nullcontext() if self._means.threads is None else threads(self._means.threads):
            if len(self.parts) == 1 and not self._filler:
                return self.parts[0].attend(layer, queries, how)
            attended = values.new_empty(*queries.shape[:-1], values.shape[-1])
            for part in self.parts:
                own = slice(part.start, part.end)
                part.attend(layer, queries[own], how, attended[own])
        attended[self.parts[-1].end :] = 0
        return attended


def attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    batch: Batch,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers' models call it: `[1, heads, tokens, size]` in, `[1, tokens, heads, size]` out."""
    if attention_mask is not None or any(others.get(name) is not None for name in UNKNOWN):
        raise NotImplementedError("this model's attention does more than is known here")
    query, key, value = (states[0].transpose(0, 1) for states in (query, key, value))
    return batch.attend(module.layer_idx, query, key, value, scaling, sliding_window)[None], None


UNKNOWN = ("softcap", "s_aux", "position_bias", "head_mask", "cu_seq_lens_q")
"""What some models ask of attention beyond this."""
