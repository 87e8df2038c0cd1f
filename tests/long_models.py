"""Models of every architecture whose sequences are computed in rows, with room for long texts; weights are random."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_models import byte_level_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

LongModel = Callable[[str], Path]

CONTEXT_LENGTH = 4096
VOCABULARY = 340
LLAMA_LIKE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT_LENGTH,
    "initializer_range": 0.4,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
EXPERTS = {"moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2, "head_dim": 8}

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": LLAMA_LIKE,
    "smollm3": LLAMA_LIKE | {"num_hidden_layers": 4, "no_rope_layer_interval": 4},
    "qwen2": LLAMA_LIKE,
    "qwen3": LLAMA_LIKE | {"head_dim": 8},
    "mistral": LLAMA_LIKE | {"sliding_window": 100},
    "gemma3_text": LLAMA_LIKE | {"num_hidden_layers": 6, "sliding_window": 64, "head_dim": 8},
    "phi": LLAMA_LIKE,
    "olmo": LLAMA_LIKE,
    "olmo2": LLAMA_LIKE,
    "qwen3_moe": LLAMA_LIKE | EXPERTS,
    "gpt_neox": LLAMA_LIKE | {"num_key_value_heads": 4},
    "gpt2": {
        "vocab_size": VOCABULARY,
        "n_positions": CONTEXT_LENGTH,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "initializer_range": 0.4,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 1,
    },
}


@pytest.fixture(scope="session")
def long_model(tmp_path_factory: pytest.TempPathFactory) -> LongModel:
    """The folder of the model of a family, written on first use."""
    import torch

    root = tmp_path_factory.mktemp("long_models")

    def folder_of(family: str) -> Path:
        folder = root / family
        if not folder.exists():
            torch.manual_seed(0)
            config = AutoConfig.for_model(family, **FAMILIES[family])
            AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
            byte_level_tokenizer(["<s>", "</s>"], bos_token="<s>", eos_token="</s>").save_pretrained(folder)
        return folder

    return folder_of
