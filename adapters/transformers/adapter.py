"""A local model as an adapter: owns the engine process, hands requests to it, yields what comes back."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Self

import msgspec

from ..base import GenerationRequest, ModelCard, ModelCounters
from ..errors import ComposeError, EngineDied, QueueFull
from ..events import Accepted, Event, Usage
from .life import EngineLife
from .messages import Cancel, Failure, Outcome, Step, Submit
from .residents import Residents
from .settings import ModelSettings

SILENT_PATIENCE = 10.0
"""Seconds that a request waits for its model to be loaded before its client is told that it was accepted."""

LOAD_PATIENCE = 300.0
"""Seconds that a request waits for its model to be loaded at all."""

EXTRA_FIELDS = ("add_special_tokens", "priority")
"""What the engine reads of a request's `extra`."""


class TransformersAdapter:
    """One Hugging Face model in an engine process of its own; `life.py` says when there is one.

    Entering the context returns at once; `ready` waits until the model is loaded. `residents` are the models that it
    shares memory with.
    """

    def __init__(self, settings: ModelSettings, residents: Residents | None = None) -> None:
        self._settings = settings
        self._created = int(time.time())
        self._life = EngineLife(settings, self._receive, self._lose_requests, residents or Residents())
        self._counters = ModelCounters()
        self._earlier = ModelCounters()
        self._ids = itertools.count(1)
        self._queues: dict[int, asyncio.Queue[Outcome]] = {}

    async def __aenter__(self) -> Self:
        await self._life.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._life.__aexit__(kind, error, traceback)

    def cards(self) -> Sequence[ModelCard]:
        """The one model, as it is now."""
        counters = _sum(self._earlier, self._counters)
        return [
            ModelCard(
                id=self._settings.name,
                created=self._created,
                context_length=self._life.context_length,
                state=self._life.state,
                counters=msgspec.structs.replace(counters, engine_starts=self._life.starts),
            )
        ]

    async def ready(self) -> None:
        """Wait until the model is loaded; raises ModelUnavailable with the reason if it cannot be."""
        with self._life.in_use():
            await self._life.settled()
            self._life.check()

    def load(self, name: str) -> None:
        """Begin to load the model, also one that could not be loaded before."""
        self._life.want()

    def unload(self, name: str) -> None:
        """Give the model's memory back as soon as nobody uses it."""
        self._life.leave()

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """The answer's events, `Accepted` first; raises ModelUnavailable if the model is not ready and may never be."""
        self._check_queue()
        with self._life.in_use():
            is_accepted = False
            if self._life.comes_back and not await self._settled_within(SILENT_PATIENCE):
                is_accepted = True
                yield Accepted()
                await self._settled_within(LOAD_PATIENCE)
            self._life.check()
            async with aclosing(self._answer(request)) as outcomes:
                async for outcome in outcomes:
                    if not (is_accepted and isinstance(outcome, Accepted)):
                        yield outcome

    async def _answer(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """What the engine, which is ready, says to the request."""
        child = self._life.child
        assert child is not None
        id = next(self._ids)
        queue = self._queues[id] = asyncio.Queue()
        try:
            child.send(Submit(id, _without_unknown(request)))
            while True:
                outcome = await queue.get()
                if isinstance(outcome, Failure | Usage):
                    del self._queues[id]
                if isinstance(outcome, Failure):
                    raise ComposeError.from_report(outcome.report)
                yield outcome
                if isinstance(outcome, Usage):
                    return
        finally:
            if self._queues.pop(id, None) is not None:
                child.send(Cancel(id))

    def _check_queue(self) -> None:
        """Raise QueueFull if as many requests wait as may."""
        running, waiting = self._settings.max_concurrent_count, self._settings.max_waiting_count
        if waiting is not None and self._life.users >= running + waiting:
            raise QueueFull(f"{self._settings.name} has {self._life.users} requests to answer already; try again later")

    async def _settled_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._life.settled(), seconds)
        except TimeoutError:
            return False
        return True

    def _lose_requests(self, why: str) -> None:
        """The engine is gone, and with it what it was doing."""
        self._earlier = msgspec.structs.replace(
            _sum(self._earlier, self._counters), running=0, waiting=0, rows=0, kv_used=0.0
        )
        self._counters = ModelCounters()
        for queue in self._queues.values():
            queue.put_nowait(Failure(EngineDied(why).report()))

    def _receive(self, step: Step) -> None:
        self._counters = step.counters
        for id, outcome in step.outcomes:
            if (queue := self._queues.get(id)) is not None:
                queue.put_nowait(outcome)


def _without_unknown(request: GenerationRequest) -> GenerationRequest:
    """The request without those fields of its body that the engine would ignore; they may be large or strange."""
    known = {name: value for name, value in request.extra.items() if name in EXTRA_FIELDS}
    return msgspec.structs.replace(request, extra=known)


def _sum(a: ModelCounters, b: ModelCounters) -> ModelCounters:
    fields = ModelCounters.__struct_fields__
    return ModelCounters(*(getattr(a, field) + getattr(b, field) for field in fields))
