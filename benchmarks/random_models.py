"""Llama models with random weights in bfloat16, as folders for transformers and vLLM and as GGUF files for llama.cpp.

Each has a vocabulary of 8,192 tokens, nearly all of them whole words, so that a text of N words is N tokens everywhere;
the chat template writes the messages' texts and nothing else. The rows of the output matrix are zero for tokens that
end an answer or are no whole characters, so that a greedy answer never has one.
"""

from __future__ import annotations

import json
import random
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

VOCABULARY = 8192
CONTEXT = 4096
END, BEGIN = "<|end|>", "<|begin|>"
TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"
VERSION = 2
"""Of what is written; what another version has written is made anew."""


@dataclass(frozen=True)
class Shape:
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int

    @property
    def head(self) -> int:
        return self.hidden // self.heads


SHAPES = {
    "16M": Shape(hidden=384, layers=8, heads=6, kv_heads=2, intermediate=768),
    "350M": Shape(hidden=1024, layers=24, heads=16, kv_heads=4, intermediate=3584),
    "1B": Shape(hidden=2048, layers=16, heads=32, kv_heads=8, intermediate=8192),
}


def words() -> list[str]:
    """The words of the vocabulary, each a token with the space before it."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return [a + b + c for a in letters for b in "aeiou" for c in letters + "aeiou"][:2600]


def text(tokens: int, seed: int) -> str:
    """So many words by chance."""
    chosen = random.Random(seed).choices(words(), k=tokens)
    return "".join(f" {word}" for word in chosen)


def made(name: str, cache: Path) -> Path:
    """The folder of a model, made unless it is there; the GGUF file lies beside it."""
    folder = cache / name
    mark = cache / f"{name}.version"
    if mark.exists() and mark.read_text() == str(VERSION):
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tokenizer = _write_tokenizer(folder)
    shape = SHAPES[name]
    config = _config(shape)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    generation = {"bos_token_id": 1, "eos_token_id": 0, "pad_token_id": 0, "do_sample": False}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    weights = _weights(shape, silent=_silent(tokenizer))
    from safetensors.torch import save_file

    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    _write_gguf(gguf_file(folder), shape, weights, tokenizer)
    mark.write_text(str(VERSION))
    return folder


def gguf_file(folder: Path) -> Path:
    """The same model for llama.cpp."""
    return folder.parent / f"{folder.name}.gguf"


def _config(shape: Shape) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head,
        "hidden_act": "silu",
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": 1,
        "eos_token_id": 0,
        "pad_token_id": 0,
        "dtype": "bfloat16",
        "torch_dtype": "bfloat16",
    }


# The tokenizer --------------------------------------------------------------------------------------------------------


def _write_tokenizer(folder: Path) -> dict[str, Any]:
    """A byte-level BPE tokenizer in which every word, with the space before it, is one token."""
    vocabulary: dict[str, int] = {END: 0, BEGIN: 1}
    for character in _byte_characters():
        vocabulary[character] = len(vocabulary)
    merges: list[tuple[str, str]] = []
    for word in words():
        left = "Ġ"
        for character in word:
            merge = (left, character)
            left += character
            if left not in vocabulary:
                vocabulary[left] = len(vocabulary)
                merges.append(merge)
    for left in [*vocabulary][2:]:  # what is still missing are longer words, which no prompt has
        for right in "abcdefgh":
            if len(vocabulary) < VOCABULARY and left.startswith("Ġ") and left + right not in vocabulary:
                vocabulary[left + right] = len(vocabulary)
                merges.append((left, right))
    assert len(vocabulary) == VOCABULARY, len(vocabulary)
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": id, "content": content, **special} for id, content in enumerate((END, BEGIN))],
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": merges,
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": CONTEXT,
        "bos_token": BEGIN,
        "eos_token": END,
        "pad_token": END,
        "clean_up_tokenization_spaces": False,
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(about, indent=1))
    return tokenizer


def _byte_characters() -> list[str]:
    """How byte-level BPE writes each byte: as itself if it can be seen, else as a character from 256 on (GPT-2)."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in seen]
    return [chr(byte) for byte in seen] + [chr(256 + index) for index in range(len(hidden))]


def _silent(tokenizer: dict[str, Any]) -> list[int]:
    """The tokens that are no words."""
    return [id for token, id in tokenizer["model"]["vocab"].items() if not token.startswith("Ġ") or len(token) < 2]


# The weights ----------------------------------------------------------------------------------------------------------


def _weights(shape: Shape, silent: list[int]) -> dict[str, Any]:
    """Random weights; large ones are cut from one pool of random numbers, which is many times faster."""
    import torch

    generator = torch.Generator().manual_seed(0)
    pool = torch.randn((1 << 24) + 12345, generator=generator).mul_(0.03).to(torch.bfloat16)
    offset = 0

    def random_matrix(rows: int, columns: int) -> Any:
        nonlocal offset
        matrix = torch.empty(rows * columns, dtype=torch.bfloat16)
        done = 0
        while done < len(matrix):
            piece = pool[offset : offset + len(matrix) - done]
            matrix[done : done + len(piece)] = piece
            done += len(piece)
            offset = (offset + len(piece) + 7919) % (len(pool) - 8192)
        return matrix.view(rows, columns)

    weights = {"model.embed_tokens.weight": random_matrix(VOCABULARY, shape.hidden)}
    for layer in range(shape.layers):
        for name, rows, columns in _matrices(shape):
            weights[f"model.layers.{layer}.{name}.weight"] = random_matrix(rows, columns)
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"model.layers.{layer}.{name}.weight"] = torch.ones(shape.hidden, dtype=torch.bfloat16)
    weights["model.norm.weight"] = torch.ones(shape.hidden, dtype=torch.bfloat16)
    weights["lm_head.weight"] = random_matrix(VOCABULARY, shape.hidden)
    weights["lm_head.weight"][silent] = 0
    return weights


