"""A model's own forward over a batch of rows: transformers' modules, with attention and cache of ours."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from transformers import AttentionInterface, Cache, PreTrainedConfig

from .batch import Batch, attention
from .kernels import Kernels
from .linear import pack_layers
from .load import LoadedModel
from .memory import KVShape

ATTENTION = "modelcompose_rows"
LAYERS = {"full_attention", "sliding_attention"}
ROPES = {"default", "linear", "llama3", "yarn", "proportional"}
"""Rotary embeddings whose numbers for a token depend on nothing but its position."""


class Unfit(Exception):
    """Why a model's sequences cannot be computed in rows."""


class ModuleForward:
    """Calls the model with a batch; its modules are left as they are but for how linear layers keep their weights."""

    def __init__(self, loaded: LoadedModel, kernels: Kernels | None = None) -> None:
        self._model = cast("Any", loaded.model)
        AttentionInterface.register(ATTENTION, attention)
        configs = {
            id(config): config for module in loaded.model.modules() if (config := getattr(module, "config", None))
        }
        self._own = [(config, config._attn_implementation) for config in configs.values()]
        pack_layers(loaded.model, kernels)

    def __call__(self, batch: Batch) -> Tensor:
        """Logits `[wanted tokens, vocabulary]`."""
        for config, _ in self._own:
            config._attn_implementation = ATTENTION
        try:
            return self._logits(batch)
        finally:
            for config, own in self._own:
                config._attn_implementation = own

    def _logits(self, batch: Batch) -> Tensor:
        output = self._model(
            input_ids=batch.token_ids[None],
            position_ids=batch.positions[None],
            past_key_values=PassedOn(),
            use_cache=True,
            logits_to_keep=0 if batch.wanted is None else batch.wanted,
            batch=batch,
        )
        logits: Tensor = output.logits[0]
        return logits

    def undo(self) -> None:
        """Nothing: the model is as it was."""


class PassedOn(Cache):
    """What models take for their cache: gives keys and values to attention as they come, which keeps them itself."""

    def __init__(self) -> None:
        super().__init__(layers=[])

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0


@torch.inference_mode()
def kv_shape(loaded: LoadedModel) -> KVShape:
    """What the cache has to keep of a token, found out with one token; raises Unfit where that is not all there is."""
    model = cast("Any", loaded.model)
    config = model.config.get_text_config(decoder=True)
    _check(loaded, config)
    seen: dict[int, tuple[int, int, int]] = {}

    class Looking(PassedOn):
        def update(
            self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
        ) -> tuple[Tensor, Tensor]:
            seen[layer_idx] = (key_states.shape[1], key_states.shape[-1], value_states.shape[-1])
            return key_states, value_states

    ids = torch.zeros(1, 1, dtype=torch.long, device=loaded.device)
    model(input_ids=ids, position_ids=ids, past_key_values=Looking(), use_cache=True)
    if sorted(seen) != list(range(config.num_hidden_layers)) or len(set(seen.values())) != 1:
        raise Unfit("its layers do not all keep the same")
    heads, key_size, value_size = seen[0]
    return KVShape(len(seen), heads, key_size, value_size, loaded.dtype, loaded.device)


def _check(loaded: LoadedModel, config: PreTrainedConfig) -> None:
    """Raise Unfit where something is known to depend on more than a token's own row."""
    if loaded.is_encoder_decoder:
        raise Unfit("it has an encoder")
    if len(set(getattr(loaded.model, "hf_device_map", {}).values())) > 1:
        raise Unfit("it lies on several devices")
    if not getattr(loaded.model, "_supports_attention_backend", False):
        raise Unfit("its attention is its own")
    if other := set(getattr(config, "layer_types", None) or ()) - LAYERS:
        raise Unfit(f"it has layers of {', '.join(sorted(other))}")
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = [rope, *(value for value in rope.values() if isinstance(value, dict))]
    if other := {str(kind["rope_type"]) for kind in kinds if "rope_type" in kind} - ROPES:
        raise Unfit(f"its rotary embeddings ({', '.join(sorted(other))}) depend on the length of the text")
