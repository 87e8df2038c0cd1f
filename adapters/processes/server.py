"""A server of this machine from its installation to its end: started, waited for, watched, started again."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

import httpx2
import msgspec

from ..base import ModelState
from ..errors import ComposeError, ModelUnavailable
from .install import Installation
from .log import Log
from .probe import check_port, is_ready
from .process import PATIENCE, Command, Surroundings, run, running, said_of, shown
from .troubles import missing_module, reason

SECONDS_TO_START = 1800.0
SECONDS_BETWEEN_PROBES = 0.25
SECONDS_TO_FREE_PORT = 10.0
SECONDS_TO_CLEAN = 60.0

STEADY_SECONDS = 60.0
"""A server that was ready for this long is started again at once when it dies."""

SHORTEST_DELAY = 0.5
LONGEST_DELAY = 60.0
LINES_SAID = 20

_PERCENT = re.compile(r"(\d{1,3})%\|")

logger = logging.getLogger(__name__)


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A server that listens at `port` on this machine.

    `start` are commands, the last of which is the server; `clean` are run after it has ended. `timeout` is how many
    seconds a start may take, `patience` how many an end.
    """

    name: str
    port: int
    start: tuple[Command, ...]
    clean: tuple[Command, ...] = ()
    env: Mapping[str, str] = {}
    timeout: float = SECONDS_TO_START
    patience: float = PATIENCE

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class ManagedServer:
    """Entering it begins to install and start the server in the background, leaving it ends the server.

    `changed` is called with True when the server is ready, with False when it is not any more.
    """

    def __init__(
        self,
        settings: ServerSettings,
        installation: Installation,
        log: Log,
        changed: Callable[[bool], None] = lambda is_ready: None,
    ) -> None:
        self.settings = settings
        self._installation = installation
        self._log = log
        self._changed = changed
        self._doing = "starting"
        self._watched: Log | None = None
        self._phase = ModelState("loading", "starting")
        self._settled = asyncio.Event()
        self._was_ready = False
        self._task: asyncio.Task[None] | None = None

    @property
    def state(self) -> ModelState:
        """What the server does; while it is installed or started, with the last line of its log."""
        if self._phase.phase != "loading" or self._watched is None:
            return self._phase
        line = self._watched.last
        percent = _PERCENT.search(line)
        progress = min(int(percent[1]), 100) / 100 if percent else None
        return ModelState("loading", f"{self._doing}: {line}" if line else self._doing, progress)

    def check(self) -> None:
        """Raises ModelUnavailable if the server cannot be asked now."""
        state = self.state
        if state.phase == "ready":
            return
        if state.phase == "loading":
            again = "is not back yet" if self._was_ready else "is not ready yet"
            raise ModelUnavailable(f"{self.settings.name} {again}: {state.detail}", retry_after=2)
        raise ModelUnavailable(
            f"{self.settings.name} is not available: {state.detail or state.phase}", code="model_not_available"
        )

    async def ready(self) -> None:
        """Wait until the server is ready; raises ModelUnavailable with the reason if it cannot be."""
        await self._settled.wait()
        self.check()

    def begin_to_end(self) -> None:
        """Ask the server to end, without waiting for it as leaving the context does: for those who end several."""
        if self._task is not None:
            self._task.cancel()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._supervise(), name=f"server {self.settings.name}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._task is not None
        self.begin_to_end()
        await asyncio.wait({self._task})
        if self._phase.phase != "failed":
            self._set(ModelState("stopped"))
        await self._clean()

    # The server's life -----------------------------------------------------------------------------------------------

    async def _supervise(self) -> None:
        """Install, then keep a server going until it proves impossible to start."""
        try:
            self._watched = self._installation.log
            await self._installation.carry_out(self._report)
            self._watched = self._log
            await self._keep_going()
        except ComposeError as error:
            self._fail(error.message)
        except OSError as error:
            logger.exception("%s: the system refuses", self.settings.name)
            self._fail(error.strerror or str(error))

    async def _keep_going(self) -> None:
        delay = 0.0
        while True:
            lived = 0.0
            try:
                lived = await self._live()
            except ComposeError as error:
                if not self._was_ready:
                    self._installation.forget()
                    raise
                logger.error("%s could not be started again: %s", self.settings.name, error.message)  # noqa: TRY400
            delay = 0.0 if lived > STEADY_SECONDS else min(max(2 * delay, SHORTEST_DELAY), LONGEST_DELAY)
            self._report(f"starting again in {delay:g} s" if delay >= 1 else "starting again")
            await asyncio.sleep(delay)

    async def _live(self) -> float:
        """One process from its start to its end; how many seconds it was ready. Raises ModelUnavailable if never."""
        await self._port_is_free()
        *preparing, command = self.settings.start
        for each in preparing:
            self._report("preparing")
            if status := await run(each, self._surroundings, self._log):
                raise self._failure(each, status)
        self._report("starting again" if self._was_ready else "starting")
        logger.info("%s: starting: %s", self.settings.name, shown(command))
        async with running(command, self._surroundings, self._log, self.settings.patience) as process:
            if not await self._gets_ready(process.ended):
                raise self._failure(command, await process.wait() if process.ended.is_set() else None)
            since = time.monotonic()
            self._up()
            try:
                await process.ended.wait()
            finally:
                self._down()
            lived = time.monotonic() - since
            status = await process.wait()
            self._say_tail()
            logger.error("%s %s; it is started again", self.settings.name, said_of(status))
            return lived

    async def _gets_ready(self, ended: asyncio.Event) -> bool:
        """Wait until the server answers; False if it ends or takes too long."""
        deadline = time.monotonic() + self.settings.timeout
        async with httpx2.AsyncClient(trust_env=False) as client:
            while not ended.is_set() and time.monotonic() < deadline:
                if await is_ready(client, self.settings.url):
                    return not ended.is_set()
                with suppress(TimeoutError):
                    await asyncio.wait_for(ended.wait(), SECONDS_BETWEEN_PROBES)
        return False

    async def _port_is_free(self) -> None:
        """Raises ConfigError if the port is taken; that of a server that has just ended gets free in a moment."""
        deadline = time.monotonic() + (SECONDS_TO_FREE_PORT if self._was_ready else 0)
        while True:
            try:
                check_port(self.settings.name, self.settings.port)
            except ComposeError:
                if time.monotonic() >= deadline:
                    raise
                await asyncio.sleep(SECONDS_BETWEEN_PROBES)
            else:
                return

    async def _clean(self) -> None:
        try:
            async with asyncio.timeout(SECONDS_TO_CLEAN):
                for command in self.settings.clean:
                    if status := await run(command, self._surroundings, self._log):
                        logger.error("%s: '%s' %s", self.settings.name, shown(command), said_of(status))
        except (TimeoutError, ComposeError, OSError) as error:
            logger.error("%s: cleaning up failed: %s", self.settings.name, error)  # noqa: TRY400  (the message says it)

    # What it tells ----------------------------------------------------------------------------------------------------

    @property
    def _surroundings(self) -> Surroundings:
        inside = self._installation.surroundings
        return Surroundings({**inside.env, **self.settings.env}, inside.folder)

    def _report(self, doing: str) -> None:
        self._doing = doing

    def _set(self, state: ModelState) -> None:
        self._phase = state

    def _up(self) -> None:
        self._was_ready = True
        self._set(ModelState("ready"))
        self._settled.set()
        self._changed(True)
        logger.info("%s is ready", self.settings.name)

    def _down(self) -> None:
        """From now on the server is not to be asked."""
        if self._phase.phase == "ready":
            self._settled.clear()
            self._set(ModelState("loading"))
            self._doing = "starting again"
            self._changed(False)

    def _fail(self, why: str) -> None:
        name = self.settings.name
        why = why.removeprefix(f"{name}: ")
        self._set(ModelState("failed", why))
        self._settled.set()
        logger.error("%s cannot be served: %s", name, why)

    def _failure(self, command: Command, status: int | None) -> ModelUnavailable:
        self._say_tail()
        if status is None:
            return ModelUnavailable(f"did not answer within {self.settings.timeout:g} s: {self._log.blame}")
        module = missing_module(self._log)
        folder = self._surroundings.folder
        if module and ((folder / module).is_dir() or (folder / f"{module}.py").exists()):
            return ModelUnavailable(
                f"the start command found no Python module '{module}'; programs that import from the folder of the "
                "compose file need `working_dir: .`"
            )
        return ModelUnavailable(f"the start command {said_of(status)}: {reason(command, status, self._log)}")

    def _say_tail(self) -> None:
        lines = "\n    ".join(self._log.tail[-LINES_SAID:])
        logger.error("%s: the end of %s:\n    %s", self.settings.name, self._log.path, lines)
