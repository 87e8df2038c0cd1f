"""The forward of models like Llama, written out: the same numbers in fewer steps.

For a single sequence of a small model, calling modules costs more than computing. Here the projections of q, k and v
are one product, and so are gate and up. `computer.py` holds it to the modules' own numbers at load.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .batch import Batch
from .kernels import Kernels, PlainSteps, Steps
from .layers import Layer, Product, for_kernels
from .load import LoadedModel

BLOCK = 1024
"""Tokens that are computed at a time, so that what comes between takes little memory, which is there already."""

FAMILIES = {"llama", "mistral", "qwen2", "qwen3", "smollm3"}
"""Model types that are alike but for biases, norms of q and k, windows, and layers without rotary embeddings."""


class LlamaForward:
    """Computes a batch from a model's weights."""

    def __init__(self, loaded: LoadedModel, kernels: Kernels | None = None) -> None:
        self._steps: Steps = kernels or PlainSteps()
        model: Any = loaded.model
        config = model.config
        self._embedding: Tensor = model.model.embed_tokens.weight.detach()
        self._heads, self._kv_heads = config.num_attention_heads, config.num_key_value_heads
        self._size: int = model.model.layers[0].self_attn.head_dim
        self._eps: float = config.rms_norm_eps
        self._layers = [Layer.of(layer, config, kernels) for layer in model.model.layers]
        self._norm: Tensor = model.model.norm.weight.detach()
        self._head = Product(model.lm_head, kernels=kernels)
        self._rotary = model.model.rotary_emb
        self._scaling = self._size**-0.5
        self._kernels = kernels
        self._for_kernels = for_kernels(self._layers, self._heads, self._kv_heads, self._size, self._eps, self._scaling)

    def __call__(self, batch: Batch) -> Tensor:
        """Logits `[wanted tokens, vocabulary]`."""
        hidden = F.embedding(batch.token_ids, self._embedding)
        cos, sin = self._angles(hidden, batch.positions)
        hidden = self._through_layers(hidden, cos, sin, batch)
        if batch.wanted is not None:
            hidden = hidden[batch.wanted]
        return self._head(self._normed(hidden, self._norm))

    def _through_layers(self, hidden: Tensor, cos: Tensor, sin: Tensor, batch: Batch) -> Tensor:
        kernels = self._kernels
        if kernels is None or len(batch) > kernels.most_projected:
            return self._layer_by_layer(hidden, cos, sin, batch)
        if self._for_kernels is not None and batch.singles is not None:
            return kernels.decoded(self._for_kernels, hidden, cos, sin, batch.singles.places)
        with kernels.together():
            return self._layer_by_layer(hidden, cos, sin, batch)

    def _layer_by_layer(self, hidden: Tensor, cos: Tensor, sin: Tensor, batch: Batch) -> Tensor:
        for index, layer in enumerate(self._layers):
            queries, keys, values = _in_blocks(partial(self._states, layer), hidden, cos, sin)
            attended = batch.attend(index, queries, keys, values, self._scaling, layer.window).flatten(1)
            (hidden,) = _in_blocks(partial(self._rest, layer), attended, hidden)
        return hidden

    def undo(self) -> None:
        """Let the modules have their weights again."""
        for layer in self._layers:
            for product in (layer.qkv, layer.out, layer.gate_up, layer.down):
                product.undo()
        self._head.undo()

    def _states(self, layer: Layer, hidden: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, `[tokens, heads, size]`."""
        heads, kv_heads = self._heads, self._kv_heads
        qkv = layer.qkv(self._normed(hidden, layer.norm)).view(len(hidden), heads + 2 * kv_heads, self._size)
        rotated, values = qkv[:, : heads + kv_heads], qkv[:, heads + kv_heads :]
        if layer.q_norm is not None and layer.k_norm is not None:
            queries, keys = rotated[:, :heads], rotated[:, heads:]
            rotated = rotated.new_empty(rotated.shape)
            self._normed(queries, layer.q_norm, rotated[:, :heads])
            self._normed(keys, layer.k_norm, rotated[:, heads:])
        if layer.rotates:
            rotated = self._steps.rotated(rotated, cos, sin)
        return rotated[:, :heads], rotated[:, heads:], values

    def _rest(self, layer: Layer, attended: Tensor, hidden: Tensor) -> tuple[Tensor]:
        """What a layer gives, `[tokens, hidden]`, after attention."""
        hidden = layer.out.plus(attended, hidden)
        normed = self._normed(hidden, layer.mlp_norm)
        return (layer.down.plus(self._steps.gated(layer.gate_up(normed)), hidden),)

    def _angles(self, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines `[tokens, 1, size]`; the sines of the first half are negative, as its turn needs them."""
        cos, sin = self._rotary(hidden, positions[None])
        half = self._size // 2
        return cos[0][:, None], torch.cat([-sin[0, :, :half], sin[0, :, half:]], -1)[:, None]

    def _normed(self, hidden: Tensor, weight: Tensor, out: Tensor | None = None) -> Tensor:
        return self._steps.normed(hidden, weight, self._eps, out)


def _in_blocks(function: Callable[..., tuple[Tensor, ...]], *inputs: Tensor) -> Any:
    """What a function that treats each token by itself makes of the inputs, all of as many tokens."""
    if len(inputs[0]) <= BLOCK:
        return function(*inputs)
    blocks = [function(*block) for block in zip(*(each.split(BLOCK) for each in inputs), strict=True)]
    return tuple(map(torch.cat, zip(*blocks, strict=True)))


def is_like_llama(loaded: LoadedModel) -> bool:
    """Whether a model may be computed this way: of a known type, its weights in plain layers."""
    config: Any = loaded.model.config
    layers = [module for module in loaded.model.modules() if isinstance(module, nn.Linear)]
    return (
        config.model_type in FAMILIES
        and config.hidden_act in ("silu", "swish")
        and all(type(layer) is nn.Linear for layer in layers)
        and len(layers) == 7 * config.num_hidden_layers + 1
    )
