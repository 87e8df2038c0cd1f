"""One run of a workflow, from its input to its outcome."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from types import TracebackType
from typing import Any, Self

from ..adapters.errors import ComposeError, ConfigError
from ..adapters.events import FinishReason, Usage
from .jobs import Caller, Failure, Happening, JobFinished, Jobs, JobStarted, JobText, Outcome, Part, State, Task
from .mailbox import Mailbox
from .references import CastError

_log = logging.getLogger(__name__)

DEEPEST = 16
"""How many workflows may be inside each other."""

_callers: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("_callers", default=())


class RunCancelled(ComposeError):
    """The run was ended before it had its outcome."""

    code = "cancelled"


def is_nested() -> bool:
    """Whether this is called from within a run."""
    return bool(_callers.get())


class Run:
    """A run lives in `async with`; leaving ends it and all it started. One reader takes what it tells:

    `happenings()` up to the outcome, then the parts of the outcome's stream; or `outcome()`; or `value()`.
    Each of them raises the error that ends the run, which names the job if there are several. Times are Unix seconds.
    """

    def __init__(self, task: Task, call: Caller, slot: AbstractAsyncContextManager[Any]) -> None:
        """`slot` is entered before the first job starts."""
        self.id = f"task_{secrets.token_hex(12)}"
        self.workflow = task.workflow.id
        self.state: State = "pending"
        self.created = time.time()
        self.finished: float | None = None
        self.output: Any = None
        self.failure: Failure | None = None
        self._task_of_jobs = task
        self._slot = slot
        self._mailbox: Mailbox[Happening] = Mailbox()
        self._jobs = Jobs(task, call, self._mailbox.put, self._parts())
        self._running: asyncio.Task[None] | None = None

    @property
    def usage(self) -> Usage:
        """The tokens that all model calls took so far."""
        return self._task_of_jobs.meter.usage

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the answer that the output is made of ended, once all of it was read; None if nobody says."""
        return self._task_of_jobs.end.reason

    @property
    def jobs(self) -> Mapping[str, State]:
        """How far each job is."""
        return self._jobs.states

    async def __aenter__(self) -> Self:
        callers = (*_callers.get(), self.workflow)
        if len(callers) > DEEPEST:
            chain = " -> ".join(callers[-4:])
            raise ConfigError(f"workflows call each other more than {DEEPEST} deep: ... -> {chain}")
        context = contextvars.copy_context()
        context.run(_callers.set, callers)
        self._running = asyncio.create_task(self._perform(), name=f"run {self.id}", context=context)
        self._running.add_done_callback(lambda _: self._end("cancelled", RunCancelled("the run was cancelled")))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._running is not None
        self._running.cancel()
        await asyncio.wait({self._running})

    def cancel(self) -> None:
        """End the run; whoever reads it gets `RunCancelled`."""
        if self._running is not None:
            self._running.cancel()

    async def happenings(self) -> AsyncGenerator[JobStarted | JobText | JobFinished | Outcome]:
        """What happens, up to and with the outcome."""
        while (happening := await self._mailbox.get()) is not None:
            if isinstance(happening, Part):
                continue
            yield happening
            if isinstance(happening, Outcome):
                return

    async def outcome(self) -> Any:
        """The workflow's output as soon as it is clear: a value, or a tree with a stream in it."""
        async with aclosing(self.happenings()) as happenings:
            async for happening in happenings:
                if isinstance(happening, Outcome):
                    return happening.tree
        raise AssertionError

    async def value(self) -> Any:
        """The whole output."""
        while await self._mailbox.get() is not None:
            pass
        return self.output

    async def _parts(self) -> AsyncGenerator[Any]:
        while (happening := await self._mailbox.get()) is not None:
            if isinstance(happening, Part):
                yield happening.part

    async def _perform(self) -> None:
        try:
            async with self._slot:
                self.state = "processing"
                self.output = await self._jobs.perform()
        except ExceptionGroup as group:
            self.failure = self._jobs.failure
            self._end("failed", self._told(group))
        else:
            self._end("completed", None)

    def _end(self, state: State, error: Exception | None) -> None:
        """Take note of the end, unless there has been one."""
        if self.finished is None:
            self.state = state
            self.finished = time.time()
            self._mailbox.close(error)

    def _told(self, group: ExceptionGroup[Exception]) -> Exception:
        """The error of the job that failed first, with the job's name if there are several."""
        if self.failure is None:
            return group
        job, error = self.failure.job, self.failure.error
        if not isinstance(error, ComposeError):
            _log.error("workflow '%s', job '%s' failed", self.workflow, job, exc_info=error)
            return error
        if isinstance(error, CastError) and not (error.param or "").startswith("input"):
            error = ComposeError(error.message)  # no fault of the client's, who did not send that value
        return error if len(self.jobs) == 1 else _in_job(job, error)


def _in_job(job: str, error: ComposeError) -> ComposeError:
    """An error of the same kind whose message begins with the job; the first may be raised elsewhere too."""
    named = type(error).__new__(type(error))
    ComposeError.__init__(
        named,
        f"job '{job}': {error.message}",
        param=error.param,
        code=error.code,
        retry_after=error.retry_after,
        status=error.status,
    )
    named.__cause__ = error
    return named
