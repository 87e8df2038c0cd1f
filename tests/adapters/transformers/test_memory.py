from __future__ import annotations

import torch

from modelcompose.adapters.transformers.memory import KVShape, Memory
from modelcompose.adapters.transformers.rows import Row, Slab

SHAPE = KVShape(3, 2, 4, 6, torch.float32, torch.device("cpu"))


def test_a_room_has_keys_and_values_of_its_own_all_zeros() -> None:
    room = Memory(SHAPE).take(2, 256)
    assert room.keys.shape == (3, 2, 2, 256, 4)
    assert room.values.shape == (3, 2, 2, 256, 6)
    room.keys.fill_(1.0)
    assert not room.values.any()
    assert len(room.buffer) == 2 * 256 * SHAPE.token_bytes


def test_what_was_given_back_is_used_again_also_for_rows_of_another_length() -> None:
    memory = Memory(SHAPE, tokens=1024)
    first = memory.take(2, 512)
    memory.give(first)
    assert memory.kept == 1024
    again = memory.take(4, 256)
    assert again.buffer.data_ptr() == first.buffer.data_ptr()
    assert memory.kept == 0


def test_two_rooms_that_are_taken_never_share_memory() -> None:
    memory = Memory(SHAPE, tokens=4096)
    memory.give(memory.take(1, 256))
    rooms = [memory.take(1, 256) for _ in range(3)]
    for number, room in enumerate(rooms):
        room.keys.fill_(number)
        room.values.fill_(number)
    assert all((room.keys == n).all() and (room.values == n).all() for n, room in enumerate(rooms))


def test_what_is_taken_and_kept_together_stays_within_the_limit_the_oldest_goes_first() -> None:
    memory = Memory(SHAPE, tokens=1024)
    rooms = [memory.take(1, length) for length in (256, 512)]
    for room in rooms:
        memory.give(room)
    assert memory.kept == 768
    large = memory.take(2, 256)
    assert memory.kept == 256
    memory.take(2, 256)
    assert memory.kept == 0
    memory.give(large)
    assert memory.kept == 512


def test_nothing_is_kept_without_a_limit_nor_after_forgetting() -> None:
    for memory in (Memory(SHAPE), Memory(SHAPE, tokens=1024)):
        memory.give(memory.take(1, 512))
        memory.forget()
        assert memory.kept == 0


def test_a_slab_that_grows_and_empties_gives_all_of_its_memory_back() -> None:
    memory = Memory(SHAPE, tokens=1 << 14)
    slab = Slab(memory, 256)
    rows = []
    for number in range(5):
        rows.append(Row(slab))
        rows[-1].filled = 10
        rows[-1].keys.fill_(number)
    assert [float(row.keys[0, 0, 9, 0]) for row in rows] == [0, 1, 2, 3, 4]
    for row in rows:
        row.release()
    assert memory.kept == 256 * (1 + 2 + 4 + 8)
    assert len(slab.keys[0]) == 0
