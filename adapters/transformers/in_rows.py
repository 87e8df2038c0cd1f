"""Many sequences in one forward: see `rows.py`, `batch.py` and `prefix.py`."""

from __future__ import annotations

from collections.abc import Sequence as Many
from typing import NamedTuple

import torch
from torch import Tensor

from .batch import Batch, Means, Part, Singles
from .graphs import Forward, RecordedSteps
from .kernels import Kernels
from .linear import packs, rounded
from .memory import KVShape, Memory
from .placement import is_out_of_memory
from .prefix import PrefixCache
from .rows import Row, Slab, Slabs, row_length
from .sequences import Computed, Piece, Sequence
from .team import Team
from .tensors import rows_at

ROWS_SHARE = 0.75
"""Of the KV cache's memory, for rows; what is left is for known beginnings of texts."""

SMALL_READ = 2_000_000
"""Bytes of keys and values that attention has read in a layer before a second thread is awake."""


class Products(NamedTuple):
    """What a layer's products cost: up to `free` tokens as much as one, as long as it takes to read the weights.

    One of fewer than `small` multiplications is done before a second thread is awake.
    """

    free: int
    small: float


ONEDNN = Products(free=85, small=7.5e7)
KERNELS = Products(free=8, small=2e7)
"""A second thread that comes late costs these nothing."""


class Plan(NamedTuple):
    """A step's parts, the sequences that run in the order of their tokens, all tokens, and whose logits are wanted."""

    parts: list[Part | Singles]
    running: list[Sequence]
    token_ids: list[int]
    wanted: list[int]


