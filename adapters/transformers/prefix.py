"""Beginnings of texts whose keys and values are known already, in blocks of a few tokens."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence

from torch import Tensor

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
        new = _blocks(tokens)[len(keys) :]
        added = list(enumerate(self._numbers(len(new), kept=len(keys)), len(keys)))
        for (_, number), block in zip(added, new, strict=False):
            key = (self._known[keys[-1]] if keys else ROOT, block)
            self._known[key] = number
            keys.append(key)
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

    def _numbers(self, count: int, kept: int) -> list[int]:
        """Rising numbers of up to so many blocks to fill; `kept` known ones are in use by the text that wants them."""
        free = self._free[:count]
        del self._free[:count]
        forgotten = min(count - len(free), len(self._known) - kept)
        return sorted(free + [self._known.popitem(last=False)[1] for _ in range(forgotten)])


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
        found = self._blocks.find(tokens)
        for known, own in self._shared(enumerate(found), row):
            own.copy_(known)
        row.filled = len(found) * BLOCK
        return row.filled

    def keep(self, tokens: Sequence[int], row: Row) -> None:
        """Take in what a row has of `tokens` and was not known."""
        for known, own in self._shared(self._blocks.add(tokens[: row.filled]), row):
            known.copy_(own)

    def _shared(self, blocks: Iterable[tuple[int, int]], row: Row) -> Iterator[tuple[Tensor, Tensor]]:
        """What is here and in a row of a text's blocks (place, number), `[blocks, layers, heads, tokens, size]` both.

        Blocks that lie together here come together.
        """
        for place, number, count in runs(blocks):
            tokens = slice(place * BLOCK, (place + count) * BLOCK)
            for known, own in ((self._keys, row.keys), (self._values, row.values)):
                yield known[number : number + count], own[:, :, tokens].unflatten(2, (count, BLOCK)).movedim(2, 0)


def runs(pairs: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """Pairs of which each next one is one more on both sides, together: the first of them, and how many they are."""
    run: tuple[int, int, int] | None = None
    for left, right in pairs:
        if run is not None and (left, right) == (run[0] + run[2], run[1] + run[2]):
            run = (run[0], run[1], run[2] + 1)
            continue
        if run is not None:
            yield run
        run = (left, right, 1)
    if run is not None:
        yield run
