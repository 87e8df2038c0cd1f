"""The KV cache of many sequences: a row each, in slabs of rows of one length.

A sequence that reads its prompt has a row to itself (`Row.alone`); with its first new token it joins the slab of its
length, where rows stay packed, so that a step's attention is one operation a slab. A row that is full moves to a slab
of longer rows. Moving costs a copy, which is little beside what was computed to fill it.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

_PRIVATE = {} if sys.platform == "win32" else {"flags": mmap.MAP_ANON | mmap.MAP_PRIVATE}
_LARGE_PAGES = getattr(mmap, "MADV_HUGEPAGE", None)

FIRST_LENGTH = 256
"""Tokens of the shortest rows; every further slab's have twice as many."""


@dataclass(frozen=True)
class KVShape:
    """What is kept of one token: two vectors for every head of every layer."""

    layers: int
    heads: int
    key_size: int
    value_size: int
    dtype: torch.dtype
    device: torch.device

    @property
    def token_bytes(self) -> int:
        return self.layers * self.heads * (self.key_size + self.value_size) * self.dtype.itemsize

    def keys(self, rows: int, length: int) -> Tensor:
        return self._room(rows, length, self.key_size)

    def values(self, rows: int, length: int) -> Tensor:
        return self._room(rows, length, self.value_size)

    def _room(self, rows: int, length: int, size: int) -> Tensor:
        # Zeros, for what was never written is read, though it counts for nothing, and must be a number.
        shape = (self.layers, rows, self.heads, length, size)
        if self.device.type != "cpu" or not rows:
            return torch.zeros(shape, dtype=self.dtype, device=self.device)
        # Pages of the system's own take memory only where something is written, and are given back whole: in the heap,
        # among what a step needs for a moment, they would leave gaps.
        pages = mmap.mmap(-1, prod(shape) * self.dtype.itemsize, **_PRIVATE)
        if _LARGE_PAGES is not None:
            # To fill long rows for the first time takes half the time then. A system without them says so.
            with suppress(OSError):
                pages.madvise(_LARGE_PAGES)
        return torch.frombuffer(pages, dtype=self.dtype).view(shape)


def row_length(tokens: int) -> int:
    """The length of the rows that sequences of so many tokens have."""
    return max(FIRST_LENGTH, 1 << (tokens - 1).bit_length())


class Slab:
    """Rows of one length: `keys` and `values` are `[layers, rows, heads, length, size]`; the first rows are taken."""

    keys: Tensor
    values: Tensor

    def __init__(self, shape: KVShape, length: int, rows: int = 0) -> None:
        self.length = length
        self.taken: list[Row] = []
        self._shape = shape
        self._resize(rows)

    @property
    def count(self) -> int:
        return len(self.taken)

    @property
    def rows(self) -> int:
        return self.keys.shape[1]

    def add(self, row: Row) -> None:
        """Take a row in as the last."""
        if self.count == self.rows:
            self._resize(max(1, 2 * self.rows))
        row.slab, row.index = self, self.count
        self.taken.append(row)

    def remove(self, row: Row) -> None:
        """Let a row go; the last one takes its place."""
        last = self.taken.pop()
        if last is not row:
            for room in (self.keys, self.values):
                room[:, row.index, :, : last.filled] = room[:, last.index, :, : last.filled]
            self.taken[row.index] = last
            last.index = row.index
        if not self.taken:
            self._resize(0)

    def _resize(self, rows: int) -> None:
        keys, values = self._shape.keys(rows, self.length), self._shape.values(rows, self.length)
        if rows and (filled := max((row.filled for row in self.taken), default=0)):
            for new, old in ((keys, self.keys), (values, self.values)):
                new[:, : self.count, :, :filled] = old[:, : self.count, :, :filled]
        self.keys, self.values = keys, values


class Row:
    """One sequence's part of the cache; the first `filled` tokens are there."""

    def __init__(self, slab: Slab) -> None:
        self.filled = 0
        slab.add(self)

    slab: Slab
    index: int

    @classmethod
    def alone(cls, shape: KVShape, length: int) -> Row:
        """A row in a slab of its own."""
        return cls(Slab(shape, length, rows=1))

    @property
    def keys(self) -> Tensor:
        """`[layers, heads, length, size]`."""
        return self.slab.keys[:, self.index]

    @property
    def values(self) -> Tensor:
        return self.slab.values[:, self.index]

    def copy_to(self, slab: Slab) -> Row:
        """A row of another slab with the same tokens."""
        other = Row(slab)
        other.filled = self.filled
        other.keys[:, :, : self.filled] = self.keys[:, :, : self.filled]
        other.values[:, :, : self.filled] = self.values[:, :, : self.filled]
        return other

    def release(self) -> None:
        self.slab.remove(self)


class Slabs:
    """All rows that get a token in every step, by length."""

    def __init__(self, shape: KVShape) -> None:
        self.shape = shape
        self._slabs: dict[int, Slab] = {}

    def __iter__(self) -> Iterator[Slab]:
        return iter([slab for _, slab in sorted(self._slabs.items()) if slab.count])

    def of(self, tokens: int) -> Slab:
        """The slab for sequences of so many tokens."""
        length = row_length(tokens)
        if length not in self._slabs:
            self._slabs[length] = Slab(self.shape, length)
        return self._slabs[length]
