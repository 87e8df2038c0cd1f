"""Writes the finished model as a folder that transformers loads."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig

from .. import MODEL_FOLDER
from .network import ROTARY_BASE
from .tokenizer import CONTEXT_LENGTH, wrap


def configuration(
    tokenizer: Tokenizer, hidden: int = 256, layers: int = 8, inner: int = 704, heads: int = 4
) -> LlamaConfig:
    """The Llama configuration that goes with a tokenizer."""
    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=hidden,
        num_hidden_layers=layers,
        intermediate_size=inner,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=CONTEXT_LENGTH,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": ROTARY_BASE},
        tie_word_embeddings=True,
        bos_token_id=tokenizer.token_to_id("<|endoftext|>"),
        eos_token_id=tokenizer.token_to_id("<|im_end|>"),
        pad_token_id=tokenizer.token_to_id("<|pad|>"),
        dtype="bfloat16",
    )


def generation_configuration(config: LlamaConfig, tokenizer: Tokenizer) -> GenerationConfig:
    """Sampling defaults: nearly greedy, since the model knows one good answer to most questions."""
    return GenerationConfig(
        do_sample=True,
        temperature=0.3,
        top_p=0.9,
        bos_token_id=config.bos_token_id,
        eos_token_id=[tokenizer.token_to_id("<|im_end|>"), tokenizer.token_to_id("<|endoftext|>")],
        pad_token_id=config.pad_token_id,
    )


def export(weights: dict[str, Tensor], config: LlamaConfig, tokenizer: Tokenizer, folder: Path = MODEL_FOLDER) -> None:
    """Write configuration, weights in bfloat16, tokenizer and chat template."""
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    generation_configuration(config, tokenizer).save_pretrained(folder)
    stored = {name: weight.to("cpu", torch.bfloat16).contiguous() for name, weight in weights.items()}
    temporary = folder / "model.safetensors.new"
    save_file(stored, temporary, metadata={"format": "pt"})
    temporary.replace(folder / "model.safetensors")
    wrap(tokenizer).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    _settle(folder / "tokenizer_config.json")


def write_card(config: LlamaConfig, weights: dict[str, Tensor], training: dict[str, str], folder: Path) -> None:
    """Write the model card without scores; `training` says of tokens, steps, minutes, device and beginning."""
    text = (Path(__file__).parent / "card.md").read_text(encoding="utf-8")
    facts = {
        "parameters": f"{sum(weight.numel() for weight in weights.values()) / 1e6:.1f} million",
        "context": str(CONTEXT_LENGTH),
        "layers": str(config.num_hidden_layers),
        "hidden": str(config.hidden_size),
        "heads": str(config.num_attention_heads),
        "inner": str(config.intermediate_size),
        "vocabulary": str(config.vocab_size),
    }
    for name, value in (facts | training).items():
        text = text.replace(f"{{{name}}}", value)
    (folder / "README.md").write_text(text, encoding="utf-8")


def _settle(path: Path) -> None:
    """Name the tokenizer's class as transformers 4 knows it too, and make the file the same on every run."""
    values = json.loads(path.read_text(encoding="utf-8")) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
