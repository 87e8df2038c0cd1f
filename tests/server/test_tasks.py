"""Which tasks are kept, and for how long."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

from composing import chat, echoing, one, runner
from scripted import ScriptedAdapter

from modelcompose.adapters.runs import News
from modelcompose.server.record import Record
from modelcompose.server.tasks import MOST_KEPT, SECONDS_KEPT, Tasks
from modelcompose.workflows.runs import WorkflowRuns


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def nowhere(_message: Any) -> None:
    """What is sent is not looked at."""


async def no_one(_news: News) -> None:
    """Nobody listens."""


async def perform(tasks: Tasks, runs: WorkflowRuns, prompt: str) -> str:
    record = Record({"method": "POST", "path": "/", "headers": []}, nowhere)
    return (await tasks.perform(runs.run(None, {"prompt": prompt}), record, no_one)).task_id


async def test_a_task_is_kept_for_an_hour() -> None:
    clock = Clock()
    tasks = Tasks(clock)
    async with runner(one(chat()), ScriptedAdapter({"m": echoing})) as opened:
        id = await perform(tasks, WorkflowRuns(opened), "x")
        clock.now = SECONDS_KEPT
        assert tasks.find(id) is not None
        clock.now += 1
        assert tasks.find(id) is None


async def test_only_the_last_thousand_are_kept_and_memory_does_not_grow_with_the_others() -> None:
    tasks = Tasks()
    scripts = ScriptedAdapter({"m": echoing})
    async with runner(one(chat()), scripts) as opened:
        runs = WorkflowRuns(opened)
        ids = [await perform(tasks, runs, f"{number} " * 100) for number in range(MOST_KEPT)]
        gc.collect()
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        for number in range(MOST_KEPT, 2 * MOST_KEPT):
            ids.append(await perform(tasks, runs, f"{number} " * 100))
            scripts.requests.clear()
        gc.collect()
        # What was made before tracing began is not counted when it goes, so that all that was kept counts as growth.
        kept = tracemalloc.get_traced_memory()[0] - before
        for number in range(MOST_KEPT):
            await perform(tasks, runs, f"{number} " * 100)
            scripts.requests.clear()
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before - kept
        tracemalloc.stop()
    assert [tasks.find(id) is not None for id in (ids[0], ids[-1])] == [False, False]
    assert grown < kept / 10
