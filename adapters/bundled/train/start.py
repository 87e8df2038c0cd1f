"""Begins a training with a finished model instead of from nothing, also when the vocabulary has changed since."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from .network import Block, Network
from .tokenizer import SPACE


@torch.no_grad()
def begin_with(network: Network, tokenizer: Tokenizer, folder: Path) -> None:
    """Give a network the weights of the model in a folder, as `export` wrote them, by the names of its tokens.

    A token that the model does not know begins as the other form of its word, else it stays as it is. Raises ValueError
    for a model of other sizes.
    """
    weights = load_file(folder / "model.safetensors")
    layers = len({name.split(".")[2] for name in weights if name.startswith("model.layers.")})
    inner, hidden = weights["model.layers.0.mlp.gate_proj.weight"].shape
    config = network.config
    if (layers, hidden, inner) != (config.num_hidden_layers, config.hidden_size, config.intermediate_size):
        raise ValueError(f"the model in {folder} has {layers} layers of sizes {hidden} and {inner}: not those wanted")
    known = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    _begin_embedding(network, tokenizer.get_vocab(), known, weights["model.embed_tokens.weight"])
    network.norm.copy_(weights["model.norm.weight"])
    for index, block in enumerate(cast("list[Block]", list(network.blocks))):
        own = {name.removeprefix(f"model.layers.{index}."): weight for name, weight in weights.items()}
        _begin_block(block, own)


def _begin_block(block: Block, own: dict[str, Tensor]) -> None:
    block.query_key_value.weight.copy_(torch.cat([own[f"self_attn.{name}_proj.weight"] for name in "qkv"]))
    block.gate_up.weight.copy_(torch.cat([own["mlp.gate_proj.weight"], own["mlp.up_proj.weight"]]))
    block.output.weight.copy_(own["self_attn.o_proj.weight"])
    block.down.weight.copy_(own["mlp.down_proj.weight"])
    block.attention_norm.copy_(own["input_layernorm.weight"])
    block.feed_forward_norm.copy_(own["post_attention_layernorm.weight"])


def _begin_embedding(network: Network, wanted: dict[str, int], known: dict[str, int], embedding: Tensor) -> None:
    """Token by token; the step between the two forms of a word is the mean of those in the model."""
    both = [(known[SPACE + word], known[word]) for word in known if len(word) > 1 and SPACE + word in known]
    step = torch.zeros(embedding.shape[1])
    if both:
        spaced, bare = torch.tensor(both).T
        step = (embedding[bare].float() - embedding[spaced].float()).mean(0)
    network.without_space.copy_(step)
    for token, id in wanted.items():
        if token in known:
            network.embedding.weight[id] = embedding[known[token]]
        elif token.startswith(SPACE) and (bare_id := known.get(token.removeprefix(SPACE))) is not None:
            network.embedding.weight[id] = embedding[bare_id] - step
        elif (spaced_id := known.get(SPACE + token)) is not None:
            network.embedding.weight[id] = embedding[spaced_id] + step
