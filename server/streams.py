"""Sending an answer while it is made, or when it is whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import cast

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..adapters.events import Event, Finish, TextDelta, collect
from .encode import DONE, Encoder, error_chunk
from .errors import failure, log_unexpected
from .record import Record
from .wire import EVENT_STREAM, JSON, Wire, shutting_down, while_connected

_UNFINISHED = "the adapter's events ended before every choice had its Finish"


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
        work = self._stream(wire) if self._is_stream else self._whole(wire)
        try:
            self._record.has_left = not await while_connected(receive, wire, work, every=self._keep_alive)
        except asyncio.CancelledError:
            # Only a server that shuts down cancels a request, and its client should hear why the answer ends.
            await self._break_off(wire)

    async def _break_off(self, wire: Wire) -> None:
        if not wire.is_open:
            raise shutting_down()
        if self._is_stream and not wire.is_busy:
            await wire.close(self._failed(shutting_down()))

    def _failed(self, error: Exception) -> bytes:
        """How a stream ends that has begun and cannot go on."""
        return error_chunk(failure(error, self._record).envelope) + DONE

    async def _whole(self, wire: Wire) -> None:
        async with aclosing(self._observed()) as events:
            completion = await collect(events)
        if len(completion.choices) != self._choices or any(c.finish_reason is None for c in completion.choices):
            raise RuntimeError(_UNFINISHED)
        body = self._encoder.whole(completion)
        await wire.open([*JSON, (b"content-length", str(len(body)).encode())])
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
                            await wire.open(EVENT_STREAM)
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
