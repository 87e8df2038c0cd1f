"""Linear layers whose weights are laid out for the CPU's matrix units."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

TOKENS = 16
"""The number of tokens at a time that weights are laid out for; others are as quick."""

MULTIPLES = ((16, 1), (64, 4), (math.inf, 32))
"""Up to how many tokens a step's number of them is rounded up to a multiple of what."""


def can_pack(weight: Tensor) -> bool:
    """Whether a weight is of a kind that oneDNN knows how to lay out."""
    return (
        weight.dtype == torch.bfloat16
        and weight.device.type == "cpu"
        and bool(torch.backends.mkldnn.is_available())
        and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


def packs(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether weights of that type on that device are laid out anew."""
    return can_pack(torch.empty(0, dtype=dtype, device=device))


def rounded(tokens: int) -> int:
    """How many tokens to compute instead of so many.

    For every new number of them oneDNN writes a program for each shape of weights, in 0.4 ms for a few tokens and 1 to
    5 for some hundreds, and keeps them. So there are not to be many.
    """
    multiple = next(multiple for most, multiple in MULTIPLES if tokens <= most)
    return -(-tokens // multiple) * multiple


def pack(weight: Tensor) -> Tensor:
    """A weight `[out, in]` laid out anew; it is of use for `packed_linear` only.

    A product takes 0.6 to 0.8 of `F.linear`'s time then, which lays the weight out each time (640 x 384 to
    7168 x 1024, 1 to 64 tokens).
    """
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), TOKENS)
    return packed


def packed_linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    output: Tensor = torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")
    return output


def packed_linear_plus(input: Tensor, other: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A product with a packed weight, and `other`, of the same shape as it."""
    output: Tensor = torch.ops.mkldnn._linear_pointwise.binary(input, other, weight, bias, "add")
    return output


class PackedLinear(nn.Linear):
    """A linear layer with a packed weight; `weight` itself is empty."""

    packed: Tensor

    def forward(self, input: Tensor) -> Tensor:
        return packed_linear(input, self.packed, self.bias)


def pack_layers(model: nn.Module) -> None:
    """Pack the weights of a model's linear layers, where that is possible; an embedding keeps what it shares."""
    for module in model.modules():
        if type(module) is nn.Linear and can_pack(module.weight):
            module.__class__ = PackedLinear
            assert isinstance(module, PackedLinear)
            module.packed = pack(module.weight.detach())
            module.weight = nn.Parameter(module.weight.new_empty(0), requires_grad=False)
