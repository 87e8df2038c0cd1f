"""A local model as an adapter: owns the engine process, hands requests to it, yields what comes back."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from types import TracebackType
from typing import Self

import msgspec

from ..base import GenerationRequest, ModelCard, ModelCounters, ModelState
from ..errors import ComposeError, EngineDied, ModelUnavailable
from ..events import Event, Usage
from .child import Child, engine_process
from .messages import Cancel, Failure, FromEngine, Outcome, State, Step, Submit
from .settings import ModelSettings

logger = logging.getLogger(__name__)

RESTART_PATIENCE = 60.0
"""Seconds that a request waits for an engine that is being started again."""

STEADY_SECONDS = 60.0
"""An engine that lived this long is started again at once, and so is one that died sooner for the first time."""

EXTRA_FIELDS = ("add_special_tokens",)
"""What `prompt.py` reads of a request's `extra`."""

LONGEST_DELAY = 30.0
MOST_EARLY_DEATHS = 3


class TransformersAdapter:
    """One Hugging Face model in an engine process of its own, which is started again when it dies.

    Entering the context starts loading and returns at once; `ready` waits for its end.
    """

    def __init__(self, settings: ModelSettings) -> None:
        self._settings = settings
        self._created = int(time.time())
        self._state = ModelState("loading", "starting the engine process")
        self._context_length: int | None = None
        self._settled = asyncio.Event()
        self._starts = 0
        self._was_ready = False
        self._counters = ModelCounters()
        self._earlier = ModelCounters()
        self._ids = itertools.count(1)
        self._queues: dict[int, asyncio.Queue[Outcome]] = {}
        self._child: Child | None = None
        self._supervisor: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._supervisor = asyncio.create_task(self._supervise(), name=f"engine of {self._settings.name}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._supervisor is not None
        self._supervisor.cancel()
        await asyncio.wait({self._supervisor})
        self._state = ModelState("stopped")
        self._settled.set()
        self._lose_requests(f"{self._settings.name} was stopped")

    def cards(self) -> Sequence[ModelCard]:
        """The one model, as it is now."""
        counters = _sum(self._earlier, self._counters)
        return [
            ModelCard(
                id=self._settings.name,
                created=self._created,
                context_length=self._context_length,
                state=self._state,
                counters=msgspec.structs.replace(counters, engine_starts=self._starts),
            )
        ]

    async def ready(self) -> None:
        """Wait until the model is loaded; raises ModelUnavailable with the reason if it cannot be."""
        await self._settled.wait()
        self._check()

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """The answer's events, `Accepted` first; raises ModelUnavailable while the model is not ready."""
        if self._was_ready:
            await self._restarted()
        self._check()
        assert self._child is not None
        id = next(self._ids)
        queue = self._queues[id] = asyncio.Queue()
        try:
            self._child.send(Submit(id, _without_unknown(request)))
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
                self._child.send(Cancel(id))

    async def _restarted(self) -> None:
        """Give an engine that is being started again a moment."""
        try:
            await asyncio.wait_for(self._settled.wait(), RESTART_PATIENCE)
        except TimeoutError:
            return

    def _check(self) -> None:
        name, state = self._settings.name, self._state
        if state.phase == "ready":
            return
        if state.phase == "loading":
            progress = "" if state.progress is None else f" ({state.progress:.0%})"
            raise ModelUnavailable(f"{name} is loading: {state.detail}{progress}", retry_after=2)
        raise ModelUnavailable(f"{name} is not available: {state.detail or state.phase}", code="model_not_available")

    # The engine's life

    async def _supervise(self) -> None:
        """Keep an engine process going until the model proves impossible to load."""
        early_deaths = 0
        while self._state.phase != "failed":
            try:
                lived = await self._live()
            except OSError as error:
                logger.exception("%s: no engine process can be started", self._settings.name)
                self._give_up(f"no engine process can be started: {error}")
                return
            early_deaths = 0 if lived > STEADY_SECONDS else early_deaths + 1
            if early_deaths >= MOST_EARLY_DEATHS and not self._was_ready:
                self._give_up(f"the engine process died {early_deaths} times while it loaded; is there enough memory?")
            elif early_deaths > 1:
                await asyncio.sleep(min(2.0 ** (early_deaths - 2), LONGEST_DELAY))

    async def _live(self) -> float:
        """One engine process, from start to end; how many seconds it lived."""
        started = time.monotonic()
        self._starts += 1
        async with engine_process(self._settings, self._receive) as self._child:
            status = await self._child.wait()
            if self._state.phase != "failed":
                self._engine_died(status)
        return time.monotonic() - started

    def _engine_died(self, status: int) -> None:
        how = f"was ended by signal {-status}" if status < 0 else f"ended with exit status {status}"
        logger.error("%s: the engine process %s; it is started again", self._settings.name, how)
        self._settled.clear()
        self._state = ModelState("loading", f"starting again, for the engine process {how}")
        self._earlier = msgspec.structs.replace(_sum(self._earlier, self._counters), running=0, waiting=0)
        self._counters = ModelCounters()
        self._lose_requests(f"the engine process of {self._settings.name} {how}; try again")

    def _give_up(self, why: str) -> None:
        self._state = ModelState("failed", why)
        self._settled.set()
        logger.error("%s cannot be served: %s", self._settings.name, why)

    def _lose_requests(self, why: str) -> None:
        for queue in self._queues.values():
            queue.put_nowait(Failure(EngineDied(why).report()))

    def _receive(self, message: FromEngine) -> None:
        match message:
            case Step():
                self._counters = message.counters
                for id, outcome in message.outcomes:
                    if (queue := self._queues.get(id)) is not None:
                        queue.put_nowait(outcome)
            case State():
                self._state, self._context_length = message.state, message.context_length or self._context_length
                if message.state.phase == "ready":
                    self._was_ready = True
                    self._settled.set()
                elif message.state.phase == "failed":
                    self._give_up(message.state.detail)


def _without_unknown(request: GenerationRequest) -> GenerationRequest:
    """The request without those fields of its body that the engine would ignore; they may be large or strange."""
    known = {name: value for name, value in request.extra.items() if name in EXTRA_FIELDS}
    return msgspec.structs.replace(request, extra=known)


def _sum(a: ModelCounters, b: ModelCounters) -> ModelCounters:
    fields = ModelCounters.__struct_fields__
    return ModelCounters(*(getattr(a, field) + getattr(b, field) for field in fields))
