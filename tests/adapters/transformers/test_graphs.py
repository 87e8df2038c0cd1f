"""Recorded steps: what is done again computes the same. On a CPU a step is recorded by keeping the function."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
import torch
from engines import loaded, run, text_request, whole
from long_models import LongModel
from torch import Tensor

from modelcompose.adapters.base import GenerationRequest
from modelcompose.adapters.errors import ConfigError
from modelcompose.adapters.transformers.computer import computer_for
from modelcompose.adapters.transformers.engine import Engine
from modelcompose.adapters.transformers.graphs import MOST, RecordedSteps, computed_rows
from modelcompose.adapters.transformers.in_rows import InRows
from modelcompose.adapters.transformers.load import LoadedModel
from modelcompose.adapters.transformers.memory import KVShape, Memory
from modelcompose.adapters.transformers.rows import Row, Slab
from modelcompose.adapters.transformers.settings import ModelSettings

SETTINGS = ModelSettings(name="tiny", source="", max_concurrent_count=12, kv_cache_memory=1 << 23)


class Kept:
    """Records a step by keeping the function, having done it once; counts how often it is done again.

    Every result of a step lies in the same memory, as a GPU's does.
    """

    def __init__(self) -> None:
        self.recorded = self.again = 0
        self.fails = False

    def __call__(self, run: Callable[[], Tensor]) -> Callable[[], Tensor]:
        if self.fails:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.recorded += 1
        result = run().clone()

        def again() -> Tensor:
            self.again += 1
            return result.copy_(run())

        return again


def engine_that_records(model: LoadedModel, record: Kept) -> tuple[Engine, InRows]:
    computer = computer_for(model, SETTINGS, record)
    assert isinstance(computer, InRows)
    assert computer.recorded is not None
    return Engine(model, SETTINGS, computer), computer


async def texts(engine: Engine, requests: list[GenerationRequest]) -> list[str]:
    for id, request in enumerate(requests):
        engine.add(id, request)
    outcomes = run(engine)
    return [(await whole(outcomes[id])).choices[0].text for id in range(len(requests))]


def requests_of_all_lengths() -> list[GenerationRequest]:
    """They end at different times, and some outgrow their rows."""
    generator = torch.Generator().manual_seed(3)
    lengths = ((5, 60), (250, 40), (90, 25), (200, 80), (30, 50), (255, 9), (12, 70), (40, 33), (8, 31))
    prompts = [tuple(torch.randint(10, 300, (length,), generator=generator).tolist()) for length, _ in lengths]
    return [text_request(prompt, max_tokens=most) for prompt, (_, most) in zip(prompts, lengths, strict=True)]


@pytest.mark.parametrize("family", ["llama", "mistral", "gpt2"])
async def test_recorded_steps_say_what_others_say(family: str, long_model: LongModel) -> None:
    model = loaded(long_model(family))
    plain = await texts(Engine(model, SETTINGS), requests_of_all_lengths())
    record = Kept()
    engine, _ = engine_that_records(model, record)
    at_load = record.again
    assert at_load > 0  # a model's recorded steps are held to its own logits
    assert await texts(engine, requests_of_all_lengths()) == plain
    assert record.again > at_load + 40


async def test_a_step_is_recorded_when_it_recurs(long_model: LongModel) -> None:
    record = Kept()
    engine, computer = engine_that_records(loaded(long_model("llama")), record)
    assert computer.recorded is not None
    before = record.recorded
    assert len(computer.recorded) == before
    await texts(engine, [text_request(max_tokens=4)])
    assert record.recorded == before
    await texts(engine, [text_request(max_tokens=20)])
    assert record.recorded == len(computer.recorded) == before + 1


async def test_a_model_that_cannot_be_recorded_is_computed_as_before(
    long_model: LongModel, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
        raise RuntimeError("operation not permitted when stream is capturing")

    computer = computer_for(loaded(long_model("llama")), SETTINGS, fails)
    assert isinstance(computer, InRows)
    assert computer.recorded is None
    assert "steps are not recorded" in caplog.text


async def test_answers_go_on_when_a_step_can_no_longer_be_recorded(
    long_model: LongModel, caplog: pytest.LogCaptureFixture
) -> None:
    model = loaded(long_model("llama"))
    plain = await texts(Engine(model, SETTINGS), requests_of_all_lengths())
    record = Kept()
    engine, _ = engine_that_records(model, record)
    record.fails = True
    assert await texts(engine, requests_of_all_lengths()) == plain
    assert caplog.text.count("steps are not recorded") == 1


def test_recorded_steps_that_give_other_numbers_are_not_taken(
    long_model: LongModel, caplog: pytest.LogCaptureFixture
) -> None:
    model = loaded(long_model("llama"))

    def frozen(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
        result = run()
        return lambda: result

    with caplog.at_level("INFO"):
        computer = computer_for(model, SETTINGS, frozen)
    assert isinstance(computer, InRows)
    assert computer.recorded is None
    assert "logits are off by" in caplog.text
    with pytest.raises(ConfigError, match="cannot be recorded; set compile: false"):
        computer_for(model, msgspec.structs.replace(SETTINGS, compile=True), frozen)


def slab_of(rows: int, length: int = 256) -> Slab:
    slab = Slab(Memory(KVShape(1, 1, 4, 4, torch.float32, torch.device("cpu"))), length)
    for _ in range(rows):
        Row(slab)
    return slab


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8, 9, 33, 64, 65])
def test_few_numbers_of_rows_are_computed_and_all_of_them_are_there(rows: int) -> None:
    slab = slab_of(rows)
    assert rows <= computed_rows(slab) <= slab.rows
    assert computed_rows(slab) in (1, 2, 4, 8, 16, 32, 64, 128)


def test_so_many_steps_are_kept_and_no_more() -> None:
    steps = RecordedSteps(lambda batch: torch.zeros(len(batch), 7), torch.device("cpu"), lambda run: run, repeats=1)
    slabs = [slab_of(1) for _ in range(MOST + 5)]
    for slab in slabs:
        logits = steps([slab], [3])
        assert logits is not None
        assert logits.shape == (1, 7)
    assert len(steps) == MOST
