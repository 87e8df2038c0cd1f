"""HTTP/1.1 as servers speak it, well or not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from scripted_upstream import Asked, Drop, Hang, ScriptedUpstream, Step, stream, upstream, whole

from modelcompose.adapters.vllm.connection import LARGEST_HEAD, Connection, Patience
from modelcompose.adapters.vllm.endpoint import Endpoint
from modelcompose.adapters.vllm.troubles import Broken, TooSlow, Unreachable


@asynccontextmanager
async def serving(
    steps: list[Step], patience: Patience | None = None
) -> AsyncIterator[tuple[ScriptedUpstream, Endpoint]]:
    async with upstream(steps) as server:
        endpoint = Endpoint(server.url, patience=patience)
        yield server, endpoint
        endpoint.close()


async def ask(endpoint: Endpoint, body: bytes = b"{}") -> tuple[int, bytes]:
    async with asked(endpoint, body) as answer:
        pieces = []
        while piece := await answer.read():
            pieces.append(piece)
        return answer.status, b"".join(pieces)


@asynccontextmanager
async def asked(endpoint: Endpoint, body: bytes = b"{}") -> AsyncIterator[Connection]:
    answer = await endpoint.ask(endpoint.post("chat/completions", body))
    try:
        yield answer
    finally:
        answer.leave()


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("steps", "body"),
    [
        (whole(b"body"), b"body"),
        (stream(b"bo", b"dy"), b"body"),
        ([HEAD + b"connection: close\r\n\r\nbody", Drop()], b"body"),
        ([b"HTTP/1.0 200 OK\r\n\r\nbo", 0.01, b"dy", Drop()], b"body"),
        ([b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", *whole(b"body")], b"body"),
        ([HEAD + b"content-length: 0\r\n\r\n"], b""),
        ([HEAD + b"transfer-encoding: chunked\r\n\r\n4;x=y\r\nbody\r\n0\r\nx-checksum: 1\r\n\r\n"], b"body"),
    ],
)
async def test_bodies_of_every_form_wherever_they_are_cut(steps: list[Step], body: bytes) -> None:
    async with serving(steps) as (server, endpoint):
        assert await ask(endpoint) == (200, body)
        data = b"".join(step for step in steps if isinstance(step, bytes))
        singly: list[Step] = [part for byte in data for part in (bytes([byte]), 0.0)]
        server.script = lambda _: [*singly, Drop()] if Drop in map(type, steps) else singly
        assert await ask(endpoint) == (200, body)


async def test_a_connection_is_used_again_if_the_server_keeps_it() -> None:
    async with serving(whole(b"x")) as (server, endpoint):
        for _ in range(3):
            await ask(endpoint)
        assert server.connections == 1
        server.script = lambda _: whole(b"x", connection="close")
        for _ in range(3):
            assert await ask(endpoint) == (200, b"x")
        assert server.connections == 3


async def test_a_connection_that_the_server_closed_meanwhile_is_made_anew() -> None:
    def once(asked: Asked) -> list[Step]:
        return [Drop()] if len(server.asked) == 2 else whole(b"x")

    async with serving([]) as (server, endpoint):
        server.script = once
        await ask(endpoint)
        assert await ask(endpoint) == (200, b"x")
        assert len(server.asked) == 3


async def test_an_answer_that_is_left_ends_the_connection() -> None:
    async with serving([*stream(b"a")[:-1], Hang()]) as (server, endpoint):
        async with asked(endpoint) as answer:
            assert await answer.read() == b"a"
        async with asyncio.timeout(1):
            await server.asked[0].is_over.wait()
        server.script = lambda _: whole(b"x")
        assert await ask(endpoint) == (200, b"x")
        assert server.connections == 2


async def test_an_answer_that_is_about_to_end_keeps_the_connection() -> None:
    async with serving([*stream(b"a")[:-1], 0.02, stream()[-1]]) as (server, endpoint):
        async with asked(endpoint) as answer:
            assert await answer.read() == b"a"
            answer.leave(is_ending=True)
        await asyncio.sleep(0.1)
        assert (await ask(endpoint))[1] == b"a"
        assert server.connections == 1


async def test_a_server_that_sends_more_than_is_read_has_to_wait() -> None:
    sent = 0

    def endless(asked: Asked) -> object:
        nonlocal sent
        yield stream()[0]
        for _ in range(2000):
            sent += 1
            yield b"%x\r\n%b\r\n" % (1 << 16, b"x" * (1 << 16))
        yield b"0\r\n\r\n"

    async with serving([]) as (server, endpoint):
        server.script = endless  # type: ignore[assignment]
        async with asked(endpoint) as answer:
            await answer.read()
            await asyncio.sleep(0.3)
            assert sent < 500
            total = 1
            while piece := await answer.read():
                total += len(piece)
        assert total > 1900 << 16


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([b"nonsense\r\n\r\n"], "no HTTP"),
        ([HEAD + b"content-length: x\r\n\r\n"], "no HTTP"),
        ([HEAD + b"x: " + b"y" * 2 * LARGEST_HEAD], "head"),
        ([HEAD, Drop()], "ended before"),
        ([HEAD + b"content-length: 9\r\n\r\nbody", Drop()], "ended before"),
        ([HEAD + b"transfer-encoding: chunked\r\n\r\n4\r\nbody\r\n", Drop()], "ended before"),
        ([b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"], "no HTTP"),
    ],
)
async def test_what_is_no_answer(steps: list[Step], message: str) -> None:
    async with serving(steps) as (_, endpoint):
        with pytest.raises(Broken, match=message):
            await ask(endpoint)


async def test_patience_ends() -> None:
    patience = Patience(first_byte=0.05, idle=0.1)
    hanging: list[tuple[list[Step], str]] = [
        ([Hang()], "0.05"),
        ([*stream()[:1], Hang()], "0.05"),
        ([*stream(b"a")[:2], Hang()], "0.1"),
    ]
    for steps, seconds in hanging:
        async with serving(steps, patience) as (_, endpoint):
            with pytest.raises(TooSlow, match=f"nothing came for {seconds} seconds"):
                await ask(endpoint)


async def test_nobody_there() -> None:
    async with upstream() as server:
        endpoint = Endpoint(server.url)
    with pytest.raises(Unreachable):
        await ask(endpoint)


async def test_requests_side_by_side_have_their_own_connections() -> None:
    async with serving([]) as (server, endpoint):
        server.script = lambda request: [0.02, *whole(request.body)]
        bodies = [str(index).encode() for index in range(50)]
        assert [body for _, body in await asyncio.gather(*(ask(endpoint, body) for body in bodies))] == bodies
        assert server.connections == 50
