"""Known beginnings: what is found is what was kept, and the oldest is forgotten first."""

from __future__ import annotations

import random

import pytest
import torch

from modelcompose.adapters.transformers.memory import KVShape, Memory
from modelcompose.adapters.transformers.prefix import BLOCK, PrefixBlocks, PrefixCache, runs
from modelcompose.adapters.transformers.rows import Row

SHAPE = KVShape(3, 2, 4, 6, torch.float32, torch.device("cpu"))
MEMORY = Memory(SHAPE)


def text(*blocks: int, more: int = 0) -> list[int]:
    return [block for block in blocks for _ in range(BLOCK)] + [99] * more


def test_only_whole_blocks_from_the_beginning_are_known() -> None:
    blocks = PrefixBlocks(10)
    assert blocks.add(text(1, 2, 3, more=5)) == [(0, 0), (1, 1), (2, 2)]
    assert blocks.add(text(1, 2, 4)) == [(2, 3)]
    assert blocks.find(text(1, 2, 3, 4)) == [0, 1, 2]
    assert blocks.find(text(1, 2)[:-1]) == [0]
    assert blocks.find(text(2, 3)) == []


def test_what_was_not_used_for_longest_is_forgotten_from_its_end() -> None:
    blocks = PrefixBlocks(4)
    blocks.add(text(1, 2))
    blocks.add(text(3, 4))
    blocks.find(text(1, 2))
    blocks.add(text(5))
    assert [len(blocks.find(text(*each))) for each in ((1, 2), (3, 4), (5,))] == [2, 1, 1]
    assert len(blocks.add(text(*range(10, 20)))) == 4
    assert len(blocks) == 4


def test_a_random_history_never_finds_what_is_not_there() -> None:
    chance = random.Random(1)
    blocks, content = PrefixBlocks(12), dict[int, tuple[int, ...]]()
    for _ in range(3000):
        tokens = text(*(chance.randrange(3) for _ in range(chance.randrange(1, 7))))
        for place, number in blocks.add(tokens):
            content[number] = tuple(tokens[: (place + 1) * BLOCK])
        asked = text(*(chance.randrange(3) for _ in range(5)))
        for place, number in enumerate(blocks.find(asked)):
            assert content[number] == tuple(asked[: (place + 1) * BLOCK])
        assert len(blocks) <= 12


def test_blocks_of_a_text_lie_together_also_in_the_place_of_forgotten_ones() -> None:
    blocks = PrefixBlocks(8)
    blocks.add(text(1, 2, 3, 4))
    blocks.add(text(5, 6, 7, 8))
    blocks.find(text(5, 6, 7, 8))
    assert blocks.add(text(9, 10, 11)) == [(0, 1), (1, 2), (2, 3)]
    assert blocks.find(text(1, 2)) == [0]


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([], []),
        ([(0, 5)], [(0, 5, 1)]),
        ([(0, 5), (1, 6), (2, 7)], [(0, 5, 3)]),
        ([(0, 5), (1, 4), (2, 5), (4, 7)], [(0, 5, 1), (1, 4, 2), (4, 7, 1)]),
    ],
)
def test_what_goes_on_on_both_sides_is_one_run(
    pairs: list[tuple[int, int]], expected: list[tuple[int, int, int]]
) -> None:
    assert list(runs(pairs)) == expected


def filled_row(tokens: int, seed: int) -> Row:
    row = Row.alone(MEMORY, 256)
    torch.manual_seed(seed)
    row.keys.copy_(torch.randn(row.keys.shape))
    row.values.copy_(torch.randn(row.values.shape))
    row.filled = tokens
    return row


def test_a_row_is_filled_with_what_another_had() -> None:
    cache = PrefixCache(MEMORY, 16 * BLOCK * SHAPE.token_bytes)
    first = filled_row(100, 1)
    cache.keep(text(1, 2, 3, more=4), first)
    second = filled_row(70, 2)
    cache.keep(text(1, 5, more=6), second)
    assert cache.tokens == 4 * BLOCK
    row = Row.alone(MEMORY, 256)
    assert cache.load(text(1, 5, 3), row) == row.filled == 2 * BLOCK
    assert torch.equal(row.keys[:, :, :BLOCK], first.keys[:, :, :BLOCK])
    assert torch.equal(row.values[:, :, BLOCK : 2 * BLOCK], second.values[:, :, BLOCK : 2 * BLOCK])
    assert cache.load(text(8), Row.alone(MEMORY, 256)) == 0


def test_without_memory_nothing_is_known() -> None:
    cache = PrefixCache(MEMORY, 0)
    cache.keep(text(1, 2), filled_row(64, 1))
    assert cache.load(text(1, 2), Row.alone(MEMORY, 256)) == 0
