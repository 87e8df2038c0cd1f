"""Handing on requests to models whose servers speak OpenAI's API too, and their answers back.

What such a server takes need not be known here: of the body only the model's name and `stream` are looked at.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing

import msgspec
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..adapters.base import Adapter
from ..adapters.relay import Relayed, RelayingAdapter, RelayRequest, Route
from .auth import authorize
from .encode import DONE, error_chunk
from .errors import failure, log_unexpected
from .limits import read_all
from .record import Record
from .settings import Settings
from .wire import EVENT_STREAM, JSON, Later, Wire, shutting_down, while_connected

_KINDS: tuple[tuple[Route, str], ...] = (("chat/completions", "chat.completions"), ("completions", "completions"))
_ROUTES = {f"{prefix}/{route}": (route, endpoint) for prefix in ("/v1", "") for route, endpoint in _KINDS}
_PASSED_ON = frozenset({b"traceparent", b"tracestate", b"x-data-parallel-rank"})
"""The headers that are for the model's server too."""

_TRUE = (True, 1, "true", "True", "1")
"""What vLLM takes for true."""


class _Glance(msgspec.Struct):
    model: str
    stream: bool | int | str | None = None


_glance = msgspec.json.Decoder(_Glance)


class Relays:
    """ASGI middleware that answers requests for models which are reached through OpenAI's API, and leaves all others
    to the app; also those that are wrong, as what is wrong with them is said there.
    """

    def __init__(self, app: ASGIApp, models: Sequence[Adapter], settings: Settings) -> None:
        self.app = app
        self._settings = settings
        self._later = Later()
        self._models = [(each, each if isinstance(each, RelayingAdapter) else None) for each in models]
        self._has_any = any(relaying is not None for _, relaying in self._models)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_post = scope["type"] == "http" and scope["method"] == "POST"
        if not (is_post and self._has_any and scope["path"] in _ROUTES):
            await self.app(scope, receive, send)
            return
        route, endpoint = _ROUTES[scope["path"]]
        record = Record.of(scope)
        record.endpoint = endpoint
        if self._settings.api_keys:
            authorize(Headers(scope=scope), self._settings.api_keys)
        body = await read_all(scope, receive, self._settings.max_body_bytes)
        asked = self._asked(body, route, scope)
        if asked is None:
            await self.app(scope, _again(body, receive), send)
            return
        adapter, relayed = asked
        record.model = relayed.model
        answer = _Answer(adapter.relay(relayed), record, self._settings.keep_alive, self._later)
        await answer.send(receive, send, is_stream=relayed.is_stream)

    def _asked(self, body: bytes, route: Route, scope: Scope) -> tuple[RelayingAdapter, RelayRequest] | None:
        """The request to be handed on, and to whom, if it is one of those."""
        try:
            glance = _glance.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        adapter = self._reaching(glance.model)
        if adapter is None:
            return None
        has_none = _PASSED_ON.isdisjoint(Record.of(scope).headers)
        headers = () if has_none else tuple([header for header in scope["headers"] if header[0] in _PASSED_ON])
        is_stream = glance.stream in _TRUE
        return adapter, RelayRequest(model=glance.model, route=route, body=body, is_stream=is_stream, headers=headers)

    def _reaching(self, name: str) -> RelayingAdapter | None:
        """The adapter that has the model of that name, if it is one of those that relay; the first one counts, as in
        `catalogue.find`.
        """
        for adapter, relaying in self._models:
            if relaying is not None and relaying.has(name):
                return relaying
            if relaying is None and any(card.id == name for card in adapter.cards()):
                return None
        return None


def _again(body: bytes, receive: Receive) -> Receive:
    """What gives a body that was read already once more."""
    is_given = False

    async def receive_again() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again


class _Answer:
    """The answer to a relayed request. If the client leaves, the request to the model's server is closed at once.

    The head goes out with the first piece, or in a stream that has been accepted, after `keep_alive` seconds.
    """

    def __init__(self, answer: Relayed, record: Record, keep_alive: float, later: Later) -> None:
        self._answer = answer
        self._record = record
        self._keep_alive = keep_alive
        self._later = later

    async def send(self, receive: Receive, send: Send, *, is_stream: bool) -> None:
        wire = Wire(send, self._record.send)
        work = self._stream(wire) if is_stream else self._whole(wire)
        try:
            every = self._keep_alive if is_stream else None
            self._record.has_left = not await while_connected(receive, wire, work, every=every, later=self._later)
        except asyncio.CancelledError:
            # Only a server that shuts down cancels a request, and its client should hear why the answer ends.
            if not wire.is_open:
                raise shutting_down() from None
            if is_stream and not wire.is_busy:
                await wire.close(self._failed(shutting_down()))
        finally:
            self._record.usage = self._answer.usage

    async def _whole(self, wire: Wire) -> None:
        body = await self._answer.whole()
        await wire.open([*JSON, (b"content-length", str(len(body)).encode())])
        await wire.close(body)

    async def _stream(self, wire: Wire) -> None:
        last = b""  # goes out together with the end of the response
        try:
            async with aclosing(self._answer.events()) as pieces:
                async for piece in pieces:
                    if not wire.is_open:
                        wire.due = EVENT_STREAM
                        if not piece:
                            continue
                        await wire.open(EVENT_STREAM)
                    if self._record.first_token is None and piece:
                        self._record.first_token = time.perf_counter()
                    if piece.endswith(DONE):
                        last = piece
                    else:
                        await wire.write(piece)
        except Exception as error:
            if not wire.is_open:
                raise
            log_unexpected(error, self._record)
            await wire.close(last or self._failed(error))
        else:
            await wire.close(last)

    def _failed(self, error: Exception) -> bytes:
        """How a stream ends that has begun and cannot go on."""
        return error_chunk(failure(error, self._record).envelope) + DONE
