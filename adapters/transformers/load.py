"""Hub or folder -> model and tokenizer, on the right device and in the right precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ..base import ModelState, Sampling
from .detokenize import Vocabulary
from .response_formats import ResponseFormat, response_format
from .settings import ModelSettings

Report = Callable[[ModelState], None]


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to run; lengths in tokens. `defaults` are what its own generation config says of sampling."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    dtype: torch.dtype
    context_length: int
    eos_token_ids: frozenset[int]
    defaults: Sampling
    is_encoder_decoder: bool

    @property
    def vocab_size(self) -> int:
        """The number of logits; may be larger than the tokenizer's vocabulary."""
        return int(self.model.config.get_text_config().vocab_size)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """What each token stands for."""
        return Vocabulary(self.tokenizer)

    @cached_property
    def response_format(self) -> ResponseFormat | None:
        """How its chat answers mark thinking and tool calls; None if they are plain text."""
        return response_format(self.tokenizer, self.vocabulary)


def load(settings: ModelSettings, report: Report) -> LoadedModel:
    """Load a model; `report` is told how far it is. Raises ConfigError or ModelUnavailable with what to do about it."""
    report(ModelState("loading", f"reading the configuration of {settings.source}"))
    folder = Path(settings.source)
    config = AutoConfig.from_pretrained(folder)
    report(ModelState("loading", f"loading the weights of {settings.source}"))
    automatic = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model = automatic.from_pretrained(folder, config=config, dtype="auto")
    model.eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return LoadedModel(
        name=settings.name,
        model=model,
        tokenizer=tokenizer,
        device=model.device,
        dtype=model.dtype,
        context_length=_context_length(config, settings),
        eos_token_ids=_eos_token_ids(model.generation_config, tokenizer),
        defaults=_defaults(model.generation_config, config),
        is_encoder_decoder=bool(config.is_encoder_decoder),
    )


def _context_length(config: PreTrainedConfig, settings: ModelSettings) -> int:
    own = int(config.get_text_config().max_position_embeddings)
    return min(own, settings.max_model_len or own)


def _eos_token_ids(generation: GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    given = generation.eos_token_id
    ids = given if isinstance(given, list) else [given]
    return frozenset(token for token in [*ids, tokenizer.eos_token_id] if token is not None)


def _defaults(generation: GenerationConfig, config: PreTrainedConfig) -> Sampling:
    return Sampling(
        max_tokens=generation.max_new_tokens or (generation.max_length if config.is_encoder_decoder else None),
        temperature=0.0 if generation.do_sample is False else generation.temperature,
        top_p=generation.top_p,
        top_k=generation.top_k,
        min_p=generation.min_p,
        repetition_penalty=generation.repetition_penalty,
    )
