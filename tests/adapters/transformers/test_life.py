"""When there is an engine: on demand, until it was idle for long, and one after the other where memory is short."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import psutil
import pytest
from scripted_engine import scripted_engines  # noqa: F401 (a fixture)

from modelcompose.adapters.base import GenerationRequest, LoadableAdapter, Sampling
from modelcompose.adapters.errors import ModelUnavailable, QueueFull
from modelcompose.adapters.events import Accepted, collect
from modelcompose.adapters.transformers import adapter as adapters
from modelcompose.adapters.transformers import life
from modelcompose.adapters.transformers.adapter import TransformersAdapter
from modelcompose.adapters.transformers.residents import Residents
from modelcompose.adapters.transformers.settings import ModelSettings

pytestmark = pytest.mark.usefixtures("scripted_engines")

Engines = Callable[[], list[psutil.Process]]

HELLO = GenerationRequest(model="m", messages=({"role": "user", "content": "Hello"},))
SILENT = GenerationRequest(model="m", messages=HELLO.messages, sampling=Sampling(seed=0))


def model(source: str = "", residents: Residents | None = None, **settings: Any) -> TransformersAdapter:
    return TransformersAdapter(ModelSettings(name="m", source=source, **settings), residents)


def phase(adapter: TransformersAdapter) -> str:
    return adapter.cards()[0].state.phase


async def says(adapter: TransformersAdapter) -> str:
    return (await collect(adapter.generate(HELLO))).choices[0].text


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.005)


@pytest.fixture
def engines() -> Engines:
    """The processes that were started in this test; servers that other tests share may run beside them."""
    others = psutil.Process().children()
    return lambda: [child for child in psutil.Process().children() if child not in others]


async def test_the_first_request_loads_a_model_that_is_not_preloaded(engines: Engines) -> None:
    async with model(preload=False) as adapter:
        assert isinstance(adapter, LoadableAdapter)
        assert phase(adapter) == "unloaded"
        assert not engines()
        assert list(await asyncio.gather(says(adapter), says(adapter))) == ["hi", "hi"]
        assert adapter.cards()[0].counters.engine_starts == 1
        assert phase(adapter) == "ready"


async def test_while_it_is_loaded_on_demand_its_state_says_so() -> None:
    async with model("loads_in=0.3", preload=False) as adapter:
        adapter.load("m")
        await until(lambda: adapter.cards()[0].state.detail == "as scripted")
        assert adapter.cards()[0].state.on_demand
        await until(lambda: phase(adapter) == "ready")


async def test_who_asks_during_the_first_load_is_told_so() -> None:
    async with model("loads_in=0.3") as adapter:
        with pytest.raises(ModelUnavailable, match="m is loading") as caught:
            await says(adapter)
        assert caught.value.retry_after is not None


async def test_a_long_load_is_waited_for_with_an_accepted_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "SILENT_PATIENCE", 0.05)
    async with model("loads_in=0.3", preload=False) as adapter, aclosing(adapter.generate(HELLO)) as events:
        assert isinstance(await anext(events), Accepted)
        assert phase(adapter) == "loading"
        assert [type(event).__name__ async for event in events] == ["TextDelta", "Finish", "Usage"]


async def test_too_long_a_load_is_given_up_by_the_request_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "SILENT_PATIENCE", 0.05)
    monkeypatch.setattr(adapters, "LOAD_PATIENCE", 0.05)
    async with model("loads_in=0.5", preload=False) as adapter:
        with pytest.raises(ModelUnavailable, match="is loading"):
            await says(adapter)
        await until(lambda: phase(adapter) == "ready")


async def test_a_model_that_nobody_uses_is_unloaded_and_comes_back(engines: Engines) -> None:
    async with model(keep_alive=0.2) as adapter:
        await adapter.ready()
        assert await says(adapter) == "hi"
        await asyncio.sleep(0.1)
        assert await says(adapter) == "hi"
        await until(lambda: phase(adapter) == "unloaded")
        await until(lambda: not engines())
        assert await says(adapter) == "hi"
        counters = adapter.cards()[0].counters
        assert (counters.requests, counters.engine_starts) == (3, 2)


async def test_a_model_in_use_is_not_unloaded() -> None:
    async with model(keep_alive=0.05) as adapter:
        await adapter.ready()
        async with aclosing(adapter.generate(SILENT)) as events:
            await anext(events)
            adapter.unload("m")
            await asyncio.sleep(0.2)
            assert phase(adapter) == "ready"
        await until(lambda: phase(adapter) == "unloaded")


async def test_unloading_and_loading_by_hand() -> None:
    async with model() as adapter:
        await adapter.ready()
        adapter.unload("m")
        assert phase(adapter) == "unloaded"
        adapter.load("m")
        assert phase(adapter) == "loading"
        await adapter.ready()
        assert await says(adapter) == "hi"
        adapter.unload("m")
        adapter.unload("m")
        assert await says(adapter) == "hi"


async def test_changing_ones_mind_many_times_is_no_failure(engines: Engines) -> None:
    async with model("loads_in=30") as adapter:
        for _ in range(5):
            adapter.unload("m")
            await asyncio.sleep(0.01)
            adapter.load("m")
            await asyncio.sleep(0.01)
        adapter.unload("m")
        await until(lambda: not engines())
        assert phase(adapter) == "unloaded"


async def test_unloading_ends_a_load_as_well(engines: Engines) -> None:
    async with model("loads_in=30") as adapter:
        adapter.unload("m")
        assert phase(adapter) == "unloaded"
        await until(lambda: not engines())


async def test_a_model_that_failed_is_tried_again_only_when_told_to() -> None:
    async with model("broken") as adapter:
        with pytest.raises(ModelUnavailable, match="it is broken"):
            await adapter.ready()
        with pytest.raises(ModelUnavailable, match="it is broken"):
            await says(adapter)
        assert adapter.cards()[0].counters.engine_starts == 1
        adapter.load("m")
        with pytest.raises(ModelUnavailable, match="it is broken"):
            await adapter.ready()
        assert adapter.cards()[0].counters.engine_starts == 2


async def test_the_model_that_was_idle_for_longest_makes_room(tmp_path: Path) -> None:
    residents, lock = Residents(), f"lock={tmp_path / 'memory'}"
    async with (
        model(lock, residents) as first,
        model("", residents) as bystander,
        model(lock, residents, preload=False) as second,
    ):
        await first.ready()
        await bystander.ready()
        await says(first)
        await says(bystander)
        assert await says(second) == "hi"
        assert [phase(each) for each in (first, bystander, second)] == ["unloaded", "ready", "ready"]
        assert await says(first) == "hi"


async def test_without_others_too_little_memory_fails_at_once_and_is_tried_again(tmp_path: Path) -> None:
    lock = f"lock={tmp_path / 'memory'}"
    async with model(lock) as other:
        await other.ready()
        async with model(lock) as adapter:
            with pytest.raises(ModelUnavailable, match="another has the memory"):
                await adapter.ready()
            assert phase(adapter) == "failed"
            other.unload("m")
            await until(lambda: not other._life.is_leaving)
            assert await says(adapter) == "hi"


async def test_a_model_in_use_makes_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(life, "MEMORY_PATIENCE", 0.3)
    residents, lock = Residents(), f"lock={tmp_path / 'memory'}"
    async with model(lock, residents) as first, model(lock, residents, preload=False) as second:
        await first.ready()
        async with aclosing(first.generate(SILENT)) as events:
            await anext(events)
            with pytest.raises(ModelUnavailable, match="another has the memory"):
                await says(second)
            assert phase(first) == "ready"
        assert await says(second) == "hi"


async def test_what_may_not_wait_is_refused() -> None:
    async with model(max_concurrent_count=1, max_waiting_count=1) as adapter:
        await adapter.ready()
        async with aclosing(adapter.generate(SILENT)) as one, aclosing(adapter.generate(SILENT)) as two:
            await anext(one)
            await anext(two)
            with pytest.raises(QueueFull, match="2 requests"):
                await says(adapter)
        assert await says(adapter) == "hi"
