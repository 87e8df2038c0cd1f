"""The layers of models like Llama, with the linear layers that read the same numbers joined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .kernels import Kernels, LayerWeights, ModelWeights, Weights
from .linear import Packed, can_pack


class Product:
    """One or more linear layers as one. They give their weights away to it: packed, or else as views of the whole."""

    def __init__(self, *layers: Any, kernels: Kernels | None = None) -> None:
        biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
        self._layers = layers
        self._bias = torch.cat(biases) if biases else None
        self._weight = (
            torch.cat([layer.weight.detach() for layer in layers]) if len(layers) > 1 else layers[0].weight.detach()
        )
        self.packed: Packed | None = None
        if can_pack(self._weight):
            self.packed = Packed(self._weight, self._bias, kernels)
            self._weight = self._weight[:0].clone()
        self._give_back(self._weight)

    def __call__(self, input: Tensor) -> Tensor:
        return F.linear(input, self._weight, self._bias) if self.packed is None else self.packed(input)

    def plus(self, input: Tensor, other: Tensor) -> Tensor:
        """The product and `other`."""
        return self(input).add_(other) if self.packed is None else self.packed.plus(input, other)

    def undo(self) -> None:
        """Let the layers have their weights again."""
        self._give_back(self._weight if self.packed is None else self.packed.unpacked())

    def _give_back(self, weight: Tensor) -> None:
        start = 0
        for layer in self._layers:
            layer.weight = nn.Parameter(weight[start : start + layer.out_features], requires_grad=False)
            start += layer.out_features


class Layer(NamedTuple):
    """The numbers of one layer."""

    norm: Tensor
    qkv: Product
    q_norm: Tensor | None
    k_norm: Tensor | None
    rotates: bool
    window: int | None
    out: Product
    mlp_norm: Tensor
    gate_up: Product
    down: Product

    @classmethod
    def of(cls, module: Any, config: Any, kernels: Kernels | None) -> Layer:
        """The numbers of a model's layer, whose modules give their weights away."""
        attention, mlp = module.self_attn, module.mlp
        own = getattr(attention, "sliding_window", None)
        window = getattr(config, "sliding_window", None) if config.model_type == "mistral" else own
        return cls(
            norm=module.input_layernorm.weight.detach(),
            qkv=Product(attention.q_proj, attention.k_proj, attention.v_proj, kernels=kernels),
            q_norm=_weight(attention, "q_norm"),
            k_norm=_weight(attention, "k_norm"),
            rotates=bool(getattr(attention, "use_rope", True)),
            window=window,
            out=Product(attention.o_proj, kernels=kernels),
            mlp_norm=module.post_attention_layernorm.weight.detach(),
            gate_up=Product(mlp.gate_proj, mlp.up_proj, kernels=kernels),
            down=Product(mlp.down_proj, kernels=kernels),
        )


def for_kernels(
    layers: Sequence[Layer], heads: int, kv_heads: int, size: int, eps: float, scaling: float
) -> ModelWeights | None:
    """Where the numbers of layers are, which have to outlive it; None where kernels do not know how they lie."""
    found = [_for_kernels(layer) for layer in layers]
    known = [layer for layer in found if layer is not None]
    if len(known) < len(layers):
        return None
    pointers = (LayerWeights * len(known))(*known)
    hidden_size = len(layers[0].norm)
    return ModelWeights(pointers, len(known), hidden_size, heads, kv_heads, size, eps, scaling)


def _for_kernels(layer: Layer) -> LayerWeights | None:
    products = [_weights(product) for product in (layer.qkv, layer.out, layer.gate_up, layer.down)]
    if None in products:
        return None
    norms = [_place(norm) for norm in (layer.norm, layer.q_norm, layer.k_norm, layer.mlp_norm)]
    return LayerWeights(*norms, *products, layer.rotates, layer.window or 0)


def _weights(product: Product) -> Weights | None:
    return None if product.packed is None else product.packed.weights


def _place(numbers: Tensor | None) -> int | None:
    return None if numbers is None else numbers.data_ptr()


def _weight(module: Any, name: str) -> Tensor | None:
    norm = getattr(module, name, None)
    return None if norm is None else norm.weight.detach()
