"""Several upstream servers as one: which of them gets a request, and which is next if it fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from functools import lru_cache
from types import TracebackType
from typing import Literal, Self

import msgspec

from ..errors import ComposeError, ModelUnavailable, UpstreamError
from ..relay import Route
from .affinity import key_of, rank
from .connection import Connection
from .endpoint import Endpoint
from .failures import TRY_ANOTHER, broken, refused, told
from .replica import Replica
from .settings import UpstreamSettings
from .troubles import Trouble

logger = logging.getLogger(__name__)

LARGEST_REFUSAL = 64 * 1024
END = b"data: [DONE]\n\n"


class Asking(msgspec.Struct, frozen=True, kw_only=True):
    """A request as the servers get it: `model` is their name for the model, and the one in `body`."""

    model: str
    route: Route | Literal["/tokenize"]
    body: bytes
    is_stream: bool
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Pool:
    """Servers with the same models. Entering it starts to look at them."""

    def __init__(self, settings: UpstreamSettings) -> None:
        self._settings = settings
        self._watching: dict[Replica, asyncio.Task[None]] = {}
        self.replicas: list[Replica] = []

    async def __aenter__(self) -> Self:
        for url in self._settings.base_urls:
            self.add(url)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        watching = list(self._watching.values())
        for replica in [*self._watching]:
            self._end(replica)
        self.replicas.clear()
        await asyncio.gather(*watching, return_exceptions=True)

    def add(self, base_url: str) -> Replica:
        """Use one server more; raises ConfigError if that is no URL."""
        endpoint = Endpoint(base_url, self._settings.api_key, self._settings.patience)
        replica = Replica(endpoint, self._settings.interval)
        self.replicas.append(replica)
        self._watching[replica] = asyncio.create_task(replica.watch(), name=f"watch over {replica.url}")
        return replica

    def remove(self, base_url: str) -> None:
        """Send a server no more requests; those it works on are finished."""
        for replica in [each for each in self.replicas if each.url == base_url.rstrip("/")]:
            self.replicas.remove(replica)
            replica.is_leaving = True
            if not replica.open:
                self._end(replica)

    async def known(self) -> None:
        """Wait until every server was looked at once."""
        for replica in self.replicas:
            await replica.is_known.wait()

    def _end(self, replica: Replica) -> None:
        if (task := self._watching.pop(replica, None)) is not None:
            task.cancel()
        replica.endpoint.close()

    # Requests

    async def whole(self, asking: Asking) -> bytes:
        """The body of an answer that is no stream; raises as `pieces` does."""
        tried: list[Replica] = []
        while True:
            replica = self._take(asking, tried)
            answer: Connection | None = None
            try:
                answer = await replica.endpoint.ask(replica.endpoint.post(asking.route, asking.body, asking.headers))
                if not _is_accepted(answer, asking):
                    raise await _refusal(answer)
                return await _whole(answer)
            except (Trouble, UpstreamError) as error:
                self._go_on(asking, tried, error, has_begun=False)
            finally:
                self._give_back(replica, answer)

    async def pieces(self, asking: Asking) -> AsyncGenerator[bytes, None]:
        """The body of a stream as it comes; an empty piece when a server has accepted the request.

        Raises ModelUnavailable or UpstreamError. Another server is asked as long as there was nothing of an answer.
        """
        tried: list[Replica] = []
        while True:
            replica = self._take(asking, tried)
            has_begun = False
            answer: Connection | None = None
            try:
                answer = await replica.endpoint.ask(replica.endpoint.post(asking.route, asking.body, asking.headers))
                if not _is_accepted(answer, asking):
                    raise await _refusal(answer)
                yield b""
                while piece := await answer.read():
                    has_begun = True
                    yield piece
                    if piece.endswith(END):
                        answer.leave(is_ending=True)
                        break
            except (Trouble, UpstreamError) as error:
                self._go_on(asking, tried, error, has_begun=has_begun)
            else:
                return
            finally:
                self._give_back(replica, answer)

    def _take(self, asking: Asking, tried: list[Replica]) -> Replica:
        replica = self._choose(asking, tried)
        tried.append(replica)
        replica.open += 1
        replica.asked += 1
        return replica

    def _give_back(self, replica: Replica, answer: Connection | None) -> None:
        if answer is not None:
            answer.leave()
        replica.open -= 1
        if replica.is_leaving and not replica.open:
            self._end(replica)

    def _go_on(self, asking: Asking, tried: list[Replica], error: Trouble | UpstreamError, *, has_begun: bool) -> None:
        """Returns if another server is to be asked after this error, raises what is to be told if not."""
        is_refusal = isinstance(error, UpstreamError) and error.status not in TRY_ANOTHER
        if not is_refusal:
            replica = tried[-1]
            replica.doubt(error)
            goes_on = not has_begun and bool(self._candidates(asking.model, tried))
            logger.warning("%s: %s%s", replica.url, error, "; another server is asked" if goes_on else "")
            if goes_on:
                return
        if isinstance(error, Trouble):
            raise told(error) from error
        raise error

    def _choose(self, asking: Asking, tried: Sequence[Replica]) -> Replica:
        candidates = self._candidates(asking.model, tried)
        if not candidates:
            raise self._nobody(asking.model)
        if len(candidates) == 1:
            return candidates[0]
        least = min(candidates, key=lambda replica: (replica.open, replica.asked))
        key = key_of(asking.body)
        if key is None:
            return least
        home = max(candidates, key=lambda replica: rank(key, replica.url))
        return home if home.open - least.open < self._settings.lead else least

    def _candidates(self, model: str, tried: Sequence[Replica]) -> list[Replica]:
        return [
            replica
            for replica in self.replicas
            if replica.condition == "up" and model in replica.models and replica not in tried
        ]

    def _nobody(self, model: str) -> ComposeError:
        if any(replica.condition == "unknown" for replica in self.replicas):
            return ModelUnavailable("the model's server is being looked for", retry_after=1)
        if any(replica.condition == "up" for replica in self.replicas):
            return ModelUnavailable(f"the model's server has no model '{model}' now", retry_after=5)
        return ModelUnavailable("the model's server cannot be reached now", retry_after=2)


def _is_accepted(answer: Connection, asking: Asking) -> bool:
    is_stream = _kind(answer.headers.get(b"content-type", b"")) == b"text/event-stream"
    return answer.status == 200 and is_stream == asking.is_stream


async def _refusal(answer: Connection) -> UpstreamError:
    """Why the answer is not what was asked for."""
    body = bytearray()
    while len(body) < LARGEST_REFUSAL and (piece := await answer.read()):
        body += piece
    if answer.status != 200:
        return refused(answer.status, answer.headers, bytes(body))
    kind = _kind(answer.headers.get(b"content-type", b"")).decode(errors="replace") or "no content type"
    return broken(f"answered with {kind} instead of what was asked for")


@lru_cache(64)
def _kind(content_type: bytes) -> bytes:
    return content_type.partition(b";")[0].strip().lower()


async def _whole(answer: Connection) -> bytes:
    pieces = [await answer.read()]
    while not answer.is_complete:
        pieces.append(await answer.read())
    return b"".join(pieces)
