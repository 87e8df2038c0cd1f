"""Linear layers whose weights are laid out for the CPU's matrix units."""

from __future__ import annotations

import ctypes
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .kernels import BLOCK, Kernels, Weights

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


class Packed:
    """A weight `[out, in]` laid out anew, with a bias.

    A product takes 0.6 to 0.8 of `F.linear`'s time then, which lays the weight out each time (640 x 384 to
    7168 x 1024, 1 to 64 tokens). Products of few tokens are left to `kernels` that know the layout.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, kernels: Kernels | None = None) -> None:
        self._packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), TOKENS)
        self._bias = bias
        self._place = _place_in_blocks(weight, self._packed)
        self.use(kernels)

    def use(self, kernels: Kernels | None) -> None:
        self._kernels = kernels
        self.weights: Weights | None = None
        if kernels is not None and kernels.most_projected and self._place is not None:
            self.weights = kernels.weights(self._place, self._packed.shape, self._bias)

    def __call__(self, input: Tensor) -> Tensor:
        if (projected := self._projected(input)) is not None:
            return projected
        output: Tensor = torch.ops.mkldnn._linear_pointwise(input, self._packed, self._bias, "none", [], "")
        return output

    def plus(self, input: Tensor, other: Tensor) -> Tensor:
        """The product and `other`, of the same shape as it."""
        if (projected := self._projected(input, other)) is not None:
            return projected
        output: Tensor = torch.ops.mkldnn._linear_pointwise.binary(input, other, self._packed, self._bias, "add")
        return output

    def _projected(self, input: Tensor, other: Tensor | None = None) -> Tensor | None:
        """The product by kernels; None where it is left to oneDNN."""
        kernels, tokens = self._kernels, input.numel() // input.shape[-1]
        if kernels is None or self.weights is None or tokens > kernels.most_projected:
            return None
        return kernels.projected(input, self.weights, other)

    def unpacked(self) -> Tensor:
        """The weight as it was."""
        return self._packed.to_dense()


def _place_in_blocks(weight: Tensor, packed: Tensor) -> int | None:
    """Where a packed weight lies, if it does so in blocks as `kernels.c` knows them.

    How oneDNN lays weights out is its own affair, so the first and the last block are looked at.
    """
    outputs, inputs = weight.shape
    blocks, pairs = -(-outputs // BLOCK), -(-inputs // 32) * 16
    if inputs % 2 or torch.ops.mkldnn._nbytes(packed) != blocks * pairs * BLOCK * 2 * weight.element_size():
        return None
    place = int(torch.ops.mkldnn.data_ptr(packed))
    for block in {0, blocks - 1}:
        own = weight[block * BLOCK : (block + 1) * BLOCK]
        expected = F.pad(own, (0, 2 * pairs - inputs, 0, BLOCK - len(own))).view(BLOCK, pairs, 2).transpose(0, 1)
        size = pairs * BLOCK * 2 * weight.element_size()
        there = torch.frombuffer((ctypes.c_char * size).from_address(place + block * size), dtype=weight.dtype)
        if not there.view(torch.int16).equal(expected.reshape(-1).view(torch.int16)):
            return None
    return place


class PackedLinear(nn.Linear):
    """A linear layer with a packed weight; `weight` itself is empty."""

    packed: Packed

    def forward(self, input: Tensor) -> Tensor:
        return self.packed(input)


def pack_layers(model: nn.Module, kernels: Kernels | None = None) -> None:
    """Pack the weights of a model's linear layers, where that is possible; an embedding keeps what it shares."""
    for module in model.modules():
        if isinstance(module, PackedLinear):
            module.packed.use(kernels)
        elif type(module) is nn.Linear and can_pack(module.weight):
            packed = Packed(module.weight.detach(), module.bias, kernels)
            module.__class__ = PackedLinear
            assert isinstance(module, PackedLinear)
            module.packed = packed
            module.weight = nn.Parameter(module.weight.new_empty(0), requires_grad=False)
