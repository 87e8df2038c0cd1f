"""Numbers of Python's as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def on_device(numbers: Sequence[Any], device: torch.device | None, dtype: torch.dtype = torch.long) -> Tensor:
    """Numbers, or lists of them, as a tensor on a device; a GPU is not waited for."""
    tensor = torch.tensor(numbers, dtype=dtype)
    if device is None or device.type == "cpu":
        return tensor
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def rows_of(tensor: Tensor, rows: Sequence[int]) -> Tensor:
    """These rows of a tensor, which are in order; the tensor itself where they are all of them."""
    return tensor if len(rows) == len(tensor) else tensor.index_select(0, on_device(rows, tensor.device))
