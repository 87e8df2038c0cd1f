"""Streams over a real socket: what goes out when, and what happens when the client leaves."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from scripted import ScriptedAdapter, Step, says

from modelcompose.adapters.base import GenerationRequest
from modelcompose.adapters.events import Accepted, Finish, TextDelta, Usage
from modelcompose.server.app import create_app
from modelcompose.server.settings import Settings

Serve = Callable[..., str]
FOREVER = 60.0
CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}


def connect(url: str, **change: Any) -> socket.socket:
    """A socket on which the request was sent and nothing was read."""
    host, port = url.removeprefix("http://").split(":")
    body = json.dumps(CHAT | change).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    connection = socket.create_connection((host, int(port)), timeout=5)
    connection.sendall(head.encode() + body)
    return connection


def read_until(connection: socket.socket, end: bytes) -> bytes:
    data = b""
    while end not in data:
        piece = connection.recv(1 << 16)
        assert piece, data
        data += piece
    return data


def eventually(is_so: Callable[[], bool], seconds: float = 3.0) -> bool:
    deadline = time.monotonic() + seconds
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.005)
    return is_so()


def test_headers_and_role_go_out_before_the_prompt_is_through(serve: Serve) -> None:
    url = serve([ScriptedAdapter({"m": [Accepted(), FOREVER]})])
    with closing(connect(url)) as connection:
        data = read_until(connection, b'"finish_reason":null}]}\n\n')
    assert b"text/event-stream" in data
    assert b'"delta":{"role":"assistant","content":""}' in data


def test_comments_keep_a_silent_stream_alive(serve: Serve) -> None:
    adapter = ScriptedAdapter({"m": [Accepted(), 0.25, *says("Hel", "lo")]})
    with closing(connect(serve([adapter], Settings(keep_alive=0.05)))) as connection:
        data = read_until(connection, b"[DONE]\n\n")
    before, after = data.split(b'{"content":"Hel"}')
    assert before.count(b": keep-alive\n\n") >= 2
    assert b": keep-alive" not in after


def test_a_whole_answer_has_no_comments_in_it(serve: Serve) -> None:
    adapter = ScriptedAdapter({"m": [Accepted(), 0.15, *says("Hello")]})
    with closing(connect(serve([adapter], Settings(keep_alive=0.02)), stream=False)) as connection:
        data = read_until(connection, b"}}}")
    assert b"keep-alive" not in data


@pytest.mark.parametrize(
    ("stream", "steps"),
    [
        (True, [Accepted(), FOREVER]),
        (True, [TextDelta("a"), FOREVER]),
        (True, [FOREVER]),
        (False, [Accepted(), FOREVER]),
        (False, [TextDelta("a"), FOREVER]),
        (False, [FOREVER]),
    ],
)
def test_a_client_that_leaves_ends_the_generation_at_once(
    serve: Serve, caplog: pytest.LogCaptureFixture, stream: bool, steps: list[Step]
) -> None:
    caplog.set_level(logging.INFO)
    adapter = ScriptedAdapter({"m": steps})
    with closing(connect(serve([adapter]), stream=stream)) as connection:
        assert eventually(lambda: len(adapter.requests) == 1)
        if stream and len(steps) > 1:
            read_until(connection, b"\n\n")
    left = time.monotonic()
    assert eventually(lambda: adapter.closed_early == 1)
    assert time.monotonic() - left < 0.5
    assert eventually(lambda: "client left" in caplog.text)
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


def test_leaving_straight_after_the_end_is_no_leaving(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    adapter = ScriptedAdapter({"m": says("Hel", "lo")})
    url = serve([adapter])
    for _ in range(20):
        with closing(connect(url)) as connection:
            read_until(connection, b"[DONE]\n\n")
    assert eventually(lambda: caplog.text.count("tokens=3+2") == 20)
    assert "client left" not in caplog.text
    assert adapter.closed_early == 0
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


def test_a_client_that_does_not_read_holds_the_model_back(serve: Serve) -> None:
    taken = 0

    def script(request: GenerationRequest) -> Iterator[Step]:
        nonlocal taken
        for _ in range(100_000):
            taken += 1
            yield 0.0
            yield TextDelta("x" * 1000)
        yield Finish("stop")
        yield Usage(1, 1)

    def has_stopped() -> bool:
        before = taken
        time.sleep(0.2)
        return taken == before

    adapter = ScriptedAdapter({"m": script})
    with closing(connect(serve([adapter]))) as connection:
        read_until(connection, b"xxx")
        assert eventually(has_stopped)
        assert taken < 100_000
    assert eventually(lambda: adapter.closed_early == 1)


def test_a_connection_serves_one_stream_after_the_other(serve: Serve) -> None:
    url = serve([ScriptedAdapter({"m": says("Hel", "lo")})])
    body = json.dumps(CHAT).encode()
    request = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
    with closing(connect(url)) as connection:
        read_until(connection, b"0\r\n\r\n")
        connection.sendall(request)
        assert b"[DONE]" in read_until(connection, b"0\r\n\r\n")


@pytest.mark.parametrize(
    ("stream", "steps", "status"),
    [
        (True, [Accepted(), FOREVER], 200),
        (True, [FOREVER], 503),
        (False, [Accepted(), TextDelta("a"), FOREVER], 503),
    ],
)
async def test_a_server_that_shuts_down_says_so(stream: bool, steps: list[Step], status: int) -> None:
    adapter = ScriptedAdapter({"m": steps})
    app = create_app([adapter], Settings())
    body = json.dumps(CHAT | {"stream": stream}).encode()
    received = iter([{"type": "http.request", "body": body, "more_body": False}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(received, None) or await asyncio.sleep(FOREVER, {})

    async def send(message: Any) -> None:
        sent.append(message)

    path = "/v1/chat/completions"
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [],
    }
    task = asyncio.create_task(app(scope, receive, send))
    await asyncio.sleep(0.05)
    task.cancel()
    await task
    assert adapter.closed_early == 1
    assert sent[0]["status"] == status
    assert b"This server is shutting down." in sent[-1]["body"]
    assert sent[-1]["body"].endswith(b"data: [DONE]\n\n") == (status == 200)
