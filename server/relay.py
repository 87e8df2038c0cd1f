"""Handing on requests to models whose servers speak OpenAI's API too, and their answers back.

What such a server takes need not be known here: of the body only the model's name and `stream` are looked at.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..adapters.base import Adapter
from ..adapters.errors import ModelNotFound
from ..adapters.relay import Relayed, RelayingAdapter, RelayRequest, Route
from .catalogue import find
from .encode import DONE, error_chunk
from .errors import failure, log_unexpected
from .record import Record
from .wire import EVENT_STREAM, JSON, Wire, shutting_down, while_connected

_PASSED_ON = frozenset({b"traceparent", b"tracestate", b"x-data-parallel-rank"})
"""The headers that are for the model's server too."""

_TRUE = (True, 1, "true", "True", "1")
"""What vLLM takes for true."""


class _Glance(msgspec.Struct):
    model: str
    stream: bool | int | str | None = None


_glance = msgspec.json.Decoder(_Glance)


def relayed(
    request: Request, body: bytes, route: Route, models: Sequence[Adapter], keep_alive: float
) -> RelayedResponse | None:
    """The response to a request for a model that is reached through OpenAI's API; None for all others, also for those
    that are wrong: what is wrong with them is said elsewhere.
    """
    try:
        glance = _glance.decode(body)
        adapter, card = find(models, glance.model)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ModelNotFound):
        return None
    if not isinstance(adapter, RelayingAdapter):
        return None
    record = Record.of(request.scope)
    record.model = card.id
    is_stream = glance.stream in _TRUE
    headers = tuple(header for header in request.scope["headers"] if header[0] in _PASSED_ON)
    asked = RelayRequest(model=card.id, route=route, body=body, is_stream=is_stream, headers=headers)
    return RelayedResponse(adapter.relay(asked), record, is_stream=is_stream, keep_alive=keep_alive)


class RelayedResponse(Response):
    """The response to a relayed request. If the client leaves, the request to the model's server is closed at once.

    The head goes out with the first piece, or in a stream that has been accepted, after `keep_alive` seconds.
    """

    def __init__(self, answer: Relayed, record: Record, *, is_stream: bool, keep_alive: float) -> None:
        super().__init__()
        self._answer = answer
        self._record = record
        self._is_stream = is_stream
        self._keep_alive = keep_alive

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wire = Wire(send, self._record.send)
        work = self._stream(wire) if self._is_stream else self._whole(wire)
        try:
            self._record.has_left = not await while_connected(receive, wire, work, every=self._keep_alive)
        except asyncio.CancelledError:
            # Only a server that shuts down cancels a request, and its client should hear why the answer ends.
            if not wire.is_open:
                raise shutting_down() from None
            if self._is_stream and not wire.is_busy:
                await wire.close(self._failed(shutting_down()))
        finally:
            self._record.usage = self._answer.usage

    async def _whole(self, wire: Wire) -> None:
        async with aclosing(self._answer.pieces()) as pieces:
            body = b"".join([piece async for piece in pieces])
        self._record.first_token = time.perf_counter()
        await wire.open([*JSON, (b"content-length", str(len(body)).encode())])
        await wire.close(body)

    async def _stream(self, wire: Wire) -> None:
        try:
            async with aclosing(self._answer.pieces()) as pieces:
                async for piece in pieces:
                    if not wire.is_open:
                        wire.due = EVENT_STREAM
                        if not piece:
                            continue
                        await wire.open(EVENT_STREAM)
                    if self._record.first_token is None and piece:
                        self._record.first_token = time.perf_counter()
                    await wire.write(piece)
        except Exception as error:
            if not wire.is_open:
                raise
            log_unexpected(error, self._record)
            await wire.close(self._failed(error))
        else:
            await wire.close(b"")

    def _failed(self, error: Exception) -> bytes:
        """How a stream ends that has begun and cannot go on."""
        return error_chunk(failure(error, self._record).envelope) + DONE
