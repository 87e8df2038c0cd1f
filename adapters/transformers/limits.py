"""How many tokens a model can take, out of what its configuration says."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig

from ..errors import ConfigError
from .settings import ModelSettings

logger = logging.getLogger(__name__)

# What configurations call it. A sliding window is none of them: a model with one takes texts longer than it.
NAMES = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length", "n_ctx")
# For models that have no limit of their own, such as state space models.
UNLIMITED = 32768
# With these, max_position_embeddings is the length before scaling; with the other kinds it is scaled already.
SCALING = ("linear", "dynamic", "yarn")


def context_length(config: PreTrainedConfig, settings: ModelSettings) -> int:
    """The context length in tokens; raises ConfigError if the settings ask for more than the model has."""
    own = own_context_length(config)
    asked = settings.max_model_len
    if asked is not None and asked < 1:
        raise ConfigError(f"max_model_len is {asked}; it must be 1 or more")
    if own is None:
        length = asked or UNLIMITED
        logger.info("the model names no context length; %d tokens are served", length)
        return length
    if asked is not None and asked > own:
        raise ConfigError(f"max_model_len is {asked}, but {settings.source} takes {own} tokens at most; lower it")
    return asked or own


def own_context_length(config: PreTrainedConfig) -> int | None:
    """What the configuration says, scaling of rotary embeddings included; None if it says nothing."""
    text = config.get_text_config()
    found = (value for name in NAMES if isinstance(value := getattr(text, name, None), int) and value > 0)
    length = next(found, None)
    if length is None:
        return None
    return max([length, *(_scaled(rope, length) for rope in _ropes(text))])


def _ropes(config: PreTrainedConfig) -> list[Mapping[str, Any]]:
    """The parameters of rotary embeddings; some models have several, by type of layer."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    if not isinstance(rope, Mapping):
        return []
    nested = [value for value in rope.values() if isinstance(value, Mapping)]
    return nested or [rope]


def _scaled(rope: Mapping[str, Any], length: int) -> int:
    if rope.get("rope_type", rope.get("type")) not in SCALING or not rope.get("factor"):
        return 0
    return int((rope.get("original_max_position_embeddings") or length) * rope["factor"])
