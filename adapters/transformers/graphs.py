"""Steps that give every running sequence a token, recorded as CUDA graphs: one launch instead of hundreds.

A recorded step computes so many rows of certain slabs, and reads all that changes from step to step on the device:
each row's new token, and its position, which says how far the row is filled, too. Rows that a slab has beyond those
that are taken are computed along, and their logits left out.
"""

from __future__ import annotations

import logging
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .batch import Batch, How
from .rows import Slab
from .tensors import on_device, put

logger = logging.getLogger(__name__)

REPEATS = 4
"""Steps of one shape before it is recorded, which takes as long as a few of them."""

MOST = 64
"""Recorded steps that are kept; each takes some memory of the GPU."""

Key = tuple[tuple[int, int, int, int], ...]
"""For each slab where it is, its rows and their length, and how many of them are computed."""

Run = Callable[[], Tensor]
Forward = Callable[[Batch], Tensor]
Record = Callable[[Run], Run]
"""Does what a function does, and gives what does it again; that may overwrite the result of the last time."""


class FixedPart:
    """A token each for the first `rows` rows of a slab; the batch's `positions` `[tokens]` are on the device."""

    def __init__(self, slab: Slab, rows: int, start: int, positions: Tensor) -> None:
        self.start, self.end = start, start + rows
        self._slab = slab
        self._rows = rows
        self._positions = positions[self.start : self.end]
        self._masks: dict[int | None, Tensor] = {}

    def write(self, layer: int, keys: Tensor, values: Tensor) -> None:
        for room, new in ((self._slab.keys[layer], keys), (self._slab.values[layer], values)):
            room.flatten(0, 2).index_copy_(0, self._slots, new[self.start : self.end].flatten(0, 1))

    def attend(self, layer: int, queries: Tensor, how: How, out: Tensor | None = None) -> Tensor:
        """`[rows, heads, size]`; the heads that share keys attend as if they were tokens, which needs no copies."""
        keys, values = self._slab.keys[layer, : self._rows], self._slab.values[layer, : self._rows]
        grouped = queries.unflatten(1, (keys.shape[1], -1))
        mask = self._mask(how.window, queries.dtype)
        attended = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=mask, scale=how.scaling)
        return put(attended.flatten(1, 2), out)

    @cached_property
    def _slots(self) -> Tensor:
        """Where each row's next token goes, head by head, in a layer's slab seen as one line of vectors."""
        heads, length = self._slab.keys.shape[2:4]
        places = torch.arange(self._rows * heads, device=self._positions.device) * length
        return (places.view(self._rows, heads) + self._positions[:, None]).flatten()

    def _mask(self, window: int | None, dtype: torch.dtype) -> Tensor:
        """What is added to scores `[rows, kv heads, heads of one, length]`."""
        if window not in self._masks:
            places = torch.arange(self._slab.length, device=self._positions.device)
            last = self._positions[:, None]
            counts = places <= last
            if window is not None:
                counts &= places > last - window
            mask = torch.zeros(counts.shape, dtype=dtype, device=counts.device).masked_fill_(~counts, -math.inf)
            self._masks[window] = mask[:, None, None]
        return self._masks[window]


class Recorded(NamedTuple):
    """A step that can be done again: `run` gives logits for the token ids and positions in `inputs` `[2, tokens]`."""

    inputs: Tensor
    run: Run


