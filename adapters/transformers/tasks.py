"""Whether a model is one that generates text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from ..errors import ConfigError
from .settings import ModelSettings

SERVED = "models that generate text are served here (…ForCausalLM, …LMHeadModel, …ForConditionalGeneration of text)"


def check_task(settings: ModelSettings, config: Mapping[str, Any]) -> None:
    """Raise ConfigError if a model with this config.json does not generate text, or needs code that may not run."""
    kind = config.get("model_type")
    if config.get("auto_map") and settings.trust_remote_code:
        return
    causal, translating = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
    is_known = kind in causal or kind in translating
    if not is_known and config.get("auto_map"):
        raise ConfigError(
            f"{settings.source} brings its own program code ({kind}); read it, and if you trust it "
            "set trust_remote_code: true"
        )
    architectures = config.get("architectures") or []
    name = architectures[0] if architectures else f"model of the type {kind!r}"
    if not is_known:
        raise ConfigError(f"{settings.source} is a {name}, which is not served; {SERVED}")
    if architectures and not {*causal.values(), *translating.values()} & set(architectures):
        raise ConfigError(f"{settings.source} is a {name}, which does not generate text; {SERVED}")
