"""What a component says about how its model is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from loading import CHAT, loaded, mistakes

from modelcompose.adapters.transformers.settings import ModelSettings
from modelcompose.adapters.vllm.managed import ManagedSettings, command_of
from modelcompose.workflows.components.settings import settings_of
from modelcompose.workflows.schema import ChatModelComponent


def settings(*lines: str) -> ModelSettings:
    [component] = loaded(CHAT + "".join(f"  {line}\n" for line in lines)).components
    assert isinstance(component, ChatModelComponent)
    found = settings_of(component, Path())
    assert isinstance(found, ModelSettings)
    return found


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("kv_cache_memory: 4GB", "kv_cache_memory", 4_000_000_000),
        ("kv_cache_memory: 1000000", "kv_cache_memory", 1_000_000),
        ("max_batch_tokens: 512", "max_batch_tokens", 512),
        ("max_waiting_count: 0", "max_waiting_count", 0),
        ("compile: false", "compile", False),
        ("preload: false", "preload", False),
        ("keep_alive: 10m", "keep_alive", 600),
        ("keep_alive: 0", "keep_alive", 0),
        ("keep_alive: never", "keep_alive", -1),
        ("max_concurrent_count: 4", "max_concurrent_count", 4),
    ],
)
def test_a_component_says_how_its_model_is_run(line: str, name: str, value: Any) -> None:
    assert getattr(settings(line), name) == value


def test_what_a_managed_vllm_is_told_of_its_component() -> None:
    lines = "  driver: vllm\n  precision: float32\n  max_model_len: 2048\n  max_batch_tokens: 512\n"
    [component] = loaded(CHAT + lines + "  manage: {args: {max_num_batched_tokens: 4096}}\n").components
    assert isinstance(component, ChatModelComponent)
    found = settings_of(component, Path())
    assert isinstance(found, ManagedSettings)
    command = " ".join(command_of("python", found, 1234))
    assert "--dtype float32 --max-model-len 2048 --max-num-batched-tokens 4096" in command
    assert "trust-remote-code" not in command


def test_what_is_left_out_is_left_open() -> None:
    plain = ModelSettings(name="bundled", source=settings().source)
    assert settings() == plain


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("  kv_cache_memory: 4 apples\n", "kv_cache_memory"),
        ("  keep_alive: soon\n", "keep_alive"),
        ("  max_batch_tokens: 0\n", "max_batch_tokens"),
        ("  driver: vllm\n  keep_alive: 5m\n", "keep_alive: goes with driver: transformers only"),
    ],
)
def test_what_is_wrong_is_told(lines: str, words: str) -> None:
    [problem] = mistakes(CHAT + lines)
    assert words in problem
