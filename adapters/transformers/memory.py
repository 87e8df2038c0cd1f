"""Memory: of the KV cache's rows, and what the C library does with what a step needs for a moment.

A page that is new to a process costs more than what is computed to fill it: 0.3 ms a megabyte at best on a virtual
machine, and 3 where its host has to find it first; a megabyte that was there before is written in 0.1 ms. So both kinds
are kept for the next step, and given back when nothing is to be done.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

_PRIVATE = {} if sys.platform == "win32" else {"flags": mmap.MAP_ANON | mmap.MAP_PRIVATE}
_LARGE_PAGES = getattr(mmap, "MADV_HUGEPAGE", None)

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h
MEGABYTE = 1 << 20


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


class Room(NamedTuple):
    """Room for rows of one length: `keys` and `values` are `[layers, rows, heads, length, size]`."""

    keys: Tensor
    values: Tensor
    buffer: Tensor


class Memory:
    """Gives rooms for rows, and keeps for the next ones what is given back, up to `tokens` of both in all.

    A room's numbers are zeros or what was there before: numbers at any rate, for what was never written is read,
    though it counts for nothing.
    """

    def __init__(self, shape: KVShape, tokens: int = 0) -> None:
        self.shape = shape
        self._limit = tokens
        self._taken = 0
        self._kept: list[Tensor] = []

    @property
    def kept(self) -> int:
        """How many tokens there is room for in what is kept."""
        return sum(map(self._tokens, self._kept))

    def take(self, rows: int, length: int) -> Room:
        tokens = rows * length
        fitting = [place for place, buffer in enumerate(self._kept) if self._tokens(buffer) == tokens]
        self._taken += tokens
        buffer = self._kept.pop(fitting[-1]) if fitting else self._new(tokens)
        self._forget_beyond_limit()
        shape = self.shape
        keys, values = buffer.view(shape.dtype).split(
            [shape.layers * shape.heads * tokens * size for size in (shape.key_size, shape.value_size)]
        )
        line = (shape.layers, rows, shape.heads, length)
        return Room(keys.view(*line, shape.key_size), values.view(*line, shape.value_size), buffer)

    def give(self, room: Room) -> None:
        """Take a room back that nobody reads any more."""
        self._taken -= self._tokens(room.buffer)
        if room.buffer.device.type == "cpu" and len(room.buffer):
            self._kept.append(room.buffer)
            self._forget_beyond_limit()

    def forget(self) -> None:
        """Keep nothing."""
        self._kept.clear()

    def _forget_beyond_limit(self) -> None:
        while self._kept and self._taken + self.kept > self._limit:
            del self._kept[0]

    def _tokens(self, buffer: Tensor) -> int:
        return len(buffer) // self.shape.token_bytes

    def _new(self, tokens: int) -> Tensor:
        count = tokens * self.shape.token_bytes
        if self.shape.device.type != "cpu" or not count:
            return torch.zeros(count, dtype=torch.uint8, device=self.shape.device)
        # Pages of the system's own take memory only where something is written, and are given back whole: in the heap,
        # among what a step needs for a moment, they would leave gaps.
        pages = mmap.mmap(-1, count, **_PRIVATE)
        if _LARGE_PAGES is not None:
            # To fill long rows for the first time takes half the time then. A system without them says so.
            with suppress(OSError):
                pages.madvise(_LARGE_PAGES)
        return torch.frombuffer(pages, dtype=torch.uint8)


def keep_freed_memory() -> None:
    """Let the heap keep up to half a gigabyte of what is freed; of use with glibc, and without effect elsewhere."""
    if (set_option := _of_libc("mallopt")) is not None:
        give_freed_memory_back()  # what loading the model has left
        set_option(M_MMAP_THRESHOLD, 32 * MEGABYTE)  # the most there is
        set_option(M_TRIM_THRESHOLD, 512 * MEGABYTE)
        set_option(M_TOP_PAD, 16 * MEGABYTE)


def give_freed_memory_back() -> None:
    """Let the system have what the heap keeps."""
    if (trim := _of_libc("malloc_trim")) is not None:
        trim(0)


def _of_libc(name: str) -> Callable[..., int] | None:
    if not sys.platform.startswith("linux"):
        return None
    function: Callable[..., int] | None = getattr(ctypes.CDLL(None), name, None)
    return function
