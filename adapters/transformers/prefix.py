"""Beginnings of texts whose keys and values are known already, in blocks of a few tokens."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch

from .memory import Memory
from .rows import Row

BLOCK = 32
ROOT = -1

Key = tuple[int, tuple[int, ...]]
"""The block before (its number) and this block's tokens."""


class PrefixBlocks:
    """Which blocks of tokens are known. Pure; the numbers of blocks go from 0 to `count`.

    What was not used for longest is forgotten first; a block is never used later than the one before it, so that
    nothing is forgotten before what builds on it.
    """

    def __init__(self, count: int) -> None:
        self._free = list(range(count))
        self._known: OrderedDict[Key, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def find(self, tokens: Sequence[int]) -> list[int]:
        """The numbers of the blocks that `tokens` begin with."""
        keys = self._found(tokens)
        self._use(keys)
        return [self._known[key] for key in keys]

    def add(self, tokens: Sequence[int]) -> list[tuple[int, int]]:
        """Take in the whole blocks of `tokens`; those that are new, as (place among the text's blocks, number)."""
        keys = self._found(tokens)
        self._use(keys)
        added: list[tuple[int, int]] = []
        for place, block in enumerate(_blocks(tokens)[len(keys) :], len(keys)):
            number = self._number(kept=len(keys))
            if number is None:
                break
            key = (self._known[keys[-1]] if keys else ROOT, block)
            self._known[key] = number
            keys.append(key)
            added.append((place, number))
        self._use(keys)
        return added

    def _found(self, tokens: Sequence[int]) -> list[Key]:
        keys: list[Key] = []
        before = ROOT
        for block in _blocks(tokens):
            if (before, block) not in self._known:
                break
            keys.append((before, block))
            before = self._known[before, block]
        return keys

    def _use(self, keys: list[Key]) -> None:
        for key in reversed(keys):
            self._known.move_to_end(key)

    def _number(self, kept: int) -> int | None:
        """A block to fill; None if all are in use by the text that wants it."""
        if self._free:
            return self._free.pop()
        if len(self._known) <= kept:
            return None
        return self._known.popitem(last=False)[1]


def _blocks(tokens: Sequence[int]) -> list[tuple[int, ...]]:
    return [tuple(tokens[start : start + BLOCK]) for start in range(0, len(tokens) - BLOCK + 1, BLOCK)]


class PrefixCache:
    """The keys and values of known beginnings, `[blocks, layers, heads, tokens, size]`, in so many bytes.

    All of a block lies together, so that few new blocks are few new pages.
    """

    def __init__(self, memory: Memory, size: int) -> None:
        shape = memory.shape
        count = size // (shape.token_bytes * BLOCK)
        self._blocks = PrefixBlocks(count)
        line = (shape.layers, shape.heads, BLOCK)
        sizes = [math.prod(line) * size for size in (shape.key_size, shape.value_size)]
        room = memory.take(count, BLOCK).buffer.view(shape.dtype).view(count, sum(sizes))
        keys, values = room.split(sizes, 1)
        self._keys = keys.unflatten(1, (*line, shape.key_size))
        self._values = values.unflatten(1, (*line, shape.value_size))

    @property
    def tokens(self) -> int:
        """How many tokens are known."""
        return len(self._blocks) * BLOCK

    def load(self, tokens: Sequence[int], row: Row) -> int:
        """Fill an empty row with what is known of `tokens`; how many tokens that is."""
        if found := self._blocks.find(tokens):
            count = len(found) * BLOCK
            numbers = torch.tensor(found, device=self._keys.device)
            for room, known in ((row.keys, self._keys), (row.values, self._values)):
                room[:, :, :count].unflatten(2, (len(found), BLOCK)).copy_(known[numbers].permute(1, 2, 0, 3, 4))
            row.filled = count
        return row.filled

    def keep(self, tokens: Sequence[int], row: Row) -> None:
        """Take in what a row has of `tokens` and was not known."""
        added = self._blocks.add(tokens[: row.filled])
        if not added:
            return
        first, count = added[0][0] * BLOCK, len(added) * BLOCK
        numbers = torch.tensor([number for _, number in added], device=self._keys.device)
        for room, known in ((row.keys, self._keys), (row.values, self._values)):
            new = room[:, :, first : first + count].unflatten(2, (len(added), BLOCK))
            known[numbers] = new.permute(2, 0, 1, 3, 4)