class InRows:
    """Computes sequences together; `memory` bytes are for their keys and values.

    Kernels compute what lies between products, or else steps that only give running sequences a token are `recorded`.
    """

    can_chunk = True
    can_repeat = True

    def __init__(
        self,
        forward: Forward,
        shape: KVShape,
        memory: int,
        *,
        weights: int,
        kernels: Kernels | None = None,
        recorded: RecordedSteps | None = None,
    ) -> None:
        self.memory_tokens = int(memory * ROWS_SHARE) // shape.token_bytes
        self.forward, self.kernels, self.recorded = forward, kernels, recorded
        self._shape = shape
        self.memory = Memory(shape, self.memory_tokens)
        self._slabs = Slabs(self.memory)
        self._prefixes = PrefixCache(Memory(shape), memory - int(memory * ROWS_SHARE))
        self._threads = torch.get_num_threads()
        self._means = Means(kernels=kernels)
        self._means_for_much = self._means
        if self._threads > 1 and shape.device.type == "cpu":
            team = None if kernels is not None else Team(self._threads)
            self._means_for_much = Means(self._threads, team, kernels)
        self._weights = weights
        self._rounds = packs(shape.dtype, shape.device)
        self._most_exact = 0 if kernels is None else kernels.most_projected
        self._owners: dict[Row, Sequence] = {}

    def start(self, sequence: Sequence) -> None:
        row = Row.alone(self.memory, row_length(len(sequence.tokens) + 1))
        if not sequence.scores_prompt:
            sequence.computed = self._prefixes.load(sequence.tokens[:-1], row)
        self._own(sequence, row)

    def step(self, running: Many[Sequence], pieces: Many[Piece]) -> Computed:
        try:
            return self._step(running, pieces)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            # Nothing has moved on, so that the others can try again.
            return Computed((), None, failed=[(pieces[-1].sequence if pieces else running[-1], error)])

    def _step(self, running: Many[Sequence], pieces: Many[Piece]) -> Computed:
        for sequence in running:
            row = self._row(sequence)
            if row.filled == row.slab.length:
                self._move(sequence, row)
        plan = self._plan(running, pieces)
        logits = None
        if self.recorded is not None and not pieces:
            logits = self.recorded(list(self._slabs), plan.token_ids)
        return self._moved_on(plan, pieces, self._computed(plan) if logits is None else logits)

    def _computed(self, plan: Plan) -> Tensor:
        """The logits that are wanted."""
        read = sum(part.attended for part in plan.parts) * self._shape.token_bytes / self._shape.layers
        means = self._means_for_much if read > SMALL_READ else self._means
        count = len(plan.token_ids)
        are_few = count <= self._most_exact
        size = rounded(count) if self._rounds and not are_few else count
        batch = Batch.of(plan.parts, plan.token_ids, plan.wanted or [count - 1], means, size, self._shape.device)
        products = KERNELS if are_few else ONEDNN
        product = self._weights / (4 * self._shape.layers + 1) * max(len(batch), products.free)
        is_much = product > products.small or (are_few and read > SMALL_READ)
        torch.set_num_threads(self._threads if is_much else 1)
        return self.forward(batch)

    def repeat(self, sequence: Sequence) -> None:
        self._row(sequence).filled -= 1
        sequence.computed -= 1

    def fork(self, sequence: Sequence, other: Sequence) -> None:
        row = self._row(sequence)
        self._own(other, row.copy_to(self._slab(row.filled + 1)))
        other.computed = sequence.computed

    def release(self, sequence: Sequence) -> None:
        row = self._row(sequence)
        self._prefixes.keep(sequence.tokens, row)
        row.release()
        del self._owners[row]
        sequence.place, sequence.computed = None, 0

    def rest(self) -> None:
        self.memory.forget()

    def _plan(self, running: Many[Sequence], pieces: Many[Piece]) -> Plan:
        plan = Plan([], [], [], [])
        if self.kernels is not None:
            plan.running.extend(running)
            if running:
                plan.parts.append(Singles([self._row(sequence) for sequence in running], 0, self.kernels))
        else:
            for slab in self._slabs:
                plan.parts.append(Part(slab, slab.taken, 1, len(plan.running)))
                plan.running.extend([self._owners[row] for row in slab.taken])
        plan.token_ids.extend([sequence.tokens[-1] for sequence in plan.running])
        plan.wanted.extend(range(len(plan.running)))
        for sequence, count in pieces:
            row, start = self._row(sequence), len(plan.token_ids)
            plan.parts.append(Part(row.slab, [row], count, start))
            plan.token_ids.extend(sequence.tokens[sequence.computed : sequence.computed + count])
            if sequence.scores_prompt:
                plan.wanted.extend(range(start, start + count))
            elif count == sequence.left:
                plan.wanted.append(start + count - 1)
        return plan

    def _moved_on(self, plan: Plan, pieces: Many[Piece], logits: Tensor) -> Computed:
        """Note what is in the cache now; whose logits are whose."""
        done, at = list(plan.running), len(plan.running)
        lasts = list(range(at))
        scores: list[tuple[Sequence, Tensor]] = []
        failed: list[tuple[Sequence, Exception]] = []
        for sequence in plan.running:
            self._row(sequence).filled += 1
            sequence.computed += 1
        for sequence, count in pieces:
            self._row(sequence).filled += count
            sequence.computed += count
            if sequence.scores_prompt:
                scores.append((sequence, logits[at : at + count]))
                at += count
            elif sequence.left == 0:
                at += 1
            try:
                self._keep(sequence)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                failed.append((sequence, error))
                continue
            if sequence.left == 0:
                done.append(sequence)
                lasts.append(at - 1)
        return Computed(done, rows_at(logits, lasts), scores, failed)

    def _keep(self, sequence: Sequence) -> None:
        """Remember what was read of a prompt, and at its end let it join those that run."""
        row = self._row(sequence)
        self._prefixes.keep(sequence.tokens, row)
        if sequence.left == 0 and self.kernels is None:
            self._move(sequence, row)

    def _move(self, sequence: Sequence, row: Row) -> None:
        """Put a sequence where there is room for its next token."""
        self._own(sequence, row.copy_to(self._slab(row.filled + 1)))
        row.release()
        del self._owners[row]

    def _slab(self, tokens: int) -> Slab:
        """Where a running sequence of so many tokens may be: alone for kernels, else with others of its length."""
        return self._slabs.of(tokens) if self.kernels is None else Slab(self.memory, row_length(tokens), rows=1)

    def _own(self, sequence: Sequence, row: Row) -> None:
        sequence.place = row
        self._owners[row] = sequence

    @staticmethod
    def _row(sequence: Sequence) -> Row:
        assert isinstance(sequence.place, Row)
        return sequence.place
