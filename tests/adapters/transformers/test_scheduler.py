"""Whose turn it is, with a model that only counts: thousands of random steps, and every rule checked after each."""

from __future__ import annotations

import random
from typing import Any

import pytest

from modelcompose.adapters.base import GenerationRequest
from modelcompose.adapters.transformers.prompt import EncodedPrompt
from modelcompose.adapters.transformers.rows import row_length
from modelcompose.adapters.transformers.scheduler import Scheduler
from modelcompose.adapters.transformers.sequences import Piece, Request, Sequence

LONGEST = 2000
BUDGET = 200
UNUSED: Any = None


def sequence_of(
    id: int, length: int, limit: int, *, priority: int = 0, prompt: EncodedPrompt | None = None
) -> Sequence:
    prompt = prompt or EncodedPrompt((7,) * length, "", "prompt")
    request = Request(id, GenerationRequest(model="m"), length, priority)
    sequence = Sequence(request, 0, prompt, list(prompt.token_ids), limit, UNUSED, UNUSED)
    request.sequences.append(sequence)
    return sequence


class World:
    """Requests that come and go at random, a model that computes what it is told, and what has to hold."""

    def __init__(self, seed: int, *, memory: int, max_running: int, can_chunk: bool = True) -> None:
        self.random = random.Random(seed)
        self.scheduler = Scheduler(max_running, memory, row_length, can_chunk=can_chunk)
        self.memory, self.max_running, self.can_chunk = memory, max_running, can_chunk
        self.alive: list[Sequence] = []
        self.finished = self.given_up = self.arrived = 0

    def arrive(self) -> None:
        self.arrived += 1
        length = self.random.choice((1, 5, 40, 255, 256, 300, 1500))
        limit = self.random.randint(1, LONGEST - length)
        new = [sequence_of(self.arrived, length, limit, priority=self.random.choice((0, 0, 0, 1, -1)))]
        if self.random.random() < 0.2:
            new += [sequence_of(self.arrived, length, limit, prompt=new[0].prompt) for _ in range(2)]
        self.alive += new
        for sequence in new:
            self.scheduler.add(sequence)

    def cancel(self) -> None:
        if self.alive:
            self.end(self.random.choice(self.alive))

    def end(self, sequence: Sequence) -> None:
        self.scheduler.remove(sequence)
        self.alive.remove(sequence)

    def step(self) -> None:
        before = {id(sequence) for sequence in self.scheduler.waiting}
        first = self.scheduler.waiting[:1]
        for sequence in self.scheduler.admit():
            assert id(sequence) in before
        assert not self.scheduler.waiting or self.scheduler.waiting[:1] != first or self.is_full(first[0])
        for sequence in self.scheduler.make_room():
            sequence.place, sequence.computed = None, 0
            self.given_up += 1
        self.check()
        running = list(self.scheduler.running)
        pieces = list(self.scheduler.pieces(BUDGET, self.begin))
        self.check_pieces(pieces)
        for sequence in running:
            assert sequence.left == 1
            self.compute(sequence, 1)
        for sequence, length in pieces:
            self.compute(sequence, length)
        self.check()

    def begin(self, sequence: Sequence) -> None:
        assert sequence.computed == 0
        sequence.place = object()
        # What a cache of known beginnings may find: anything but the last token.
        sequence.computed = self.random.choice((0, 0, len(sequence.tokens) // 2, len(sequence.tokens) - 1))

    def compute(self, sequence: Sequence, length: int) -> None:
        sequence.computed += length
        if sequence.left:
            return
        if sequence in self.scheduler.reading:
            self.scheduler.run(sequence)
        sequence.tokens.append(7)
        sequence.generated += 1
        if sequence.generated >= sequence.limit or self.random.random() < 0.01:
            self.finished += 1
            self.end(sequence)

    def is_full(self, sequence: Sequence) -> bool:
        taken = len(self.scheduler.reading) + len(self.scheduler.running)
        needed = row_length(len(sequence.tokens) + 1)
        return taken >= self.max_running or self.scheduler.held_tokens + needed > self.memory

    def check(self) -> None:
        scheduler = self.scheduler
        everyone = [*scheduler.waiting, *scheduler.reading, *scheduler.running]
        assert len(everyone) == len(set(everyone)) == len(self.alive)
        assert set(everyone) == set(self.alive)
        assert len(scheduler.reading) + len(scheduler.running) <= self.max_running
        assert scheduler.held_tokens <= self.memory
        assert set(scheduler._held) == {*scheduler.reading, *scheduler.running}
        assert all(len(sequence.tokens) - 1 <= scheduler._held[sequence] for sequence in scheduler.running)
        assert [scheduler._order[each] for each in scheduler.waiting] == sorted(
            scheduler._order[each] for each in scheduler.waiting
        )
        assert all(sequence.place is None and sequence.computed == 0 for sequence in scheduler.waiting)

    def check_pieces(self, pieces: list[Piece]) -> None:
        assert bool(pieces) == bool(self.scheduler.reading)
        assert len({piece.sequence for piece in pieces}) == len(pieces)
        for sequence, length in pieces:
            assert 1 <= length <= sequence.left
            assert self.can_chunk or length == sequence.left
        if self.can_chunk:
            assert sum(piece.length for piece in pieces) <= BUDGET


@pytest.mark.parametrize(
    ("memory", "max_running", "can_chunk"),
    [(20_000, 8, True), (4096, 8, True), (3072, 4, True), (6000, 64, True), (20_000, 5, False)],
)
def test_rules_hold_in_every_step_whatever_comes(memory: int, max_running: int, can_chunk: bool) -> None:
    world = World(memory + max_running, memory=memory, max_running=max_running, can_chunk=can_chunk)
    for _ in range(3000):
        if world.random.random() < 0.1:
            world.arrive()
        if world.random.random() < 0.02:
            world.cancel()
        world.step()
    for _ in range(60_000):
        if not world.alive:
            break
        world.step()
    assert not world.alive
    assert world.scheduler.held_tokens == 0
    assert world.finished > 80
    assert memory > 6000 or world.given_up > 0


def test_who_came_first_goes_first_within_priorities() -> None:
    scheduler = Scheduler(2, None, row_length)
    one, two, three, urgent = (sequence_of(id, 5, 9, priority=-(id == 4)) for id in range(1, 5))
    for sequence in (one, two, three, urgent):
        scheduler.add(sequence)
    assert scheduler.admit() == [urgent, one]
    scheduler.remove(urgent)
    assert scheduler.admit() == [two]
    assert scheduler.waiting == [three]


def test_who_came_last_gives_up_its_room_and_gets_it_back() -> None:
    scheduler = Scheduler(8, 700, row_length)
    old, young = sequence_of(1, 200, 500), sequence_of(2, 200, 500)
    for sequence in (old, young):
        scheduler.add(sequence)
        scheduler.admit()
        scheduler.run(sequence)
    old.tokens += [7] * 56
    assert scheduler.make_room() == []
    old.tokens += [7]
    assert scheduler.make_room() == []
    young.tokens += [7] * 57
    assert scheduler.make_room() == [young]
    assert scheduler.admit() == []
    scheduler.remove(old)
    assert scheduler.admit() == [young]
