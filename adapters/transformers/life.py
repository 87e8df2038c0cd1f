"""When a model has an engine process: from the start or its first request on, until nobody has used it for long.

loading   the process starts, or starts again after it died
ready
unloaded  there is none; it is started when the model is wanted
failed    it could not be loaded; wanted again, it is tried again only where another outcome is likely
stopped   the server ends
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import msgspec

from ..base import ModelState
from ..errors import ModelUnavailable, OutOfMemory
from .child import Child, engine_process
from .messages import FromEngine, State, Step
from .residents import Residents
from .settings import ModelSettings

logger = logging.getLogger(__name__)

STEADY_SECONDS = 60.0
"""An engine that lived this long is started again at once, and so is one that died sooner for the first time."""

LONGEST_DELAY = 30.0
MOST_EARLY_DEATHS = 3

MEMORY_PATIENCE = 20.0
"""Seconds that a model waits for the memory of others."""

UNLOADED = ModelState("unloaded", "the next request loads it")
WANTED = ModelState("loading", "starting the engine process", on_demand=True)


class EngineLife:
    """Starts a model's engine process, again when it dies, and ends it; `on_step` gets what it says once it is ready.

    `on_loss` is told why, whenever what it was doing is lost. Entering the context starts loading, if the settings
    say so, and returns at once.
    """

    def __init__(
        self,
        settings: ModelSettings,
        on_step: Callable[[Step], None],
        on_loss: Callable[[str], None],
        residents: Residents,
    ) -> None:
        self._settings = settings
        self._on_step = on_step
        self._on_loss = on_loss
        self._residents = residents
        self.state = ModelState("loading", "starting the engine process") if settings.preload else UNLOADED
        self.context_length: int | None = None
        self.starts = 0
        self.child: Child | None = None
        self.last_used = time.monotonic()
        self._changed = asyncio.Event()
        self._wanted = asyncio.Event()
        self._dismissed = asyncio.Event()
        self._users = 0
        self._was_ready = False
        self._is_out_of_memory = False
        self._leaves_when_idle = False
        self._timer: asyncio.TimerHandle | None = None
        self._supervisor: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._residents.all.append(self)
        if self._settings.preload:
            self._wanted.set()
        self._supervisor = asyncio.create_task(self._supervise(), name=f"engine of {self.name}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._supervisor is not None
        self._supervisor.cancel()
        await asyncio.wait({self._supervisor})
        self._residents.all.remove(self)
        self._rest()
        self._be(ModelState("stopped"))
        self._on_loss(f"{self.name} was stopped")

    # What others see of it

    @property
    def name(self) -> str:
        return self._settings.name

    @property
    def users(self) -> int:
        """How many are using the model, or wait for it to be loaded."""
        return self._users

    @property
    def is_idle(self) -> bool:
        return self.state.phase == "ready" and not self._users

    @property
    def is_leaving(self) -> bool:
        return self._dismissed.is_set() and self.child is not None

    @property
    def comes_back(self) -> bool:
        """Whether to wait for the model is better than to be told that it is not there."""
        return self.state.phase == "unloaded" or (
            self.state.phase == "loading" and (self._was_ready or self.state.on_demand)
        )

    def check(self) -> None:
        """Raise ModelUnavailable unless the model is ready."""
        state = self.state
        if state.phase == "ready":
            return
        if state.phase in ("loading", "unloaded"):
            progress = "" if state.progress is None else f" ({state.progress:.0%})"
            raise ModelUnavailable(f"{self.name} is loading: {state.detail}{progress}", retry_after=2)
        raise ModelUnavailable(
            f"{self.name} is not available: {state.detail or state.phase}", code="model_not_available"
        )

    async def settled(self) -> None:
        """Wait until the model is not loading."""
        while self.state.phase == "loading":
            await self._changed.wait()

    # What others want of it

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the model from being unloaded, and load it if it is not."""
        self._users += 1
        self._rest()
        if self.state.phase == "unloaded" or self._is_out_of_memory:
            self.want()
        try:
            yield
        finally:
            self._users -= 1
            self.last_used = time.monotonic()
            self._count_down()

    def want(self) -> None:
        """Begin to load the model unless it is there; one that failed is tried again."""
        if self.state.phase in ("failed", "unloaded"):
            self._be(WANTED)
        self._leaves_when_idle = False
        self._wanted.set()

    def leave(self) -> None:
        """Unload the model as soon as nobody uses it."""
        if self._users:
            self._leaves_when_idle = True
        elif self.state.phase in ("ready", "loading"):
            self._wanted.clear()
            self._dismissed.set()
            self._be(UNLOADED)
            self._on_loss(f"{self.name} was unloaded")

    def _count_down(self) -> None:
        """Unload the model when it has been idle for as long as the settings say."""
        if self._users or self.state.phase != "ready":
            return
        if self._leaves_when_idle:
            self._leaves_when_idle = False
            self.leave()
        elif (seconds := self._settings.keep_alive) is not None and seconds >= 0:
            self._timer = asyncio.get_running_loop().call_later(seconds, self.leave)

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # The process

    async def _supervise(self) -> None:
        """Have an engine process whenever the model is wanted."""
        early_deaths = 0
        while True:
            await self._wanted.wait()
            if not self._wanted.is_set():  # no longer
                continue
            try:
                lived = await self._live()
            except OSError as error:
                logger.exception("%s: no engine process can be started", self.name)
                self._give_up(f"no engine process can be started: {error}")
                continue
            if lived is None:
                early_deaths = 0
                continue
            early_deaths = 0 if lived > STEADY_SECONDS else early_deaths + 1
            if early_deaths >= MOST_EARLY_DEATHS and not self._was_ready:
                self._give_up(f"the engine process died {early_deaths} times while it loaded; is there enough memory?")
                early_deaths = 0
            elif early_deaths > 1:
                await asyncio.sleep(min(2.0 ** (early_deaths - 2), LONGEST_DELAY))

    async def _live(self) -> float | None:
        """One engine process, from start to end; how many seconds it lived, None if it was to end."""
        started = time.monotonic()
        self.starts += 1
        self._is_out_of_memory = False
        self._dismissed.clear()
        patience = MEMORY_PATIENCE if self._residents.has_others(self) else 0.0
        async with engine_process(self._settings, self._receive, memory_patience=patience) as self.child:
            status = await self._ended(self.child)
            lived = None
            if status is not None and self.state.phase != "failed":
                lived = time.monotonic() - started
                self._died(status)
        self.child = None
        return lived

    async def _ended(self, child: Child) -> int | None:
        """The exit status of the process; None if it is to be ended before it has one."""
        ended = asyncio.create_task(child.wait())
        dismissed = asyncio.create_task(self._dismissed.wait())
        try:
            await asyncio.wait({ended, dismissed}, return_when=asyncio.FIRST_COMPLETED)
            return None if dismissed.done() else ended.result()
        finally:
            ended.cancel()
            dismissed.cancel()
            await asyncio.wait({ended, dismissed})

    def _died(self, status: int) -> None:
        how = f"was ended by signal {-status}" if status < 0 else f"ended with exit status {status}"
        logger.error("%s: the engine process %s; it is started again", self.name, how)
        self._be(ModelState("loading", f"starting again, for the engine process {how}"))
        self._on_loss(f"the engine process of {self.name} {how}; try again")

    def _give_up(self, why: str) -> None:
        self._wanted.clear()
        self._be(ModelState("failed", why))
        logger.error("%s cannot be served: %s", self.name, why)

    def _be(self, state: ModelState) -> None:
        self.state = state
        self._changed.set()
        self._changed = asyncio.Event()

    def _receive(self, message: FromEngine) -> None:
        if self._dismissed.is_set():
            return
        match message:
            case Step():
                self._on_step(message)
            case State():
                self._hear(message)

    def _hear(self, message: State) -> None:
        self.context_length = message.context_length or self.context_length
        match message.state:
            case ModelState("failed", why):
                failure = message.failure
                self._is_out_of_memory = failure is not None and failure.kind == OutOfMemory.__name__
                self._give_up(why)
            case ModelState("ready"):
                self._was_ready = True
                self._be(message.state)
                self.last_used = time.monotonic()
                self._count_down()
            case ModelState() as state:
                self._be(msgspec.structs.replace(state, on_demand=self.state.on_demand))
                if state.lacks_memory:
                    self._residents.make_room(self)
