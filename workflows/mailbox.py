"""What one task tells another, in order."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Things from any number of tasks to one reader; `put` waits while `room` things are unread."""

    def __init__(self, room: int = 256) -> None:
        self._room = room
        self._unread: deque[T] = deque()
        self._filled = asyncio.Event()
        self._taken = asyncio.Event()
        self._is_closed = False
        self._error: Exception | None = None

    async def put(self, thing: T) -> None:
        """Add `thing`, then wait until there is room for another."""
        self._unread.append(thing)
        self._filled.set()
        while len(self._unread) >= self._room:
            self._taken.clear()
            await self._taken.wait()

    def close(self, error: Exception | None = None) -> None:
        """Nothing more will come; the reader gets `error` once it has read everything."""
        self._is_closed = True
        self._error = error
        self._filled.set()

    async def get(self) -> T | None:
        """The next thing; None at the end, unless that is an error, which is then raised."""
        while not self._unread:
            if self._is_closed:
                if self._error is not None:
                    raise self._error
                return None
            self._filled.clear()
            await self._filled.wait()
        thing = self._unread.popleft()
        self._taken.set()
        return thing