class RecordedSteps:
    """Records steps that come for the `repeats`-th time, and does them; `record` says how."""

    def __init__(self, forward: Forward, device: torch.device, record: Record, repeats: int = REPEATS) -> None:
        self._forward, self._device, self.repeats = forward, device, repeats
        self._record: Record | None = record
        self._seen: Counter[Key] = Counter()
        self._known: OrderedDict[Key, Recorded] = OrderedDict()

    def __len__(self) -> int:
        """How many steps are recorded."""
        return len(self._known)

    def __call__(self, slabs: Sequence[Slab], token_ids: Sequence[int]) -> Tensor | None:
        """Logits `[rows taken, vocabulary]` after one token for each, slab by slab; None: to be computed otherwise."""
        counts = [computed_rows(slab) for slab in slabs]
        key = tuple(
            (slab.keys.data_ptr(), slab.rows, slab.length, count) for slab, count in zip(slabs, counts, strict=True)
        )
        if key not in self._known and not self._is_due(key):
            return None
        inputs = on_device(self._inputs(slabs, counts, token_ids), self._device)
        if key not in self._known and not self._add(key, slabs, counts, inputs):
            return None
        self._known.move_to_end(key)
        recorded = self._known[key]
        recorded.inputs.copy_(inputs)
        logits = recorded.run()
        starts = [sum(counts[:index]) for index in range(len(counts))]
        own = [logits[start : start + slab.count] for start, slab in zip(starts, slabs, strict=True)]
        return own[0] if len(own) == 1 else torch.cat(own)

    @staticmethod
    def _inputs(slabs: Sequence[Slab], counts: Sequence[int], token_ids: Sequence[int]) -> list[list[int]]:
        left = iter(token_ids)
        ids: list[int] = []
        positions: list[int] = []
        for slab, count in zip(slabs, counts, strict=True):
            filler = [0] * (count - slab.count)
            ids += [next(left) for _ in slab.taken] + filler
            positions += [row.filled for row in slab.taken] + filler
        return [ids, positions]

    def _is_due(self, key: Key) -> bool:
        """Whether a step is to be recorded now that it has come once more."""
        if self._record is None:
            return False
        self._seen[key] += 1
        return self._seen[key] >= self.repeats

    def _add(self, key: Key, slabs: Sequence[Slab], counts: Sequence[int], inputs: Tensor) -> bool:
        """Record a step; whether that went well. If it did not, no further step is recorded."""
        assert self._record is not None
        self._seen.clear()
        try:
            self._known[key] = self._recorded(self._record, slabs, counts, inputs.clone())
        except RuntimeError as error:
            logger.warning("steps are not recorded, which makes answers slower: %s", error)
            self._record = None
            return False
        if len(self._known) > MOST:
            self._known.popitem(last=False)
        return True

    def _recorded(self, record: Record, slabs: Sequence[Slab], counts: Sequence[int], inputs: Tensor) -> Recorded:
        """`inputs` are those of a step that is due: it is computed in order to be recorded, and keeps what it makes."""
        token_ids, positions = inputs
        rooms = list(zip(slabs, counts, strict=True))

        def run() -> Tensor:
            parts: list[FixedPart] = []
            for slab, count in rooms:
                parts.append(FixedPart(slab, count, parts[-1].end if parts else 0, positions))
            return self._forward(Batch(parts, token_ids, positions))

        return Recorded(inputs, record(run))


def computed_rows(slab: Slab) -> int:
    """How many rows are computed for those that are taken: a power of two, so that steps recur; a slab has as many."""
    return 1 << (slab.count - 1).bit_length()


class CudaGraphs:
    """Records on a GPU; all that is recorded shares the memory for what lies between inputs and results.

    The streams are the same ones each time, for libraries keep memory of their own for every stream that they see.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        with torch.cuda.device(device):
            self._pool = torch.cuda.graph_pool_handle()
            self._first, self._recording = torch.cuda.Stream(), torch.cuda.Stream()

    def __call__(self, run: Run) -> Run:
        # The stream is put back here, too, for where a recording fails PyTorch does not do so.
        with torch.cuda.device(self._device), torch.cuda.stream(torch.cuda.current_stream(self._device)):
            self._first.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._first):  # libraries set themselves up in the first run
                run()
            torch.cuda.current_stream().wait_stream(self._first)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool, stream=self._recording):
                result = run()

        def again() -> Tensor:
            graph.replay()
            return result

        return again
