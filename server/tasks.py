"""The runs that were asked for: those under way, and for a while those that have ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from ..adapters.errors import ComposeError
from ..adapters.events import Usage
from ..adapters.runs import News, Run, RunState
from .errors import CANCELLED, Failure, log_unexpected, run_failure
from .record import Record

Tell = Callable[[News], Awaitable[None]]

SECONDS_KEPT = 3600.0
MOST_KEPT = 1000


@dataclass(frozen=True, slots=True)
class Task:
    """A run at one moment; `failure` is why it has no output. Times are in Unix seconds."""

    task_id: str
    workflow_id: str
    status: RunState
    created_at: float
    finished_at: float | None
    jobs: Mapping[str, RunState]
    usage: Usage
    output: Any = None
    failure: Failure | None = None
    failed_job: str | None = None

    @staticmethod
    def of(run: Run, failure: Failure | None = None) -> Task:
        """The run as it is now."""
        return Task(
            task_id=run.id,
            workflow_id=run.workflow,
            status=run.state,
            created_at=run.created,
            finished_at=run.finished,
            jobs=dict(run.jobs),
            usage=run.usage,
            output=run.output,
            failure=failure,
            failed_job=run.failed_job,
        )

    @property
    def summary(self) -> dict[str, Any]:
        """What the one who asked for the run gets: the output, or the error."""
        body: dict[str, Any] = {"task_id": self.task_id, "status": self.status}
        if self.failure is not None:
            return {**body, "error": {**self.failure.envelope["error"], "job": self.failed_job}}
        return {**body, "output": self.output} if self.status == "completed" else body

    @property
    def details(self) -> dict[str, Any]:
        """All that is known of it."""
        usage = {
            "prompt_tokens": self.usage.prompt_tokens,
            "completion_tokens": self.usage.completion_tokens,
            "total_tokens": self.usage.total_tokens,
        }
        return {
            **self.summary,
            "workflow_id": self.workflow_id,
            "created_at": self.created_at,
            "finished_at": self.finished_at,
            "jobs": self.jobs,
            "usage": usage,
        }


class Tasks:
    """All tasks of a server; a finished one is kept for `SECONDS_KEPT` and until there are `MOST_KEPT` newer ones."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._running: dict[str, Run] = {}
        self._over: dict[str, asyncio.Event] = {}
        self._ended: dict[str, tuple[float, Task]] = {}
        self._unattended: set[asyncio.Task[Task]] = set()

    @asynccontextmanager
    async def lifespan(self, _app: object) -> AsyncIterator[None]:
        """While an app lives; the runs that nobody waits for end with it."""
        yield
        for task in self._unattended:
            task.cancel()
        await asyncio.gather(*self._unattended, return_exceptions=True)

    async def perform(self, run: Run, record: Record, tell: Tell, *, stream: bool | None = None) -> Task:
        """Perform a run, handing on its news; what has come of it, which is kept. If this is cancelled, the run is."""
        failure: Failure | None = None
        self._begin(run)
        try:
            async with run, aclosing(run.news(stream=stream)) as news:
                async for each in news:
                    await tell(each)
        except asyncio.CancelledError:
            if run.state == "cancelled":
                left = ComposeError("the run was cancelled, for nobody waited for it any more", code=CANCELLED)
                failure = run_failure(left, record)
            raise
        except Exception as error:
            log_unexpected(error, record)
            failure = run_failure(run.error or error, record)
        finally:
            task = Task.of(run, failure)
            del self._running[run.id]
            self._over.pop(run.id).set()
            self._ended[run.id] = (self._clock(), task)
            self._forget()
        return task

    def start(self, run: Run, record: Record) -> Task:
        """Perform a run that nobody waits for."""
        self._begin(run)
        task = asyncio.create_task(self.perform(run, record, _no_one, stream=False), name=f"task {run.id}")
        self._unattended.add(task)
        task.add_done_callback(self._unattended.discard)
        return Task.of(run)

    def find(self, id: str) -> Task | None:
        """The task of that id, if there is one or was one lately."""
        self._forget()
        if (run := self._running.get(id)) is not None:
            return Task.of(run)
        return self._ended[id][1] if id in self._ended else None

    async def cancel(self, id: str) -> None:
        """End the run of that id, if it is under way, and wait until it has ended."""
        if (run := self._running.get(id)) is not None:
            run.cancel()
            await self._over[id].wait()

    def _begin(self, run: Run) -> None:
        self._running[run.id] = run
        self._over.setdefault(run.id, asyncio.Event())

    def _forget(self) -> None:
        """Let go of what is too old, or one too many; the dictionary has the oldest first."""
        deadline = self._clock() - SECONDS_KEPT
        while self._ended:
            oldest = next(iter(self._ended))
            if self._ended[oldest][0] >= deadline and len(self._ended) <= MOST_KEPT:
                return
            del self._ended[oldest]


async def _no_one(_news: News) -> None:
    """Nobody wants to know."""
