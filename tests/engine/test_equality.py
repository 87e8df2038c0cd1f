"""Whatever runs beside it and however it is cut, an answer is what transformers' own `generate` says, token by token.

Run by `make test-engine`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from engines import engine_of, loaded, run, text_request
from long_models import FAMILIES

from modelcompose.adapters.base import GenerationRequest
from modelcompose.adapters.transformers.engine import Engine
from modelcompose.adapters.transformers.forward import kv_shape
from modelcompose.adapters.transformers.in_rows import InRows
from modelcompose.adapters.transformers.load import LoadedModel

NEW = 20
LENGTHS = (1, 2, 31, 33, 64, 250, 257, 700, 3000)
MEGABYTE = 1 << 20


def prompt_of(length: int, seed: int = 0) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(2, 300, (length,), generator=generator).tolist())


def generated(model: LoadedModel, prompt: tuple[int, ...], count: int = NEW) -> list[int]:
    """The new tokens that transformers itself generates greedily."""
    ids = torch.tensor([prompt])
    generate: Any = model.model.generate
    output = generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=count, min_new_tokens=count
    )
    new: list[int] = output[0, len(prompt) :].tolist()
    return new


def request(prompt: tuple[int, ...], **fields: Any) -> GenerationRequest:
    return text_request(prompt, **{"max_tokens": NEW, "min_tokens": NEW, **fields})


def answered(engine: Engine, requests: list[GenerationRequest]) -> list[list[list[int]]]:
    """The new tokens of every choice of these requests, answered together."""
    sequences = []
    for id, each in enumerate(requests):
        engine.add(id, each)
        sequences.append(list(engine._requests[id].sequences))
    run(engine)
    return [[each.tokens[-each.generated :] for each in choices] for choices in sequences]


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest, long_model: Callable[[str], Path]) -> LoadedModel:
    return loaded(long_model(request.param))


def test_prompts_of_all_lengths_together(model: LoadedModel) -> None:
    engine = engine_of(model, 6, max_batch_tokens=300, kv_cache_memory=64 * MEGABYTE)
    assert isinstance(engine._computer, InRows)
    prompts = [prompt_of(length, length) for length in LENGTHS]
    expected = [[generated(model, prompt)] for prompt in prompts]
    assert answered(engine, [request(prompt) for prompt in prompts]) == expected
    assert engine.counters.preempted == 0


def test_prompts_with_known_beginnings(model: LoadedModel) -> None:
    engine = engine_of(model, 8, max_batch_tokens=256, kv_cache_memory=64 * MEGABYTE)
    shared = prompt_of(600, 1)
    prompts = [shared + prompt_of(10 + 30 * k, k) for k in range(2, 7)]
    expected = [[generated(model, prompt)] for prompt in prompts]
    assert answered(engine, [request(prompts[0])]) == expected[:1]
    assert answered(engine, [request(prompt) for prompt in prompts[1:]]) == expected[1:]
    assert engine.counters.cached_tokens == 4 * 576
    longer = prompts[0] + tuple(expected[0][0]) + prompt_of(40, 9)
    assert answered(engine, [request(longer)]) == [[generated(model, longer)]]


def test_answers_that_are_interrupted_for_want_of_memory(model: LoadedModel) -> None:
    engine = engine_of(model, 8, max_batch_tokens=200, kv_cache_memory=8192 * kv_shape(model).token_bytes)
    prompts = [prompt_of(900 + k, k) for k in range(8)]
    expected = [[generated(model, prompt, 200)] for prompt in prompts]
    requests = [request(prompt, max_tokens=200, min_tokens=200) for prompt in prompts]
    assert answered(engine, requests) == expected
    assert engine.counters.preempted > 0


def test_several_choices_of_a_prompt(model: LoadedModel) -> None:
    engine = engine_of(model, 4, max_batch_tokens=64, kv_cache_memory=64 * MEGABYTE)
    prompt = prompt_of(150)
    expected = [generated(model, prompt)] * 3
    assert answered(engine, [request(prompt, n=3), request(prompt_of(90, 3))])[0] == expected
    assert engine.counters.prompt_tokens == 150 + 90
