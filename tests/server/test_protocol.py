"""How connections are used: heads together with bodies, requests one after the other, and an end when nobody asks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from fronted import serving
from starlette.types import Receive, Scope, Send

from modelcompose import server

SECONDS = 0.2
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the path; for /stream the first piece takes a while, for /slow the head does."""
    assert scope["type"] == "http"
    path: bytes = scope["path"].encode()
    if path == b"/slow":
        await asyncio.sleep(3 * SECONDS)
    headers = [] if path == b"/stream" else [(b"content-length", str(len(path)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if path == b"/stream":
        await asyncio.sleep(3 * SECONDS)
    await send({"type": "http.response.body", "body": path})


@pytest.fixture
async def connection(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Connection]:
    """A connection to a server that ends those which are free for `SECONDS`."""
    monkeypatch.setattr(server.serving, "SECONDS_KEPT_ALIVE", SECONDS)
    async with serving(app) as url, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        yield reader, writer
        writer.close()


def asks(path: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode()


async def test_a_head_goes_out_with_its_body(connection: Connection) -> None:
    reader, writer = connection
    writer.write(asks("/a"))
    assert (await reader.read(1 << 16)).endswith(b"\r\n\r\n/a")


async def test_the_head_of_a_stream_does_not_wait_for_its_first_piece(connection: Connection) -> None:
    reader, writer = connection
    writer.write(asks("/stream"))
    assert (await reader.read(1 << 16)).endswith(b"\r\n\r\n")
    assert b"/stream" in await reader.readuntil(b"0\r\n\r\n")


async def test_a_head_without_a_body_goes_out_too(connection: Connection) -> None:
    reader, writer = connection
    writer.write(asks("/a", "HEAD"))
    assert (await reader.read(1 << 16)).endswith(b"\r\n\r\n")


async def test_requests_that_were_sent_together_are_answered_one_after_the_other(connection: Connection) -> None:
    reader, writer = connection
    writer.write(asks("/slow") + asks("/a") + asks("/b"))
    for path in (b"/slow", b"/a", b"/b"):
        assert (await reader.readuntil(path)).startswith(b"HTTP/1.1 200")


async def test_a_connection_ends_when_it_is_free_for_long_but_not_while_it_is_used(connection: Connection) -> None:
    reader, writer = connection
    for path in ("/a", "/slow", "/stream"):
        writer.write(asks(path))
        await reader.readuntil(path.encode())
    await reader.readuntil(b"0\r\n\r\n")
    began = time.monotonic()
    assert await reader.read() == b""
    assert time.monotonic() - began > SECONDS / 2


async def test_a_connection_does_not_end_while_a_head_comes(connection: Connection) -> None:
    reader, writer = connection
    writer.write(asks("/a"))
    await reader.readuntil(b"/a")
    head = asks("/b")
    writer.write(head[:10])
    await asyncio.sleep(3 * SECONDS)
    writer.write(head[10:])
    await reader.readuntil(b"/b")
