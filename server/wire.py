"""The sending side of a response that takes its time, and noticing that the client has left."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from starlette.types import Receive, Send

from ..adapters.errors import ModelUnavailable
from .encode import KEEP_ALIVE
from .errors import OK

JSON = [(b"content-type", b"application/json")]
EVENT_STREAM = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]

SECONDS_BEFORE_WATCH = 0.05
"""From the beginning of an answer, where most are over sooner; who has left sooner is noticed then."""


def shutting_down() -> ModelUnavailable:
    """What clients hear whose answers the end of the server breaks off."""
    return ModelUnavailable("This server is shutting down.", retry_after=5)


class Wire:
    """The sending side of one response: open, write, close; and a comment when nothing else was sent for a while.

    `start` takes the message that begins the response, `send` all others. The wire is busy while a message is under
    way, and for ever after the last one. The headers that are due go out as soon as nothing else
    was sent for a while.
    """

    def __init__(self, start: Send, send: Send) -> None:
        self._start = start
        self._send = send
        self.is_busy = False
        self._was_silent = False
        self.due: list[tuple[bytes, bytes]] = []
        self.is_open = False
        self.is_closed = False

    async def open(self, headers: list[tuple[bytes, bytes]], status: int = OK) -> None:
        self.is_open = self.is_busy = True
        # Whoever sends may add headers of his own to the list.
        await self._start({"type": "http.response.start", "status": status, "headers": [*headers]})
        self.is_busy = False

    async def write(self, data: bytes) -> None:
        if data:
            self.is_busy = True
            await self._send({"type": "http.response.body", "body": data, "more_body": True})
            self.is_busy = self._was_silent = False

    async def close(self, data: bytes) -> None:
        """Send the last of it."""
        self.is_busy = self.is_closed = True
        await self._send({"type": "http.response.body", "body": data})

    async def keep_alive(self) -> None:
        """Send a comment if nothing was sent since the last call; what is under way must not be interrupted."""
        if self.due and not self.is_open:
            await self.open(self.due)
        if self.is_open and self._was_silent and not self.is_busy:
            await self.write(KEEP_ALIVE)
        self._was_silent = True


async def while_connected(
    receive: Receive, wire: Wire, work: Coroutine[Any, Any, None], *, every: float | None, later: Later | None = None
) -> bool:
    """Do `work`, which sends on `wire`, unless the client leaves, which ends it; whether the client stayed.

    `every` so many seconds it is seen to that the client hears something, unless it is None. Whether it is there is
    looked at from the beginning, or `later`.
    """
    watch = _Watch(receive, wire)
    if later is None:
        watch.begin()
    else:
        later.add(watch)
    heartbeat = None if every is None else _Heartbeat(wire, every)
    try:
        await work
    except BaseException:
        # Whatever the work says of being ended, nobody is there any more to hear it.
        if watch.has_ended_it():
            return False
        raise
    finally:
        if later is not None:
            later.discard(watch)
        watch.end()
        if heartbeat is not None:
            heartbeat.stop()
    return True


class _Watch:
    """Ends what the current task does if the client leaves before the response is complete."""

    def __init__(self, receive: Receive, wire: Wire) -> None:
        doing = asyncio.current_task()
        assert doing is not None
        self._receive = receive
        self._wire = wire
        self._doing = doing
        self._cancels = doing.cancelling()
        self._has_left = False
        self._watching: asyncio.Task[None] | None = None

    def begin(self) -> None:
        self._watching = asyncio.create_task(self._watch())

    def end(self) -> None:
        if self._watching is not None:
            self._watching.cancel()

    def has_ended_it(self) -> bool:
        """Whether this, and nothing else, has ended the task's work; the task is no longer cancelled then."""
        return self._has_left and self._doing.uncancel() <= self._cancels

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        # The server also reports a disconnect when the response is complete.
        if not self._wire.is_closed:
            self._has_left = True
            self._doing.cancel()


class Later:
    """Begins the watches that were added, after `SECONDS_BEFORE_WATCH`, unless they were discarded by then. One timer
    serves all: to start and cancel one, or a task, for each short answer costs a tenth of the answer.
    """

    def __init__(self) -> None:
        self._new: set[_Watch] = set()
        self._due: set[_Watch] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, watch: _Watch) -> None:
        self._new.add(watch)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SECONDS_BEFORE_WATCH / 2, self._tick)

    def discard(self, watch: _Watch) -> None:
        self._new.discard(watch)
        self._due.discard(watch)

    def _tick(self) -> None:
        for watch in self._due:
            watch.begin()
        self._due, self._new = self._new, set()
        self._timer = None
        if self._due:
            self._timer = asyncio.get_running_loop().call_later(SECONDS_BEFORE_WATCH / 2, self._tick)


class _Heartbeat:
    """Lets the client of a wire hear something from time to time."""

    def __init__(self, wire: Wire, every: float) -> None:
        self._wire = wire
        self._every = every
        self._loop = asyncio.get_running_loop()
        self._sending: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(every, self._beat)

    def _beat(self) -> None:
        if self._sending is None or self._sending.done():
            self._sending = self._loop.create_task(self._wire.keep_alive())
        self._timer = self._loop.call_later(self._every, self._beat)

    def stop(self) -> None:
        self._timer.cancel()
        if self._sending is not None:
            self._sending.cancel()
