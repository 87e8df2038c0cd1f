"""Threads that each compute a part of one operation.

PyTorch's own (OpenMP) are slow where an operation is many tiny ones, as attention of one token in each of many rows is:
two of them take 0.7 to 1.1 times as long as one, two of these 0.5 to 0.8 times (two cores, 64 rows of 64 tokens to 16
of 2,000).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor


class Team:
    """`count` threads, the calling one among them."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._others = ThreadPoolExecutor(
            max(1, count - 1), thread_name_prefix="attention", initializer=torch.set_num_threads, initargs=(1,)
        )

    def computed(self, function: Callable[[slice], Tensor], length: int) -> Tensor:
        """What `function` makes of 0 to `length`, along the first dimension; each thread calls it with a slice."""
        borders = [length * number // self.count for number in range(self.count + 1)]
        mine, *others = [slice(*each) for each in pairwise(borders) if each[0] < each[1]]
        waiting = [self._others.submit(_inferred, function, each) for each in others]
        with threads(1):
            done = [function(mine)]
        return torch.cat(done + [each.result() for each in waiting])


def _inferred(function: Callable[[slice], Tensor], part: slice) -> Tensor:
    with torch.inference_mode():
        return function(part)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Inside, PyTorch computes each operation with so many threads of its own."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
