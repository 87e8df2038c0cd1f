"""Tensors of Python's numbers, and tensors where they are wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def on_device(numbers: Sequence[Any], device: torch.device | None, dtype: torch.dtype = torch.long) -> Tensor:
    """Numbers, or lists of them, as a tensor on a device; a GPU is not waited for."""
    tensor = torch.tensor(numbers, dtype=dtype)
    return tensor if device is None else moved(tensor, device)


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of this process's memory on a device; a GPU is not waited for."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def rows_at(tensor: Tensor, places: Sequence[int]) -> Tensor:
    """The rows of a tensor at these places; the tensor itself where they are all of them in their order."""
    are_all = len(places) == len(tensor) and all(place == row for row, place in enumerate(places))
    return tensor if are_all else tensor.index_select(0, on_device(places, tensor.device))


def put(result: Tensor, out: Tensor | None) -> Tensor:
    """A result, in `out`, if given."""
    return result if out is None else out.copy_(result)
