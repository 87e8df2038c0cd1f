"""The adapter with a real engine process: streams, cancelling, death and recovery, the end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import msgspec
import psutil
import pytest
import pytest_asyncio
from engines import PROMPT, text_request
from tiny_models import CONTEXT_LENGTH, TinyModel

from modelcompose.adapters.base import JsonConstraint, ModelCounters, RegexConstraint
from modelcompose.adapters.errors import ContextLengthExceeded, EngineDied, InvalidRequest, ModelUnavailable
from modelcompose.adapters.events import Accepted, Event, Usage, collect
from modelcompose.adapters.transformers.adapter import TransformersAdapter
from modelcompose.adapters.transformers.settings import ModelSettings

pytestmark = pytest.mark.asyncio(loop_scope="module")

FOREVER = 220
BUSY = text_request(*[PROMPT] * 64, n=4, max_tokens=FOREVER)
"""Takes seconds, so that it is not over before something happens to it."""


def settings_of(folder: Path) -> ModelSettings:
    return ModelSettings(name="tiny", source=str(folder), device="cpu", precision="float32")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def adapter(tiny_model: TinyModel) -> AsyncIterator[TransformersAdapter]:
    async with TransformersAdapter(settings_of(tiny_model("llama"))) as adapter:
        with pytest.raises(ModelUnavailable, match="tiny is loading") as refusal:
            await collect(adapter.generate(text_request()))
        assert refusal.value.retry_after is not None
        await adapter.ready()
        yield adapter


def engine_pid(adapter: TransformersAdapter) -> int:
    assert adapter._life.child is not None
    return adapter._life.child.pid


def counters(adapter: TransformersAdapter) -> ModelCounters:
    return adapter.cards()[0].counters


async def idle(adapter: TransformersAdapter) -> None:
    await until(lambda: not counters(adapter).running and not counters(adapter).waiting)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - counters change without telling anybody
            await asyncio.sleep(0.005)


async def test_a_card_tells_name_context_and_state(adapter: TransformersAdapter) -> None:
    [card] = adapter.cards()
    assert (card.id, card.context_length, card.state.phase) == ("tiny", CONTEXT_LENGTH, "ready")
    assert card.counters.engine_starts == 1


async def test_a_stream_begins_with_accepted_and_ends_with_usage(adapter: TransformersAdapter) -> None:
    events: list[Event] = [event async for event in adapter.generate(text_request(max_tokens=6))]
    assert isinstance(events[0], Accepted)
    assert events[-1] == Usage(20, 6)


async def test_refusals_come_as_the_errors_they_are(adapter: TransformersAdapter) -> None:
    with pytest.raises(ContextLengthExceeded):
        await collect(adapter.generate(text_request(max_tokens=1000)))
    with pytest.raises(InvalidRequest):
        await collect(adapter.generate(text_request(constraint=RegexConstraint("(unclosed"))))


async def test_what_the_engine_does_not_know_does_not_matter_however_odd(adapter: TransformersAdapter) -> None:
    strange = msgspec.structs.replace(text_request(max_tokens=2), extra={"number": 10**30, "add_special_tokens": False})
    assert (await collect(adapter.generate(strange))).usage == Usage(20, 2)


async def test_a_number_that_does_not_get_through_to_the_engine_is_refused(adapter: TransformersAdapter) -> None:
    before = counters(adapter)
    with pytest.raises(InvalidRequest, match="too large"):
        await collect(adapter.generate(text_request(constraint=JsonConstraint({"maximum": 2**70}))))
    assert counters(adapter) == before
    assert not adapter._queues


async def test_twenty_streams_at_once_are_not_mixed_up(adapter: TransformersAdapter) -> None:
    requests = [text_request(f"Stream {i}: ", seed=i, temperature=1.0, max_tokens=15) for i in range(20)]
    alone = [await collect(adapter.generate(request)) for request in requests]
    together = await asyncio.gather(*(collect(adapter.generate(request)) for request in requests))
    assert together == alone
    assert len({completion.choices[0].text for completion in alone}) == 20


async def test_closing_a_stream_stops_its_generation_within_two_tokens(adapter: TransformersAdapter) -> None:
    """In one of five tries, because a token takes less time here than a busy machine may stop this process."""
    assert min([await tokens_after_closing_a_stream(adapter) for _ in range(5)]) <= 2


async def tokens_after_closing_a_stream(adapter: TransformersAdapter) -> int:
    await idle(adapter)
    before = counters(adapter)
    async with aclosing(adapter.generate(text_request(max_tokens=FOREVER))) as events:
        async for _ in events:
            if counters(adapter).generated_tokens >= before.generated_tokens + 5:
                break
        seen = counters(adapter).generated_tokens
    await idle(adapter)
    after = counters(adapter)
    assert after.cancelled == before.cancelled + 1
    return after.generated_tokens - seen


async def test_a_cancelled_task_cancels_its_request(adapter: TransformersAdapter) -> None:
    before = counters(adapter).cancelled
    task = asyncio.create_task(collect(adapter.generate(BUSY)))
    await until(lambda: counters(adapter).running)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await idle(adapter)
    assert counters(adapter).cancelled == before + 1


async def test_an_idle_engine_sleeps(adapter: TransformersAdapter) -> None:
    await idle(adapter)
    process = psutil.Process(engine_pid(adapter))
    await asyncio.sleep(0.2)
    before = process.cpu_times()
    await asyncio.sleep(1)
    after = process.cpu_times()
    assert after.user + after.system - before.user - before.system <= 0.02


async def test_settings_are_not_on_the_command_line(adapter: TransformersAdapter) -> None:
    command = psutil.Process(engine_pid(adapter)).cmdline()
    assert command[-1] == "modelcompose.adapters.transformers.process"
    assert os.getpgid(engine_pid(adapter)) != os.getpgrp()


async def test_a_killed_engine_fails_its_streams_and_the_next_request_works(
    adapter: TransformersAdapter, caplog: pytest.LogCaptureFixture
) -> None:
    await idle(adapter)
    before = counters(adapter)
    stream = adapter.generate(BUSY)
    assert isinstance(await anext(stream), Accepted)
    os.kill(engine_pid(adapter), signal.SIGKILL)
    with pytest.raises(EngineDied, match="ended by signal 9"):
        await collect(stream)
    assert adapter.cards()[0].state.phase == "loading"
    completion = await collect(adapter.generate(text_request(max_tokens=3)))
    assert completion.usage.completion_tokens == 3
    after = counters(adapter)
    assert after.engine_starts == 2
    assert after.requests == before.requests + 2
    assert "ended by signal 9" in caplog.text


async def test_a_model_that_cannot_be_loaded_says_why_and_is_not_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with TransformersAdapter(settings_of(tmp_path / "nothing")) as adapter:
        with pytest.raises(ModelUnavailable, match="nothing"):
            await adapter.ready()
        [card] = adapter.cards()
        assert (card.state.phase, card.counters.engine_starts) == ("failed", 1)
        with pytest.raises(ModelUnavailable, match="nothing"):
            await collect(adapter.generate(text_request()))
    assert "nothing" in caplog.text


async def test_nothing_but_the_engines_log_is_left_when_it_ends(
    tiny_model: TinyModel, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    tasks = asyncio.all_tasks()
    children = set(psutil.Process().children())
    async with TransformersAdapter(settings_of(tiny_model("gpt2"))) as adapter:
        await adapter.ready()
        folder = Path(adapter._life.child.address.removeprefix("ipc://")).parent  # type: ignore[union-attr]
        assert folder.stat().st_mode & 0o77 == 0
        stream = adapter.generate(BUSY)
        assert isinstance(await anext(stream), Accepted)
    with pytest.raises(EngineDied, match="was stopped"):
        async for _ in stream:
            pass
    assert adapter.cards()[0].state.phase == "stopped"
    assert asyncio.all_tasks() == tasks
    assert set(psutil.Process().children()) == children
    assert not folder.exists()
    assert any(record.levelno == logging.INFO and "tiny: " in record.getMessage() for record in caplog.records)


async def test_who_waits_for_a_new_engine_hears_at_once_that_there_will_be_none(tiny_model: TinyModel) -> None:
    async with TransformersAdapter(settings_of(tiny_model("gpt2"))) as adapter:
        await adapter.ready()
        os.kill(engine_pid(adapter), signal.SIGKILL)
        await until(lambda: adapter.cards()[0].state.phase == "loading")
        waiting = asyncio.create_task(collect(adapter.generate(text_request())))
        await asyncio.sleep(0.1)
    with pytest.raises(ModelUnavailable, match="stopped"):
        await asyncio.wait_for(waiting, 2)


async def test_ending_while_it_still_loads_ends_at_once(tiny_model: TinyModel) -> None:
    async with asyncio.timeout(5):
        async with TransformersAdapter(settings_of(tiny_model("llama"))):
            await asyncio.sleep(0.3)


@pytest.mark.parametrize(
    ("program", "why"), [("/bin/false", "died 3 times while it loaded"), ("/nowhere/python", "can be started")]
)
async def test_an_engine_that_cannot_live_is_given_up(
    program: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", program)
    async with TransformersAdapter(settings_of(tmp_path)) as adapter:
        with pytest.raises(ModelUnavailable, match=why):
            await adapter.ready()
