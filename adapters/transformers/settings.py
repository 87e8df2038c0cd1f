"""How one local model is to be loaded and run."""

from __future__ import annotations

from typing import Any

import msgspec


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One Hugging Face model: `name` is what clients call it, `source` a hub id or a folder.

    `device` is `auto`, `cpu`, `mps`, `cuda` or `cuda:N`; `precision` is `auto`, `float32`, `float16` or `bfloat16`.
    `max_model_len` (tokens) lowers the model's own context length. `token` is a hub access token.

    What one engine may use, for which None leaves the choice to the engine: `max_concurrent_count` sequences are in the
    batch, the KV cache takes `kv_cache_memory` bytes at most, a step reads `max_batch_tokens` prompt tokens at most.
    `compile` True or False says whether steps between products are compiled by this machine's C compiler, or on a GPU
    steps are recorded as CUDA graphs; None: where that can be done.

    How long there is an engine: without `preload` it is started by the first request. After `keep_alive` seconds
    without a request it is ended, and the next request starts it again; None is never. Of requests beyond
    `max_concurrent_count`, `max_waiting_count` wait at most and further ones are refused; None is no limit. A negative
    `keep_alive` is never, too.
    """

    name: str
    source: str
    revision: str | None = None
    token: str | None = None
    cache_dir: str | None = None
    local_files_only: bool = False
    trust_remote_code: bool = False
    device: str = "auto"
    precision: str = "auto"
    quantization: dict[str, Any] | None = None
    peft_adapters: tuple[str, ...] = ()
    max_model_len: int | None = None
    max_concurrent_count: int = 64
    kv_cache_memory: int | None = None
    max_batch_tokens: int | None = None
    compile: bool | None = None
    preload: bool = True
    keep_alive: float | None = None
    max_waiting_count: int | None = None
