"""Asking for an answer and watching it grow, until it is whole or is stopped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from .api import Refused, Server
from .conversation import Answer, Growing
from .pause import Pause


async def answers(server: Server, body: dict[str, Any], key: str, stop: asyncio.Event) -> AsyncGenerator[Answer]:
    """The answer as it grows, a few times a second, and at last as it is. `stop` ends it, at the server too."""
    growing = Growing(str(body["model"]), time.monotonic())

    async def read() -> None:
        async with aclosing(server.chat(body, key)) as chunks:
            async for chunk in chunks:
                growing.feed(chunk, time.monotonic())

    reading, stopping = asyncio.create_task(read()), asyncio.create_task(stop.wait())
    try:
        shown: Answer | None = None
        pause = Pause()
        while not reading.done() and not stopping.done():
            if growing.answer is not shown:
                shown = growing.answer
                with pause.measured():
                    yield shown
            await asyncio.wait({reading, stopping}, timeout=pause.seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        reading.cancel()
        await asyncio.wait({reading, stopping})
    if not reading.cancelled() and isinstance(error := reading.exception(), Refused):
        growing.fail(str(error), time.monotonic())
    elif not reading.cancelled() and error is not None:
        raise error
    elif not growing.answer.is_whole:
        growing.end(time.monotonic(), is_stopped=reading.cancelled())
    yield growing.answer
