"""One HTTP/1.1 connection, from the side that asks.

httptools parses, as it does in uvicorn. All that came in one read is handed on as one piece, so that many small chunks
cost little more than a large one; a general HTTP client costs several times as much (`benchmarks/proxy.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self, cast

import httptools
import msgspec

from .troubles import Broken, TooSlow, Trouble

MOST_WAITING = 1 << 20
"""Bytes that may wait to be read before the server has to stop sending."""

LARGEST_HEAD = 64 * 1024
SECONDS_TO_END = 1.0


class Patience(msgspec.Struct, frozen=True):
    """Seconds to wait: for a connection, then for the answer's first byte, then between any two; None is for ever."""

    connect: float = 10.0
    first_byte: float | None = None
    idle: float | None = 300.0


class Connection(asyncio.Protocol):
    """Asks one request after another; the answer to the last one is read before the next is asked.

    `is_free` is called when another request may be asked, `is_over` when the connection has ended.
    """

    def __init__(
        self, patience: Patience, is_free: Callable[[Connection], None], is_over: Callable[[Connection], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._patience = patience
        self._is_free = is_free
        self._is_over = is_over
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._limit: float | None = None
        self._waits_since = 0.0
        self.free_since = 0.0
        self._begin()

    def _begin(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.has_heard = False
        self.is_complete = False
        self._is_asked = False
        self._has_head = False
        self._has_body = False
        self._head_size = 0
        self._is_kept = False
        self._is_left = False
        self._is_paused = False
        self._pieces: list[bytes] = []
        self._size = 0
        self._trouble: Trouble | None = None

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    # The side of those who ask

    async def ask(self, request: bytes) -> Self:
        """Send a whole request and wait for the head of its answer: `status` and `headers`; raises Trouble."""
        self._begin()
        if self._transport is None or self._transport.is_closing():
            raise Broken("the connection has ended")
        self._is_asked = True
        self._transport.write(request)
        try:
            while not self._has_head:
                if self._trouble is not None:
                    raise self._trouble
                await self._news(self._patience.first_byte)
        except BaseException:
            self.close()
            raise
        return self

    async def read(self) -> bytes:
        """What of the answer's body has come since the last call, waiting for it; empty at its end; raises Trouble."""
        while not self._pieces:
            if self._trouble is not None:
                raise self._trouble
            if self.is_complete:
                return b""
            await self._news(self._patience.idle if self._has_body else self._patience.first_byte)
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()
        return data

    def leave(self, *, is_ending: bool = False) -> None:
        """Have done with the answer. One that is not complete ends the connection, unless `is_ending` says that it is
        about to be.
        """
        if self._is_left or not self._is_asked:
            return
        self._is_left = True
        if self.is_complete:
            self._free()
        elif is_ending and self.is_open and not self._is_paused:
            self._loop.call_later(SECONDS_TO_END, self._give_up, self._parser)
        else:
            self.close()

    def close(self) -> None:
        """End the connection now."""
        if self._transport is not None:
            self._transport.abort()

    async def _news(self, seconds: float | None) -> None:
        """Wait until something has come, but no longer than so many seconds."""
        self._waiter = self._loop.create_future()
        self._limit = seconds
        if seconds is not None:
            self._waits_since = self._loop.time()
            # One timer serves many waits: to start and cancel one for every chunk costs more than the chunk.
            if self._timer is None or self._timer.when() > self._waits_since + seconds:
                self._set_timer(seconds)
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _set_timer(self, seconds: float) -> None:
        self._end_timer()
        self._timer = self._loop.call_later(seconds, self._look_at_the_clock)

    def _end_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_at_the_clock(self) -> None:
        self._timer = None
        if self._waiter is None or self._limit is None:
            return
        left = self._waits_since + self._limit - self._loop.time()
        if left > 0:
            self._set_timer(left)
        else:
            self._fail(TooSlow(f"nothing came for {self._limit:g} seconds"))

    def _give_up(self, parser: httptools.HttpResponseParser) -> None:
        if parser is self._parser and not self.is_complete:
            self.close()

    def _free(self) -> None:
        if self._is_kept and self.is_open:
            self._is_asked = False
            self.free_since = self._loop.time()
            self._is_free(self)
        else:
            self.close()

    def _fail(self, trouble: Trouble) -> None:
        if self._trouble is None and not self.is_complete:
            self._trouble = trouble
        self._wake()
        self.close()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if not self._is_asked:
            self.close()
            return
        self.has_heard = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(Broken(f"this is no HTTP: {error}"))
        if not self._has_head:
            self._head_size += len(data)
            if self._head_size > LARGEST_HEAD:
                self._fail(Broken(f"its head has more than {LARGEST_HEAD} bytes"))
        self._wake()
        if self._size > MOST_WAITING and not self._is_paused and self._transport is not None and self.is_open:
            self._is_paused = True
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._is_asked and not self.is_complete:
            if self._has_head and self._ends_with_connection and exc is None:
                self.is_complete = True
            elif self._trouble is None:
                self._trouble = Broken("the connection ended before the answer did")
            self._wake()
        self._transport = None
        self._end_timer()
        self._is_over(self)

    @property
    def _ends_with_connection(self) -> bool:
        return b"content-length" not in self.headers and b"transfer-encoding" not in self.headers

    # The parser's side

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self._is_kept = self._parser.should_keep_alive()
        self._has_head = self.status >= 200
        if not self._has_head:
            self.headers = {}

    def on_body(self, data: bytes) -> None:
        if self._is_left:
            return
        self._has_body = True
        self._pieces.append(data)
        self._size += len(data)

    def on_message_complete(self) -> None:
        if not self._has_head:
            return
        self.is_complete = True
        if self._is_left:
            self._free()
