"""The KV cache of many sequences: a row each, in slabs of rows of one length.

A sequence that reads its prompt has a row to itself (`Row.alone`). It keeps it where compiled kernels attend to rows
wherever they lie; else it joins the slab of its length with its first new token, where rows stay packed, so that a
step's attention is one operation a slab. A row that is full moves to a longer one. Moving costs a copy, which is little
beside what was computed to fill it.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from .memory import Memory

FIRST_LENGTH = 256
"""Tokens of the shortest rows; every further ones have 1.5 times as many, or 2 times as many as those before them."""


def row_length(tokens: int) -> int:
    """The length of the rows that sequences of so many tokens have."""
    longer = max(FIRST_LENGTH, 1 << (tokens - 1).bit_length())
    shorter = max(FIRST_LENGTH, longer // 4 * 3)
    return shorter if tokens <= shorter else longer


class Slab:
    """Rows of one length; the first ones are taken."""

    def __init__(self, memory: Memory, length: int, rows: int = 0) -> None:
        self.length = length
        self.taken: list[Row] = []
        self._memory = memory
        self._room = memory.take(rows, length)

    @property
    def keys(self) -> Tensor:
        """`[layers, rows, heads, length, size]`."""
        return self._room.keys

    @property
    def values(self) -> Tensor:
        """`[layers, rows, heads, length, size]`."""
        return self._room.values

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
        old, self._room = self._room, self._memory.take(rows, self.length)
        if rows and (filled := max((row.filled for row in self.taken), default=0)):
            for new, known in ((self.keys, old.keys), (self.values, old.values)):
                new[:, : self.count, :, :filled] = known[:, : self.count, :, :filled]
        self._memory.give(old)


class Row:
    """One sequence's part of the cache; the first `filled` tokens are there."""

    def __init__(self, slab: Slab) -> None:
        self.filled = 0
        slab.add(self)

    slab: Slab
    index: int

    @classmethod
    def alone(cls, memory: Memory, length: int) -> Row:
        """A row in a slab of its own."""
        return cls(Slab(memory, length, rows=1))

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
        if slab.keys.device.type != "cpu":
            # Recorded steps read rows to their ends, and what the last sequence left may be no numbers.
            other.keys[:, :, self.filled :] = 0
            other.values[:, :, self.filled :] = 0
        return other

    def release(self) -> None:
        self.slab.remove(self)


class Slabs:
    """All rows that get a token in every step, by length."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._slabs: dict[int, Slab] = {}

    def __iter__(self) -> Iterator[Slab]:
        return iter([slab for _, slab in sorted(self._slabs.items()) if slab.count])

    def of(self, tokens: int) -> Slab:
        """The slab for sequences of so many tokens."""
        length = row_length(tokens)
        if length not in self._slabs:
            self._slabs[length] = Slab(self._memory, length)
        return self._slabs[length]
