"""The answer to someone who waits for a run: its output when it is whole, or piece by piece."""

from __future__ import annotations

import asyncio

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..adapters.runs import JobNews, News, Run, Streaming
from .errors import OK, run_failure
from .record import Record
from .run_events import EventEncoder
from .tasks import Task, Tasks
from .wire import EVENT_STREAM, JSON, Wire, shutting_down, while_connected


class RunAnswer(Response):
    """Performs a run and sends what comes of it; if the client leaves, the run ends.

    A stream begins with its first piece, so that a run that fails before is answered with its status; but it begins
    when its client has heard nothing for `keep_alive` seconds, and at once if the client has asked for it.
    """

    def __init__(
        self, run: Run, tasks: Tasks, record: Record, *, stream: bool | None, is_bare: bool, keep_alive: float
    ) -> None:
        """`is_bare` leaves out everything but the output from an answer that is no stream."""
        super().__init__()
        self._run = run
        self._tasks = tasks
        self._record = record
        self._stream = stream
        self._is_bare = is_bare
        self._keep_alive = keep_alive
        self._encoder = EventEncoder(tells_form=bool(stream))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wire = Wire(send, self._record.send)
        try:
            stayed = await while_connected(receive, wire, self._perform(wire), every=self._keep_alive)
            self._record.has_left = not stayed
        except asyncio.CancelledError:
            # Only a server that shuts down cancels a request, and its client should hear why the answer ends.
            if not wire.is_open:
                raise shutting_down() from None
            if not wire.is_busy:
                failure = run_failure(shutting_down(), self._record)
                await wire.close(self._encoder.last(Task.of(self._run, failure)))

    @property
    def _task_header(self) -> tuple[bytes, bytes]:
        """With it the client of a stream can look at its task, or end it, before the last event names it."""
        return b"x-task-id", self._run.id.encode()

    async def _perform(self, wire: Wire) -> None:
        headers = [*EVENT_STREAM, self._task_header]

        async def tell(news: News) -> None:
            if isinstance(news, Streaming):
                wire.due = headers
            elif self._stream or not isinstance(news, JobNews):
                if not wire.is_open:
                    await wire.open(headers)
                await wire.write(self._encoder.event(news))

        task = await self._tasks.perform(self._run, self._record, tell, stream=self._stream)
        self._record.usage = task.usage
        if wire.is_open:
            await wire.close(self._encoder.last(task))
        else:
            await self._send_whole(task, wire)

    async def _send_whole(self, task: Task, wire: Wire) -> None:
        failure = task.failure
        body = msgspec.json.encode(task.output if self._is_bare and failure is None else task.summary)
        headers = {"content-length": str(len(body)), **({} if failure is None else failure.headers)}
        encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
        await wire.open([*JSON, *encoded, self._task_header], OK if failure is None else failure.status)
        await wire.close(body)
