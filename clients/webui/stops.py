"""Ending what is under way for a visitor, from another event of the same page. Pure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

SECONDS_TO_END = 10.0


class Stops:
    """One piece of work at a time for each session, and a way to stop it."""

    def __init__(self) -> None:
        self._running: dict[str | None, tuple[asyncio.Event, asyncio.Event]] = {}

    @asynccontextmanager
    async def working(self, session: str | None) -> AsyncIterator[asyncio.Event]:
        """What is set when this work has to stop; it begins when what was under way before has ended."""
        await self.ended(session)
        stop, done = self._running[session] = asyncio.Event(), asyncio.Event()
        try:
            yield stop
        finally:
            done.set()
            if self._running.get(session) == (stop, done):
                del self._running[session]

    def is_working(self, session: str | None) -> bool:
        """Whether something is under way."""
        return session in self._running

    def stop(self, session: str | None) -> None:
        """Stop what is under way, if anything is."""
        if self.is_working(session):
            self._running[session][0].set()

    async def ended(self, session: str | None) -> None:
        """Stop what is under way, and wait for its end."""
        self.stop(session)
        if session in self._running:
            await asyncio.wait_for(self._running[session][1].wait(), SECONDS_TO_END)