def _matrices(shape: Shape) -> list[tuple[str, int, int]]:
    keys = shape.kv_heads * shape.head
    return [
        ("self_attn.q_proj", shape.hidden, shape.hidden),
        ("self_attn.k_proj", keys, shape.hidden),
        ("self_attn.v_proj", keys, shape.hidden),
        ("self_attn.o_proj", shape.hidden, shape.hidden),
        ("mlp.gate_proj", shape.intermediate, shape.hidden),
        ("mlp.up_proj", shape.intermediate, shape.hidden),
        ("mlp.down_proj", shape.hidden, shape.intermediate),
    ]


# GGUF, version 3: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md -------------------------------------------

_UINT32, _FLOAT32, _BOOL, _STRING, _ARRAY, _INT32 = 4, 6, 7, 8, 9, 5
_F32, _BF16 = 0, 30
_ALIGNMENT = 32
_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def _write_gguf(path: Path, shape: Shape, weights: dict[str, Any], tokenizer: dict[str, Any]) -> None:
    tensors = [(_gguf_name(name), _gguf_tensor(name, tensor, shape)) for name, tensor in weights.items()]
    facts = [_fact(*each) for each in _facts(shape, tokenizer)]
    with path.open("wb") as file:
        file.write(struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(facts)) + b"".join(facts))
        offset = 0
        for name, tensor in tensors:
            dimensions = tuple(reversed(tensor.shape))
            kind = _BF16 if tensor.element_size() == 2 else _F32
            file.write(
                _string(name) + struct.pack(f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, kind, offset)
            )
            offset += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
        for _, tensor in tensors:
            _pad(file)
            import torch

            file.write(memoryview(tensor.contiguous().view(torch.uint8).numpy().reshape(-1)))
        _pad(file)


def _pad(file: BinaryIO) -> None:
    file.write(bytes(-file.tell() % _ALIGNMENT))


def _gguf_name(name: str) -> str:
    name = name.removesuffix(".weight")
    if not name.startswith("model.layers."):
        return f"{_NAMES[name]}.weight"
    layer, _, rest = name.removeprefix("model.layers.").partition(".")
    return f"blk.{layer}.{_NAMES[rest]}.weight"


def _gguf_tensor(name: str, tensor: Any, shape: Shape) -> Any:
    """Norms are float32 there, and the rows of queries and keys are in the order of Meta's rotary embedding."""
    if tensor.dim() == 1:
        return tensor.float()
    heads = {"q_proj": shape.heads, "k_proj": shape.kv_heads}.get(name.split(".")[-2])
    if heads is None:
        return tensor
    rows, columns = tensor.shape
    return tensor.view(heads, 2, rows // heads // 2, columns).transpose(1, 2).reshape(rows, columns)


def _facts(shape: Shape, tokenizer: dict[str, Any]) -> Iterator[tuple[str, int, Any]]:
    yield "general.architecture", _STRING, "llama"
    yield "general.name", _STRING, "random"
    yield "general.file_type", _UINT32, 32
    numbers = {
        "context_length": CONTEXT,
        "embedding_length": shape.hidden,
        "block_count": shape.layers,
        "feed_forward_length": shape.intermediate,
        "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.kv_heads,
        "rope.dimension_count": shape.head,
        "vocab_size": VOCABULARY,
    }
    yield from ((f"llama.{name}", _UINT32, number) for name, number in numbers.items())
    yield "llama.rope.freq_base", _FLOAT32, 10000.0
    yield "llama.attention.layer_norm_rms_epsilon", _FLOAT32, 1e-5
    model = tokenizer["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    yield "tokenizer.ggml.model", _STRING, "gpt2"
    yield "tokenizer.ggml.pre", _STRING, "gpt-2"
    yield "tokenizer.ggml.tokens", _ARRAY, tokens
    yield "tokenizer.ggml.token_type", _ARRAY, [3 if token in (END, BEGIN) else 1 for token in tokens]
    yield "tokenizer.ggml.merges", _ARRAY, [" ".join(pair) for pair in model["merges"]]
    yield "tokenizer.ggml.bos_token_id", _UINT32, 1
    yield "tokenizer.ggml.eos_token_id", _UINT32, 0
    yield "tokenizer.ggml.add_bos_token", _BOOL, False
    yield "tokenizer.chat_template", _STRING, TEMPLATE


def _fact(name: str, kind: int, value: Any) -> bytes:
    head = _string(name) + struct.pack("<I", kind)
    match value:
        case str():
            return head + _string(value)
        case bool():
            return head + struct.pack("<?", value)
        case int():
            return head + struct.pack("<I", value)
        case float():
            return head + struct.pack("<f", value)
        case [str(), *_]:
            return head + struct.pack("<IQ", _STRING, len(value)) + b"".join(map(_string, value))
        case _:
            return head + struct.pack(f"<IQ{len(value)}i", _INT32, len(value), *value)


def _string(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data
