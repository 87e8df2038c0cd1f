"""A small HTTP server on a loopback port, of which every byte is the test's own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Asked:
    """One request that came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Answer = Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Upstream:
    """What the server was asked, and for how many requests the client left before the answer was over."""

    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    left: int = 0
    open: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def idle(self) -> None:
        """Wait until no request is open."""
        async with asyncio.timeout(5):
            while self.open:  # noqa: ASYNC110  (a test's clients end when they end)
                await asyncio.sleep(0.01)


@asynccontextmanager
async def upstream(answer: Answer) -> AsyncIterator[Upstream]:
    """A server that answers every request with `answer` and then closes the connection."""
    state = Upstream()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked = await _read(reader)
            state.asked.append(asked)
            state.open += 1
            gone = asyncio.create_task(reader.read())
            answering = asyncio.ensure_future(answer(asked, writer))
            await asyncio.wait({gone, answering}, return_when=asyncio.FIRST_COMPLETED)
            state.left += not answering.done()
            for task in (gone, answering):
                task.cancel()
            await asyncio.gather(gone, answering, return_exceptions=True)
            state.open -= 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    state.port = server.sockets[0].getsockname()[1]
    try:
        yield state
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _read(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    return Asked(method, path, headers, await reader.readexactly(int(headers.get("content-length", "0"))))


def head(status: int = 200, kind: str = "application/json", length: int | None = None, **headers: str) -> bytes:
    """The head of a response; without a length it ends when the connection does."""
    lines = [f"HTTP/1.1 {status} Status", f"content-type: {kind}", "connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    lines += [] if length is None else [f"content-length: {length}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def replies(body: Any, status: int = 200, kind: str = "application/json", **headers: str) -> Answer:
    """Always the same whole response."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(head(status, kind, len(data), **headers) + data)
        await writer.drain()

    return answer


def streams(*pieces: bytes | float | asyncio.Event, kind: str = "text/event-stream") -> Answer:
    """A response in pieces, with waits between them."""

    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(head(kind=kind))
        for piece in pieces:
            match piece:
                case bytes():
                    writer.write(piece)
                    await writer.drain()
                case asyncio.Event():
                    await piece.wait()
                case _:
                    await asyncio.sleep(piece)

    return answer


def deltas(*texts: str) -> list[bytes]:
    """The events of an OpenAI chat stream with these texts."""
    items = [{"choices": [{"delta": {"content": text}}]} for text in texts]
    return [f"data: {json.dumps(item)}\n\n".encode() for item in [{"choices": [{"delta": {"role": "x"}}]}, *items]]
