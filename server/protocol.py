"""How responses go onto the wire."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_HEAD = b"HTTP/1.1 "
_HAS_LENGTH = b"\r\ncontent-length: "


class Http(HttpToolsProtocol):
    """Uvicorn's protocol at less cost for small answers: the head of a response goes out together with what follows
    it, and a connection has one timer, not a new one after every response.
    """

    _free_since = 0.0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._joining = _JoiningTransport(transport, self.loop)
        super().connection_made(cast(asyncio.Transport, self._joining))
        self._look_after(self.timeout_keep_alive)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._timer is not None:
            self._timer.cancel()

    def on_response_complete(self) -> None:
        self._joining.flush()
        if self.pipeline or self.transport.is_closing():
            super().on_response_complete()
        else:
            self.server_state.total_requests += 1
            self.flow.resume_reading()
            self._free_since = self.loop.time()

    def _look_after(self, seconds: float) -> None:
        self._timer = self.loop.call_later(seconds, self._look)

    def _look(self) -> None:
        """Close the connection if it was free for long enough."""
        # The protocol's scope is that of the request whose head it is reading, or has read last.
        is_free = self.cycle is not None and self.cycle.response_complete and self.cycle.scope is self.scope
        left = self._free_since + self.timeout_keep_alive - self.loop.time()
        if not is_free:
            self._look_after(self.timeout_keep_alive)
        elif left > 0:
            self._look_after(left)
        else:
            self.timeout_keep_alive_handler()


class _JoiningTransport:
    """A transport that keeps the head of a response until the next write. One of a stream, whose first piece may be
    long in coming, is kept until the loop's next turn at most.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._kept = b""
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        if self._kept:
            data, self._kept = self._kept + data, b""
        elif data.startswith(_HEAD):
            self._kept = data
            if _HAS_LENGTH not in data:
                self._loop.call_soon(self.flush)
            return
        self._transport.write(data)

    def flush(self) -> None:
        """Send what is kept."""
        if self._kept:
            data, self._kept = self._kept, b""
            self._transport.write(data)

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
