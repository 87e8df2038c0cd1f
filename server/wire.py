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


async def while_connected(receive: Receive, wire: Wire, work: Coroutine[Any, Any, None], *, every: float) -> bool:
    """Do `work`, which sends on `wire`, unless the client leaves, which ends it; whether the client stayed.

    `every` so many seconds it is seen to that the client hears something.
    """
    doing = asyncio.create_task(work)
    gone = asyncio.create_task(_disconnected(receive))
    try:
        while not (await asyncio.wait((doing, gone), timeout=every, return_when="FIRST_COMPLETED"))[0]:
            await wire.keep_alive()
        # The server also reports a disconnect when the response is complete.
        if not (doing.done() or wire.is_closed):
            return False
        await doing
        return True
    finally:
        await _cancel(doing, gone)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancel(*tasks: asyncio.Task[None]) -> None:
    """Stop what still runs and wait until it has."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
