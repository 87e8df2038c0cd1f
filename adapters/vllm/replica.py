"""One upstream server and how it is: asked from time to time, and left out while it does not answer."""

from __future__ import annotations

import asyncio
import logging
from typing import Literal

import msgspec

from .endpoint import Endpoint
from .failures import refused
from .troubles import Broken, TooSlow, Trouble, Unreachable

logger = logging.getLogger(__name__)

SECONDS_TO_ANSWER = 5.0
"""How long a server may take to say how it is."""

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 15.0
SHORTEST_PAUSE = 0.1
"""Seconds between two looks: at first when it does not answer, doubled each time; and when requests met trouble."""

LARGEST_LIST = 8 << 20
NO_SUCH_ROUTE = frozenset({404, 405, 501})


class UpstreamModel(msgspec.Struct, frozen=True):
    """A model as a server lists it."""

    id: str
    created: int | None = None
    owned_by: str | None = None
    max_model_len: int | None = None


class _List(msgspec.Struct):
    data: list[UpstreamModel]


_list = msgspec.json.Decoder(_List, strict=False)


class Replica:
    """A server among several with the same models. `open` counts the requests it works on, `asked` all there were."""

    def __init__(self, endpoint: Endpoint, interval: float) -> None:
        self.endpoint = endpoint
        self.open = 0
        self.asked = 0
        self.condition: Literal["unknown", "up", "down"] = "unknown"
        self.reason = "not asked yet"
        self.models: dict[str, UpstreamModel] = {}
        self.is_leaving = False
        self.is_known = asyncio.Event()
        self._interval = interval
        self._doubted = asyncio.Event()

    @property
    def url(self) -> str:
        return self.endpoint.url

    def doubt(self, trouble: Exception) -> None:
        """Look at the server soon; who cannot be reached is left out until then."""
        if isinstance(trouble, Unreachable):
            self._is_down(str(trouble))
        self._doubted.set()

    async def watch(self) -> None:
        """Look at the server for ever."""
        pause = FIRST_PAUSE
        while True:
            self._doubted.clear()
            try:
                async with asyncio.timeout(SECONDS_TO_ANSWER):
                    models = await self._look()
            except TimeoutError:
                self._is_down(str(TooSlow(f"no answer to /health within {SECONDS_TO_ANSWER:g} seconds")))
            except Trouble as trouble:
                self._is_down(str(trouble))
            else:
                self._is_up(models)
            self.is_known.set()
            if self.condition == "up":
                pause = FIRST_PAUSE
                await self._doubted_within(self._interval)
            else:
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)

    async def _doubted_within(self, seconds: float) -> None:
        await asyncio.sleep(SHORTEST_PAUSE)
        try:
            async with asyncio.timeout(seconds):
                await self._doubted.wait()
        except TimeoutError:
            return

    async def _look(self) -> list[UpstreamModel]:
        """The server's models; raises Trouble if it is not well."""
        status, _ = await self._get("/health")
        if status != 200 and status not in NO_SUCH_ROUTE:
            raise Broken(f"/health answers {status}")
        status, body = await self._get("models")
        if status != 200:
            raise Broken(f"/models answers {status}: {refused(status, {}, body).message}")
        try:
            return _list.decode(body).data
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Broken(f"/models is no list of models: {error}") from error

    async def _get(self, path: str) -> tuple[int, bytes]:
        body = bytearray()
        answer = await self.endpoint.ask(self.endpoint.get(path))
        try:
            while piece := await answer.read():
                body += piece
                if len(body) > LARGEST_LIST:
                    raise Broken(f"{path} answers with more than {LARGEST_LIST} bytes")
            return answer.status, bytes(body)
        finally:
            answer.leave()

    def _is_up(self, models: list[UpstreamModel]) -> None:
        if self.condition != "up":
            logger.info("%s is there: %s", self.url, ", ".join(model.id for model in models) or "no models")
        self.condition, self.reason = "up", ""
        self.models = {model.id: model for model in models}

    def _is_down(self, reason: str) -> None:
        if (self.condition, self.reason) != ("down", reason):
            logger.warning("%s is left out: %s", self.url, reason)
        self.condition, self.reason = "down", reason
