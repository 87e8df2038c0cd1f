"""Commands that are run once, and again when their text changes."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec

from .environment import activated, venv_command
from .log import Log
from .places import digest_of
from .process import Command, Surroundings, run, shown
from .troubles import failure

SECONDS_BETWEEN_TRIES = 0.2

Report = Callable[[str], None]
"""Gets what is being done, for people."""

logger = logging.getLogger(__name__)


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """What has to be done once: `steps` names its commands ("install", "build").

    `venv` is made first, with `python`, if it is set; `surroundings` are without it.
    """

    name: str
    place: Path
    steps: tuple[tuple[str, tuple[Command, ...]], ...]
    surroundings: Surroundings
    venv: Path | None = None
    python: str = ""

    @property
    def inside(self) -> Surroundings:
        """Where the commands run."""
        if self.venv is None:
            return self.surroundings
        return Surroundings(activated(self.surroundings.env, self.venv), self.surroundings.folder)


class Installation:
    """A recipe and whether it has been carried out. The log and the note of it lie in the recipe's place."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._note = recipe.place / "installed"
        self.log = Log(recipe.place / "install.log")

    @property
    def surroundings(self) -> Surroundings:
        """Where what was installed is found."""
        return self._recipe.inside

    async def carry_out(self, report: Report) -> None:
        """Do what was not done yet; raises ModelUnavailable with the reason if a command fails."""
        if self._recipe.venv is None and not any(commands for _, commands in self._recipe.steps):
            return
        async with _alone(self._recipe.place / "lock", report):
            if await self._make_venv(report):
                self.forget()
            done = self._done()
            for number, (step, commands) in enumerate(self._recipe.steps, 1):
                # A step rests on those before it.
                if (digest := digest_of(self._recipe.steps[:number])) in done:
                    continue
                for command in commands:
                    report(step)
                    await self._run(step, command, self._recipe.inside)
                done.append(digest)
                self._note.write_text("\n".join(done), encoding="utf-8")

    def forget(self) -> None:
        """Carry everything out again next time."""
        with suppress(OSError):
            self._note.unlink()

    async def _make_venv(self, report: Report) -> bool:
        """Make the virtual environment, if it is not there."""
        venv = self._recipe.venv
        if venv is None or (venv / "bin" / "python").exists():
            return False
        report("making a virtual environment")
        await self._run(
            "making a virtual environment", venv_command(venv, self._recipe.python), self._recipe.surroundings
        )
        return True

    async def _run(self, step: str, command: Command, where: Surroundings) -> None:
        logger.info("%s: %s: %s", self._recipe.name, step, shown(command))
        status = await run(command, where, self.log)
        if status != 0:
            lines = "\n    ".join(self.log.tail[-20:])
            logger.error("%s: %s failed; the end of %s:\n    %s", self._recipe.name, step, self.log.path, lines)
            raise failure(self._recipe.name, step, command, status, self.log)

    def _done(self) -> list[str]:
        try:
            return self._note.read_text(encoding="utf-8").split()
        except OSError:
            return []


@asynccontextmanager
async def _alone(lock: Path, report: Report) -> AsyncIterator[None]:
    """Be the only process that does this; the system takes the lock back from one that dies."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                report("another process is installing this; waiting for it")
                await asyncio.sleep(SECONDS_BETWEEN_TRIES)
        yield
    finally:
        os.close(file)
