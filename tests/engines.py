"""Driving an engine by hand in tests: no process, no sockets."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from modelcompose.adapters.base import GenerationRequest, Sampling
from modelcompose.adapters.errors import ComposeError
from modelcompose.adapters.events import Completion, Event, collect
from modelcompose.adapters.transformers.engine import Engine
from modelcompose.adapters.transformers.load import LoadedModel, load
from modelcompose.adapters.transformers.messages import Failure, Outcome
from modelcompose.adapters.transformers.settings import ModelSettings

PROMPT = tuple(range(40, 60))


@functools.cache
def loaded(folder: Path) -> LoadedModel:
    """The model of a folder in float32, on the CPU; loaded once a test run."""
    settings = ModelSettings(name="tiny", source=str(folder), device="cpu", precision="float32")
    return load(settings, lambda _state: None)


def bfloat16_model(folder: Path) -> LoadedModel:
    """The same in bfloat16, each time anew, for what computes it takes its weights."""
    return load(ModelSettings(name="m", source=str(folder), device="cpu", precision="bfloat16"), lambda _state: None)


def engine_of(model: LoadedModel, max_running: int = 4, **fields: Any) -> Engine:
    """An engine with little memory to itself."""
    settings = ModelSettings(name="tiny", source="", max_concurrent_count=max_running, **fields)
    return Engine(model, msgspec.structs.replace(settings, kv_cache_memory=settings.kv_cache_memory or 1 << 22))


def text_request(*prompts: str | tuple[int, ...], n: int = 1, **fields: Any) -> GenerationRequest:
    """A text completion; what `Sampling` knows goes there, the rest into the request."""
    of_request = {name: fields.pop(name) for name in ("logprobs", "echo", "constraint") if name in fields}
    sampling = Sampling(**{"max_tokens": 12, "temperature": 0.0, "ignore_eos": True, **fields})
    return GenerationRequest(model="tiny", prompts=prompts or (PROMPT,), n=n, sampling=sampling, **of_request)


def run(engine: Engine) -> dict[int, list[Outcome]]:
    """Step until nothing is left to do; the outcomes of each request."""
    outcomes: dict[int, list[Outcome]] = {}
    while not engine.is_idle:
        for id, outcome in engine.step():
            outcomes.setdefault(id, []).append(outcome)
    return outcomes


async def answer(engine: Engine, request: GenerationRequest) -> Completion:
    """The whole answer to one request alone; raises what refused it."""
    engine.add(1, request)
    return await whole(run(engine)[1])


async def whole(outcomes: Sequence[Outcome]) -> Completion:
    """What the outcomes of one request add up to; raises if it failed."""

    async def events() -> AsyncIterator[Event]:
        for outcome in outcomes:
            if isinstance(outcome, Failure):
                raise ComposeError.from_report(outcome.report)
            yield outcome

    return await collect(events())
