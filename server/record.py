"""What is known of one request while it is answered: id, times, tokens; and the line about it in the log."""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable, Mapping
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..adapters.events import Accepted, Event, Usage

_log = logging.getLogger(__name__)

_SANE_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_OPENAI_VERSION = (b"openai-version", b"2020-10-01")


class Record:
    """One request. Times are of `time.perf_counter`.

    `headers` are the client's, of those given several times the last. `endpoint` and `model` are set once it is clear
    that they exist here; until then they are empty. `send` is the server's own: the layers above a route only care for
    the start of an answer, and a chunk need not pass them all.
    """

    def __init__(self, scope: Scope, send: Send) -> None:
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.id = _request_id(self.headers)
        self.method: str = scope["method"]
        self._path: str = scope["path"]
        self.send = send
        self.started = time.perf_counter()
        self.first_token: float | None = None
        self.endpoint = ""
        self.model = ""
        self.status: int | None = None
        self.usage: Usage | None = None
        self.has_left = False

    @property
    def path(self) -> str:
        """Quoted, so that no path can look like another line of the log."""
        return quote(self._path[:200])

    @staticmethod
    def of(scope: Scope) -> Record:
        """The record of the request that `scope` belongs to."""
        record: Record = scope["modelcompose.record"]
        return record

    def see(self, event: Event) -> None:
        """Take note of what an event says about times and tokens."""
        if self.first_token is None and not isinstance(event, Accepted):
            self.first_token = time.perf_counter()
        if isinstance(event, Usage):
            self.usage = event

    def line(self, now: float) -> str:
        """What the log says about this request when it is over, at the time `now`."""
        words = [self.id, self.method, self.path, str(self.status or "-")]
        if self.model:
            words.append(f"model={self.model}")
        if self.usage is not None:
            words.append(f"tokens={self.usage.prompt_tokens}+{self.usage.completion_tokens}")
        if self.first_token is not None:
            words.append(f"first_token={self.first_token - self.started:.3f}s")
            if self.usage is not None and now > self.first_token and self.usage.completion_tokens > 1:
                words.append(f"rate={(self.usage.completion_tokens - 1) / (now - self.first_token):.1f}/s")
        words.append(f"time={now - self.started:.3f}s")
        return " ".join([*words, "client left"] if self.has_left else words)


class Recorder:
    """ASGI middleware that gives every request its record, the answer its headers, and the log its line."""

    def __init__(self, app: ASGIApp, over: Callable[[Record, float], None]) -> None:
        self.app = app
        self.over = over

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        record = scope["modelcompose.record"] = Record(scope, send)

        async def noting_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                milliseconds = round((time.perf_counter() - record.started) * 1000)
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", record.id.encode()),
                    _OPENAI_VERSION,
                    (b"openai-processing-ms", b"%d" % milliseconds),
                ]
            await send(message)

        try:
            await self.app(scope, receive, noting_send)
        finally:
            # The server's `send` knows the scope: without this each request would be garbage in a circle.
            del scope["modelcompose.record"]
            now = time.perf_counter()
            self.over(record, now)
            level = logging.INFO if record.endpoint else logging.DEBUG
            if _log.isEnabledFor(level):
                _log.log(level, "%s", record.line(now))


def _request_id(headers: Mapping[bytes, bytes]) -> str:
    """The client's own id if it is one, so that its logs and ours can be read together."""
    given = headers.get(b"x-request-id")
    if given and _SANE_ID.fullmatch(text := given.decode("latin-1")):
        return text
    # No secret, and the system's randomness costs a call of the system.
    return f"req_{random.getrandbits(96):024x}"
