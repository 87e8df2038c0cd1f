"""One command of the user's, under a guard that outlives this process for as long as it takes to end the command."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import psutil

from ..errors import ConfigError
from .log import Log

Command = str | tuple[str, ...]
"""A text for the shell, or words to run as they stand."""

PATIENCE = 10.0
"""Seconds between being asked to end and being killed."""

SECONDS_FOR_GUARD = 8.0
SECONDS_FOR_LAST_WORDS = 0.05
_GUARD = Path(__file__).with_name("guard.py")


class Surroundings(msgspec.Struct, frozen=True):
    """Where a command runs: its whole environment and its folder."""

    env: Mapping[str, str]
    folder: Path


class Process:
    """A command that runs. `line` is what its guard waits for the end of, `pipes` are what comes from there; `ended` is
    set as soon as the command is gone, while what it has started may still be there.
    """

    def __init__(
        self,
        guard: asyncio.subprocess.Process,
        line: int,
        pipes: Sequence[asyncio.ReadTransport],
        ended: asyncio.Event,
    ) -> None:
        self._guard = guard
        self._line = line
        self._pipes = pipes
        self.ended = ended

    async def wait(self) -> int:
        """The exit status, once the command and all it started have ended; 128 + N after signal N."""
        status = await self._guard.wait()
        await asyncio.sleep(SECONDS_FOR_LAST_WORDS)
        return 128 - status if status < 0 else status

    async def end(self, patience: float) -> None:
        """End the command and all it started; returns when they are gone."""
        os.close(self._line)
        try:
            await asyncio.wait_for(self._guard.wait(), patience + SECONDS_FOR_GUARD)
        except TimeoutError:
            with suppress(ProcessLookupError):
                self._guard.kill()
            await self._guard.wait()
        if self._guard.returncode is not None and self._guard.returncode < 0:
            _kill_session(self._guard.pid)
        for pipe in self._pipes:
            pipe.close()


@asynccontextmanager
async def running(
    command: Command, where: Surroundings, log: Log, patience: float = PATIENCE
) -> AsyncIterator[Process]:
    """Run a command; leaving the context ends it with all it started. Raises ConfigError if it cannot be run here."""
    log.begin(shown(command))
    starting = asyncio.create_task(_start(command, where, log, patience))
    try:
        # asyncio would forget a process whose start is cancelled half-way.
        yield await asyncio.shield(starting)
    finally:
        # A second cancellation must not leave anything behind, so the end runs to its end.
        ending = asyncio.create_task(_end(starting, patience))
        try:
            await asyncio.shield(ending)
        finally:
            await asyncio.wait({ending})
            log.close()


async def run(command: Command, where: Surroundings, log: Log, patience: float = PATIENCE) -> int:
    """Run a command to its end; its exit status."""
    async with running(command, where, log, patience) as process:
        return await process.wait()


def shown(command: Command) -> str:
    """A command in one line, for people."""
    text = command if isinstance(command, str) else " ".join(command)
    text = " ".join(text.split())
    return text if len(text) <= 200 else f"{text[:196]} ..."


def said_of(status: int) -> str:
    """How a command ended, for people."""
    if status > 128:
        with suppress(ValueError):
            return f"was ended by {signal.Signals(status - 128).name}"
    return f"ended with exit status {status}"


async def _start(command: Command, where: Surroundings, log: Log, patience: float) -> Process:
    if sys.platform == "win32":
        raise ConfigError("servers can be started on Linux and macOS only; start it yourself and reach it by its URL")
    if not where.folder.is_dir():
        raise ConfigError(f"there is no folder '{where.folder}' to run '{shown(command)}' in")
    words = ["/bin/sh", "-c", command] if isinstance(command, str) else command
    # Pipes of our own: asyncio's would keep `wait` waiting for whoever still holds them.
    (held, line), (output, said), (end, running) = os.pipe(), os.pipe(), os.pipe()
    try:
        guard = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            str(_GUARD),
            str(patience),
            str(running),
            *words,
            pass_fds=[running],
            stdin=held,
            stdout=said,
            stderr=said,
            env=where.env,
            cwd=where.folder,
            start_new_session=True,
        )
    except BaseException:
        for descriptor in (line, output, end):
            os.close(descriptor)
        raise
    finally:
        for descriptor in (held, said, running):
            os.close(descriptor)
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    reading, _ = await loop.connect_read_pipe(lambda: _Output(log), os.fdopen(output, "rb", 0))
    waiting, _ = await loop.connect_read_pipe(lambda: _End(ended), os.fdopen(end, "rb", 0))
    return Process(guard, line, (reading, waiting), ended)


async def _end(starting: asyncio.Task[Process], patience: float) -> None:
    await asyncio.wait({starting})
    if not starting.cancelled() and starting.exception() is None:
        await starting.result().end(patience)


class _Output(asyncio.Protocol):
    """Puts what comes into a log."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def data_received(self, data: bytes) -> None:
        self._log.feed(data)


class _End(asyncio.Protocol):
    """Tells of the end of a pipe."""

    def __init__(self, ended: asyncio.Event) -> None:
        self._ended = ended

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended.set()


def _kill_session(leader: int) -> None:
    """Kill what a guard that was killed itself has left."""
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, PermissionError):
            if os.getsid(process.pid) == leader:
                os.kill(process.pid, signal.SIGKILL)
