"""Sending an answer while it is made, or when it is whole; and noticing that the client has left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Self, cast

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..adapters.events import Event, Finish, collect
from .encode import DONE, KEEP_ALIVE, Encoder, error_chunk
from .errors import failure, log_unexpected
from .record import Record

_STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
_MOST_PENDING = 1024 * 1024
"""Bytes that may wait for a slow client before the model's events wait too."""


_UNFINISHED = "the adapter's events ended before every choice had its Finish"


class Outbox:
    """Bytes on their way to a client. What is put in while a write is under way goes out together in the next one.

    While it is open and nothing else is sent for `keep_alive` seconds, a comment is.
    """

    def __init__(self, keep_alive: float) -> None:
        self._keep_alive = keep_alive
        self._parts: list[bytes] = []
        self._size = 0
        self._filled = asyncio.Event()
        self._taken = asyncio.Event()
        self._is_open = False
        self._is_closed = False
        self._was_silent = False

    def __enter__(self) -> Self:
        self._timer = asyncio.get_running_loop().call_later(self._keep_alive, self._tick)
        return self

    def __exit__(self, *exc: object) -> None:
        self._timer.cancel()

    @property
    def is_open(self) -> bool:
        """Whether the answer has begun."""
        return self._is_open

    def put(self, data: bytes) -> None:
        """Send `data` soon; the first call begins the answer, even with nothing to send yet."""
        if data or not self._is_open:
            self._is_open = True
            self._parts.append(data)
            self._size += len(data)
            self._was_silent = False
            self._filled.set()

    def close(self) -> None:
        """Nothing more will be put in."""
        self._is_closed = True
        self._filled.set()

    async def room(self) -> None:
        """Wait until the client has taken enough of what is pending."""
        while self._size > _MOST_PENDING:
            self._taken.clear()
            await self._taken.wait()

    async def take(self) -> tuple[bytes, bool]:
        """All that is pending, as soon as there is something, and whether more can come."""
        await self._filled.wait()
        self._filled.clear()
        data = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        self._taken.set()
        return data, not self._is_closed

    def _tick(self) -> None:
        if self._is_open and self._was_silent:
            self.put(KEEP_ALIVE)
        self._was_silent = True
        self._timer = asyncio.get_running_loop().call_later(self._keep_alive, self._tick)


class Answer(Response):
    """The response to a generation request. If the client leaves, `events` are closed at once.

    Headers go out with the first event; what is raised before it is raised to the caller, what is raised later goes to
    the client in the stream.
    """

    def __init__(
        self, events: AsyncIterator[Event], encoder: Encoder, record: Record, *, choices: int, keep_alive: float | None
    ) -> None:
        """`choices` is how many answers there will be; `keep_alive` is None if the client wants it whole."""
        super().__init__()
        self._events = events
        self._encoder = encoder
        self._record = record
        self._choices = choices
        self._keep_alive = keep_alive

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = self._whole(send) if self._keep_alive is None else self._stream(send, self._keep_alive)
        work = asyncio.create_task(sending)
        gone = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            # The server also reports a disconnect when the response is complete.
            if work.done() or self._record.is_complete:
                await work
            else:
                self._record.has_left = True
        finally:
            await _cancel(work, gone)

    async def _whole(self, send: Send) -> None:
        completion = await collect(self._observed())
        if len(completion.choices) != self._choices or any(c.finish_reason is None for c in completion.choices):
            raise RuntimeError(_UNFINISHED)
        body = self._encoder.whole(completion)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        self._record.is_complete = True
        await send({"type": "http.response.body", "body": body})

    async def _stream(self, send: Send, keep_alive: float) -> None:
        with Outbox(keep_alive) as outbox:
            reader = asyncio.create_task(self._read(outbox))
            try:
                data, more = await outbox.take()
                if not outbox.is_open:
                    await reader
                start = Response(headers=_STREAM_HEADERS, media_type="text/event-stream")
                headers = [header for header in start.raw_headers if header[0] != b"content-length"]
                await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
                while more:
                    if data:
                        await send({"type": "http.response.body", "body": data, "more_body": True})
                    data, more = await outbox.take()
                self._record.is_complete = True
                await send({"type": "http.response.body", "body": data})
            finally:
                await _cancel(reader)

    async def _read(self, outbox: Outbox) -> None:
        """Fill `outbox` from the events; closed at the end, whatever the end is."""
        unfinished = set(range(self._choices))
        try:
            async with aclosing(self._observed()) as events:
                async for event in events:
                    if not outbox.is_open:
                        outbox.put(self._encoder.opening())
                    outbox.put(self._encoder.chunk(event))
                    if isinstance(event, Finish):
                        unfinished.discard(event.choice)
                    await outbox.room()
            if unfinished:
                raise RuntimeError(_UNFINISHED)
            outbox.put(DONE)
        except Exception as error:
            if not outbox.is_open:
                raise
            log_unexpected(error, self._record)
            outbox.put(error_chunk(failure(error, self._record).envelope) + DONE)
        finally:
            outbox.close()

    async def _observed(self) -> AsyncGenerator[Event]:
        async with aclosing(cast(AsyncGenerator[Event], self._events)) as events:
            async for event in events:
                self._record.see(event)
                yield event


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancel(*tasks: asyncio.Task[None]) -> None:
    """Stop what still runs and wait until it has."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
