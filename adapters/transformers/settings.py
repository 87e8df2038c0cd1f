"""How one local model is to be loaded and run."""

from __future__ import annotations

from typing import Any

import msgspec


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One Hugging Face model: `name` is what clients call it, `source` a hub id or a folder.

    `device` is `auto`, `cpu`, `mps`, `cuda` or `cuda:N`; `precision` is `auto`, `float32`, `float16` or `bfloat16`.
    `max_model_len` (tokens) lowers the model's own context length. `token` is a hub access token.
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
    max_concurrent_count: int = 16
