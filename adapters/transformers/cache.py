"""The KV cache of one sequence, with room to grow."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer

FIRST_ROOM = 64


class GrowingLayer(DynamicLayer):
    """A cache layer that writes into memory held ready, where transformers' own copies itself whole for every token.

    `keys` and `values` are what is filled of it, `[1, heads, tokens, head size]`.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        old = self.get_seq_length()
        new = old + key_states.shape[-2]
        if not self.is_initialized or new > self._key_room.shape[-2]:
            self._grow(key_states, value_states, old, new)
        self._key_room[:, :, old:new] = key_states
        self._value_room[:, :, old:new] = value_states
        self.keys, self.values = self._key_room[:, :, :new], self._value_room[:, :, :new]
        return self.keys, self.values

    def _grow(self, key_states: Tensor, value_states: Tensor, old: int, new: int) -> None:
        room = max(FIRST_ROOM, new + new // 2)
        key_room = key_states.new_empty(*key_states.shape[:2], room, key_states.shape[-1])
        value_room = value_states.new_empty(*value_states.shape[:2], room, value_states.shape[-1])
        if self.keys is not None and self.values is not None:
            key_room[:, :, :old], value_room[:, :, :old] = self.keys, self.values
        self._key_room, self._value_room = key_room, value_room
        self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True


def new_cache(config: PreTrainedConfig) -> DynamicCache:
    """An empty cache for one sequence of a model; only layers that keep every token are ours."""
    cache = DynamicCache(config=config)
    cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
