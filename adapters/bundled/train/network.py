"""The network as it is trained: Llama's mathematics with fused projections, and its way to transformers' names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaConfig

ROTARY_BASE = 10000.0


class Block(nn.Module):
    """One Llama layer with query, key and value, and gate and up, each as one matrix."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        hidden, inner = config.hidden_size, config.intermediate_size
        self.heads = config.num_attention_heads
        self.head_size = hidden // self.heads
        self.epsilon = config.rms_norm_eps
        self.attention_norm = nn.Parameter(torch.ones(hidden))
        self.query_key_value = nn.Linear(hidden, 3 * hidden, bias=False)
        self.output = nn.Linear(hidden, hidden, bias=False)
        self.feed_forward_norm = nn.Parameter(torch.ones(hidden))
        self.gate_up = nn.Linear(hidden, 2 * inner, bias=False)
        self.down = nn.Linear(inner, hidden, bias=False)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor, hidden_pairs: Tensor) -> Tensor:
        """`x` is [batch, length, hidden], `cosine` and `sine` [length, head size]; `hidden_pairs` are not attended."""
        batch, length, hidden = x.shape
        normed = functional.rms_norm(x, (hidden,), self.attention_norm, self.epsilon)
        qkv = self.query_key_value(normed).view(batch, length, 3, self.heads, self.head_size)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        query, key = rotate(query, cosine, sine), rotate(key, cosine, sine)
        scores = (query * self.head_size**-0.5) @ key.transpose(-1, -2)
        attention = torch.softmax(scores.masked_fill(hidden_pairs, -1e4).float(), dim=-1).to(x.dtype)
        mixed = attention @ value
        x = x + self.output(mixed.transpose(1, 2).reshape(batch, length, hidden))
        normed = functional.rms_norm(x, (hidden,), self.feed_forward_norm, self.epsilon)
        gate, up = self.gate_up(normed).chunk(2, dim=-1)
        return cast(Tensor, x + self.down(functional.silu(gate) * up))


class Network(nn.Module):
    """A Llama with tied embeddings; `forward` gives the hidden states before the output matrix.

    `pairs` are tokens that are one word with a space in front and without. The embedding of the second is that of the
    first and a step that all pairs share: what is learned of one is known of the other, and to say the other form of a
    word that was read is to copy it.
    """

    def __init__(self, config: LlamaConfig, pairs: Sequence[tuple[int, int]] = ()) -> None:
        super().__init__()
        self.pairs: Tensor
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.Parameter(torch.ones(config.hidden_size))
        self.without_space = nn.Parameter(torch.zeros(config.hidden_size))
        self.register_buffer("pairs", torch.tensor(pairs, dtype=torch.long).reshape(-1, 2), persistent=False)
        self._initialize()

    def matrix(self) -> Tensor:
        """The embeddings of all tokens, `[vocabulary, hidden]`."""
        spaced, bare = self.pairs.unbind(dim=1)
        weight = self.embedding.weight
        return weight.index_copy(0, bare, weight[spaced] + self.without_space)

    def forward(self, tokens: Tensor, examples: Tensor) -> Tensor:
        """Hidden states [batch, length, hidden]; a token sees the ones before it that have its number in `examples`."""
        return self._hidden(tokens, examples, self.matrix())

    def _hidden(self, tokens: Tensor, examples: Tensor, matrix: Tensor) -> Tensor:
        x = functional.embedding(tokens, matrix)
        length = tokens.shape[1]
        cosine, sine = rotary(length, self.config, x.device, x.dtype)
        later = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        hidden_pairs = (later | (examples[:, :, None] != examples[:, None, :]))[:, None]
        for block in self.blocks:
            x = block(x, cosine, sine, hidden_pairs)
        return functional.rms_norm(x, (x.shape[-1],), self.norm, self.config.rms_norm_eps)

    def losses(self, tokens: Tensor, examples: Tensor) -> tuple[Tensor, Tensor]:
        """Each next token's loss, and whether it is the likeliest one; both [batch, length - 1]."""
        matrix = self.matrix()
        hidden = self._hidden(tokens, examples, matrix)[:, :-1]
        logits = functional.linear(hidden, matrix).float()
        targets = tokens[:, 1:]
        losses = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        return losses.view_as(targets), logits.argmax(dim=-1) == targets

    def loss(self, tokens: Tensor, weights: Tensor, examples: Tensor) -> Tensor:
        """The weighted mean of the next-token losses; a weight belongs to the token it stands at."""
        matrix = self.matrix()
        hidden = self._hidden(tokens, examples, matrix)[:, :-1]
        logits = functional.linear(hidden, matrix).float().flatten(0, 1)
        losses = functional.cross_entropy(logits, tokens[:, 1:].flatten(), reduction="none")
        return (losses * weights[:, 1:].flatten()).sum() / weights.sum()

    def _initialize(self) -> None:
        deep = (2 * len(self.blocks)) ** -0.5
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                scale = deep if name.endswith(("output.weight", "down.weight")) else 1.0
                nn.init.normal_(parameter, std=0.02 if "embedding" in name else scale * parameter.shape[1] ** -0.5)


def rotary(length: int, config: LlamaConfig, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines [length, head size] of rotary positions, as transformers' Llama computes them."""
    size = config.hidden_size // config.num_attention_heads
    theta = ROTARY_BASE
    frequencies = theta ** (-torch.arange(0, size, 2, device=device, dtype=torch.float32) / size)
    angles = torch.outer(torch.arange(length, device=device, dtype=torch.float32), frequencies).repeat(1, 2)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn each pair (i, i + half) of the last dimension by its position's angle."""
    left, right = x.chunk(2, dim=-1)
    return x * cosine + torch.cat((-right, left), dim=-1) * sine


def to_transformers(network: Network) -> dict[str, Tensor]:
    """The weights under the names of transformers' `LlamaForCausalLM`."""
    weights = {"model.embed_tokens.weight": network.matrix(), "model.norm.weight": network.norm}
    for index, block in enumerate(cast("list[Block]", list(network.blocks))):
        names = ("q_proj", "k_proj", "v_proj")
        prefix = f"model.layers.{index}."
        for name, part in zip(names, block.query_key_value.weight.chunk(3), strict=True):
            weights[f"{prefix}self_attn.{name}.weight"] = part
        for name, part in zip(("gate_proj", "up_proj"), block.gate_up.weight.chunk(2), strict=True):
            weights[f"{prefix}mlp.{name}.weight"] = part
        weights[f"{prefix}self_attn.o_proj.weight"] = block.output.weight
        weights[f"{prefix}mlp.down_proj.weight"] = block.down.weight
        weights[f"{prefix}input_layernorm.weight"] = block.attention_norm
        weights[f"{prefix}post_attention_layernorm.weight"] = block.feed_forward_norm
    return {name: weight.detach().contiguous().clone() for name, weight in weights.items()}
