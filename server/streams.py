"""Sending an answer while it is made, or when it is whole; and noticing that the client has left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import cast

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..adapters.errors import ModelUnavailable
from ..adapters.events import Event, Finish, TextDelta, collect
from .encode import DONE, KEEP_ALIVE, Encoder, error_chunk
from .errors import OK, failure, log_unexpected
from .record import Record

_JSON = [(b"content-type", b"application/json")]
_EVENT_STREAM = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
_UNFINISHED = "the adapter's events ended before every choice had its Finish"


class Wire:
    """The sending side of one response: open, write, close; and a comment when nothing else was sent for a while.

    `start` takes the message that begins the response, `send` all others. The wire is busy while a message is under
    way, and for ever after the last one.
    """

    def __init__(self, start: Send, send: Send) -> None:
        self._start = start
        self._send = send
        self.is_busy = False
        self._was_silent = False
        self.is_open = False
        self.is_closed = False

    async def open(self, headers: list[tuple[bytes, bytes]]) -> None:
        self.is_open = True
        # Whoever sends may add headers of his own to the list.
        await self._start({"type": "http.response.start", "status": OK, "headers": [*headers]})

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
        if self.is_open and self._was_silent and not self.is_busy:
            await self.write(KEEP_ALIVE)
        self._was_silent = True


class Answer(Response):
    """The response to a generation request. If the client leaves, `events` are closed at once.

    Headers go out with the first event; what is raised before it is raised to the caller, what is raised later goes to
    the client in the stream.
    """

    def __init__(
        self,
        events: AsyncIterator[Event],
        encoder: Encoder,
        record: Record,
        *,
        choices: int,
        is_stream: bool,
        keep_alive: float,
    ) -> None:
        """`choices` is how many answers there will be; a stream is never silent for twice `keep_alive` seconds."""
        super().__init__()
        self._events = cast(AsyncGenerator[Event], events)
        self._encoder = encoder
        self._record = record
        self._choices = choices
        self._is_stream = is_stream
        self._keep_alive = keep_alive

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wire = Wire(send, self._record.send)
        work = asyncio.create_task(self._stream(wire) if self._is_stream else self._whole(wire))
        gone = asyncio.create_task(_disconnected(receive))
        try:
            while not (await asyncio.wait((work, gone), timeout=self._keep_alive, return_when="FIRST_COMPLETED"))[0]:
                if self._is_stream:
                    await wire.keep_alive()
            # The server also reports a disconnect when the response is complete.
            if work.done() or wire.is_closed:
                await work
            else:
                self._record.has_left = True
        except asyncio.CancelledError:
            # Only a server that shuts down cancels a request, and its client should hear why the answer ends.
            await _cancel(work, gone)
            await self._break_off(wire)
        finally:
            await _cancel(work, gone)

    async def _break_off(self, wire: Wire) -> None:
        error = ModelUnavailable("This server is shutting down.", retry_after=5)
        if not wire.is_open:
            raise error
        if self._is_stream and not wire.is_busy:
            await wire.close(self._failed(error))

    def _failed(self, error: Exception) -> bytes:
        """How a stream ends that has begun and cannot go on."""
        return error_chunk(failure(error, self._record).envelope) + DONE

    async def _whole(self, wire: Wire) -> None:
        async with aclosing(self._observed()) as events:
            completion = await collect(events)
        if len(completion.choices) != self._choices or any(c.finish_reason is None for c in completion.choices):
            raise RuntimeError(_UNFINISHED)
        body = self._encoder.whole(completion)
        await wire.open([*_JSON, (b"content-length", str(len(body)).encode())])
        await wire.close(body)

    async def _observed(self) -> AsyncGenerator[Event]:
        async with aclosing(self._events) as events:
            async for event in events:
                self._record.see(event)
                yield event

    async def _stream(self, wire: Wire) -> None:
        unfinished = set(range(self._choices))
        record, encode = self._record, self._encoder.chunk
        try:
            async with aclosing(self._events) as events:
                async for event in events:
                    if record.first_token is None or not isinstance(event, TextDelta):
                        record.see(event)
                        if isinstance(event, Finish):
                            unfinished.discard(event.choice)
                        if not wire.is_open:
                            await wire.open(_EVENT_STREAM)
                            await wire.write(self._encoder.opening())
                    await wire.write(encode(event))
            if unfinished:
                raise RuntimeError(_UNFINISHED)
        except Exception as error:
            if not wire.is_open:
                raise
            log_unexpected(error, self._record)
            await wire.close(self._failed(error))
        else:
            await wire.close(DONE)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancel(*tasks: asyncio.Task[None]) -> None:
    """Stop what still runs and wait until it has."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
