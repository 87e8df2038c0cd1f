"""Requests handed on to a scripted upstream over real sockets, and everything that can go wrong on the way."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import httpx2
import openai
import pytest
import pytest_asyncio
from fronted import fronted
from scripted_upstream import (
    COMPLETION,
    DONE,
    NAME,
    Asked,
    Drop,
    Hang,
    Script,
    ScriptedUpstream,
    Step,
    chunk,
    cut,
    event,
    hello,
    listed,
    reached,
    says,
    stream,
    upstream,
    whole,
)

from modelcompose.adapters.vllm.connection import Patience
from modelcompose.server.record import Record
from modelcompose.server.settings import Settings

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT: dict[str, Any] = {"model": NAME, "messages": [{"role": "user", "content": "hi"}]}
STREAM = CHAT | {"stream": True}


@asynccontextmanager
async def relaying(
    script: Script | list[Step] = hello, settings: Settings | None = None, **more: Any
) -> AsyncIterator[tuple[ScriptedUpstream, httpx2.AsyncClient]]:
    """A scripted upstream, and a client of our server in front of it."""
    async with (
        upstream(script) as server,
        reached(server, **more) as adapter,
        fronted(adapter, settings=settings) as url,
        httpx2.AsyncClient(base_url=url, timeout=10) as client,
    ):
        yield server, client


class Front(NamedTuple):
    """What `relaying` makes, made once for many tests."""

    server: ScriptedUpstream
    client: httpx2.AsyncClient

    def answering(self, script: Script | list[Step] = hello) -> Front:
        """With another script, and nothing asked yet."""
        self.server.script = (lambda _: script) if isinstance(script, list) else script
        self.server.asked.clear()
        self.server.was_asked.clear()
        return self


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def front() -> AsyncIterator[Front]:
    async with relaying() as (server, client):
        yield Front(server, client)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hasty_front() -> AsyncIterator[Front]:
    """One that waits 0.2 seconds at most."""
    async with relaying(patience=Patience(first_byte=0.2, idle=0.2)) as (server, client):
        yield Front(server, client)


def error_of(reply: httpx2.Response) -> Any:
    error = reply.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] is None or isinstance(error["code"], str)
    return error


def last_error(body: bytes) -> Any:
    """The error that ends a stream; it must be followed by the end mark, and by nothing else."""
    assert body.endswith(b"\n\n" + DONE)
    error = json.loads(body.removesuffix(DONE).strip().split(b"\n\n")[-1].removeprefix(b"data: "))["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return error


# What comes through


async def test_the_body_and_the_answer_go_through_byte_by_byte(front: Front) -> None:
    answer = b'{ "id":"1", "choices":[ ], "usage":{"prompt_tokens": 3,"completion_tokens":0}, "vendor":{"a":1.50} }'
    sent = b'{"messages": 7, "model":"org/model",  "vendor": {"x": [1e3]}, "stream": false}'
    server, client = front.answering(whole(answer))
    reply = await client.post("/chat/completions", content=sent, headers={"content-type": "application/json"})
    assert (reply.status_code, reply.content) == (200, answer)
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-request-id"].startswith("req_")
    assert server.asked[0].body == sent
    assert server.asked[0].path == "/v1/chat/completions"


@pytest.mark.parametrize("path", ["/chat/completions", "/completions"])
async def test_a_stream_goes_through_byte_by_byte(front: Front, path: str) -> None:
    pieces = says("Hel", "lo")
    server, client = front.answering(stream(*pieces))
    reply = await client.post(path, json=STREAM | {"best_of": 7})
    assert reply.content == b"".join(pieces)
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert server.asked[0].path == f"/v1{path}"


async def test_what_vllm_takes_for_true_is_a_stream(front: Front) -> None:
    _, client = front.answering()
    for value in (1, "true", True):
        reply = await client.post("/chat/completions", json=CHAT | {"stream": value})
        assert reply.content.endswith(DONE)


async def test_a_model_has_its_names_of_here() -> None:
    async with relaying(name="mine", model=NAME, aliases={"small": NAME}) as (server, client):
        cards = (await client.get("/models")).json()["data"]
        assert [(card["id"], card["max_model_len"]) for card in cards] == [("mine", 4096), ("small", 4096)]
        whole = await client.post("/chat/completions", json=CHAT | {"model": "mine"})
        assert whole.json() == COMPLETION | {"model": "mine"}
        streamed = await client.post("/chat/completions", json=STREAM | {"model": "small"})
        assert streamed.content == b"".join(says("Hel", "lo")).replace(b'"model":"org/model"', b'"model":"small"')
        assert [asked.json["model"] for asked in server.asked] == [NAME, NAME]
        assert (await client.post("/chat/completions", json=CHAT)).status_code == 404


async def test_the_sdk_sees_thinking_calls_and_usage(front: Front) -> None:
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    pieces = [chunk({"role": "assistant"}), chunk({"reasoning": "hm"}), chunk({"tool_calls": [call]})]
    steps = stream(*pieces, *says("a")[2:])
    _, client = front.answering(steps)
    sdk = openai.AsyncOpenAI(base_url=str(client.base_url), api_key="x", max_retries=0)
    async with sdk.chat.completions.stream(model=NAME, messages=[{"role": "user", "content": "hi"}]) as answer:
        completion = await answer.get_final_completion()
    message = completion.choices[0].message
    assert getattr(message, "reasoning_content", None) == "hm"
    assert message.tool_calls is not None
    assert message.tool_calls[0].function.name == "f"
    assert completion.usage is not None
    assert completion.usage.total_tokens == 4
    await sdk.close()


async def test_the_server_s_key_goes_out_and_the_client_s_does_not() -> None:
    settings = Settings(api_keys=("ours",))
    async with relaying(api_key="theirs", settings=settings) as (server, client):
        assert (await client.post("/chat/completions", json=CHAT)).status_code == 401
        headers = {"authorization": "Bearer ours", "traceparent": "00-1-2-01", "x-other": "1"}
        assert (await client.post("/chat/completions", json=CHAT, headers=headers)).status_code == 200
        (asked,) = server.asked
        assert asked.headers["authorization"] == "Bearer theirs"
        assert asked.headers["traceparent"] == "00-1-2-01"
        assert "x-other" not in asked.headers


async def test_connections_are_used_again(front: Front) -> None:
    server, client = front.answering()
    before = server.connections
    for _ in range(5):
        await client.post("/chat/completions", json=CHAT)
        await client.post("/chat/completions", json=STREAM)
    assert server.connections - before <= 1


async def test_requests_that_are_over_are_gone_without_garbage_collection(front: Front) -> None:
    def records() -> int:
        return sum(type(each) is Record for each in gc.get_objects())

    _, client = front.answering()
    gc.collect()
    before = records()
    gc.disable()
    try:
        for body in (CHAT, STREAM, CHAT):
            await client.post("/chat/completions", json=body)
        await client.get("/models")
        assert records() <= before
    finally:
        gc.enable()


async def test_size_is_still_checked_and_so_is_json() -> None:
    async with relaying(settings=Settings(max_body_bytes=1000)) as (server, client):
        large = CHAT | {"messages": [{"role": "user", "content": "x" * 1000}]}
        assert (await client.post("/chat/completions", json=large)).status_code == 413
        for body in (b"", b"{", b"[]", b'{"model": 7}', b'{"model": "org/model", "x": }'):
            assert (await client.post("/chat/completions", content=body)).status_code == 400
        assert server.asked == []


async def test_metrics_and_log_know_the_tokens() -> None:
    async with relaying() as (_, client):
        await client.post("/chat/completions", json=CHAT)
        await client.post("/chat/completions", json=STREAM)
        metrics = (await client.get(f"{str(client.base_url).removesuffix('/v1/')}/metrics")).text
        assert f'modelcompose_model_generated_tokens_total{{model="{NAME}"}} 4.0' in metrics
        assert f'modelcompose_model_requests_total{{model="{NAME}"}} 2.0' in metrics
        assert f'modelcompose_model_running{{model="{NAME}"}} 0.0' in metrics
        assert f'modelcompose_model_cancelled_total{{model="{NAME}"}} 0.0' in metrics
        assert 'modelcompose_first_token_seconds_count{endpoint="chat.completions"' in metrics


async def test_a_silent_stream_is_kept_alive_once_it_is_accepted() -> None:
    go = asyncio.Event()
    async with (
        relaying(stream(go, *says("a")), settings=Settings(keep_alive=0.05)) as (_, client),
        client.stream("POST", "/chat/completions", json=STREAM) as reply,
    ):
        parts = reply.aiter_raw()
        assert (await anext(parts)).startswith(b": keep-alive\n\n")
        go.set()
        assert b"".join([part async for part in parts]).endswith(b"".join(says("a")))


# Clients that leave

LEFT_AT: dict[str, list[Step]] = {
    "before the head": [Hang()],
    "before the body": [*stream()[:1], Hang()],
    "in mid-stream": cut(stream(chunk({"content": "a"})), Hang()),
}


@pytest.mark.parametrize(("place", "is_stream"), [("before the head", False), *((place, True) for place in LEFT_AT)])
async def test_a_client_that_leaves_ends_the_upstream_request_within_100_ms(
    front: Front, place: str, is_stream: bool
) -> None:
    """In one of three tries, because a busy machine may stop the test itself for longer."""
    seconds = 1.0
    for _ in range(3):
        if seconds >= 0.1:
            seconds = await seconds_until_the_upstream_request_ends(front, place, is_stream)
    assert seconds < 0.1


async def seconds_until_the_upstream_request_ends(front: Front, place: str, is_stream: bool) -> float:
    server, client = front.answering(LEFT_AT[place])
    body = json.dumps(CHAT | {"stream": is_stream}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    async with asyncio.timeout(5):
        await server.was_asked.wait()
        if place == "in mid-stream":
            await reader.readuntil(b"\n\n")
        await asyncio.sleep(0.02)
        left = time.perf_counter()
        writer.transport.abort()
        await server.asked[0].is_over.wait()
    assert server.asked[0].left is not None
    return server.asked[0].left - left


async def test_a_stream_without_end_stops_when_its_client_has_left(front: Front) -> None:
    def endless(asked: Asked) -> Any:
        yield stream()[0]
        while True:
            data = chunk({"content": "x" * 1000})
            yield b"%x\r\n%b\r\n" % (len(data), data)

    server, client = front.answering(endless)
    async with client.stream("POST", "/chat/completions", json=STREAM) as reply:
        async for _ in reply.aiter_raw():
            break
    async with asyncio.timeout(2):
        await server.asked[0].is_over.wait()
    assert server.asked[0].left is not None


# Servers that fail


REFUSALS: list[tuple[list[Step], int, str, str | None]] = [
    (whole({"error": {"message": "no", "type": "BadRequestError", "param": "n", "code": 400}}, 400), 400, "no", None),
    (whole({"error": "Unauthorized"}, 401), 401, "Unauthorized", None),
    (whole({"error": {"message": "The model `x` does not exist.", "code": 404}}, 404), 404, "exist", "model_not_found"),
    (whole({"detail": "Not Found"}, 404), 404, "Not Found", None),
    (
        whole({"object": "error", "message": "This model's maximum context length is 8 tokens.", "code": 400}, 400),
        400,
        "maximum context length is 8",
        "context_length_exceeded",
    ),
    (whole({"error": {"message": "slow", "code": "slow_down"}}, 429, retry_after="7"), 429, "slow", "slow_down"),
    (whole(b"<html>oops</html>", 500, "text/html"), 500, "status 500", None),
    (whole(b"Internal Server Error", 500, "text/plain"), 500, "Internal Server Error", None),
    (whole({"message": "queue full", "object": "error"}, 503), 503, "queue full", None),
    (whole(b"", 307, location="/x"), 502, "status 307", None),
    (whole(b"<html>login</html>", 200, "text/html"), 502, "", None),
    ([b"SSH-2.0-OpenSSH_9.9\r\n"], 502, "no HTTP", None),
    ([Drop()], 502, "broke off", None),
    (cut(stream(), Drop()), 502, "broke off", None),
]


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(("steps", "status", "message", "code"), REFUSALS)
async def test_a_refusal_keeps_its_status_and_gets_openais_envelope(
    front: Front, steps: list[Step], status: int, message: str, code: str | None, is_stream: bool
) -> None:
    _, client = front.answering(steps)
    reply = await client.post("/chat/completions", json=CHAT | {"stream": is_stream})
    assert reply.status_code == status
    assert message in error_of(reply)["message"]
    assert error_of(reply)["code"] == code
    retry_after = {429: "7", 503: "1", 502: reply.headers.get("retry-after")}
    assert reply.headers.get("retry-after") == retry_after.get(status)


async def test_a_server_that_refuses_connections_is_unavailable() -> None:
    async with relaying() as (server, client):
        await server.stop()
        for _ in range(2):
            reply = await client.post("/chat/completions", json=CHAT)
            assert reply.status_code == 503
            assert "cannot be reached" in error_of(reply)["message"]
            assert int(reply.headers["retry-after"]) >= 1
        assert (await client.get("/models")).json()["data"][0]["status"]["value"] == "failed"
        await server.start()
        async with asyncio.timeout(5):
            while (await client.post("/chat/completions", json=CHAT)).status_code != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_server_that_hangs_before_its_answer_is_given_up(hasty_front: Front, is_stream: bool) -> None:
    server, client = hasty_front.answering([Hang()])
    reply = await client.post("/chat/completions", json=CHAT | {"stream": is_stream})
    assert reply.status_code == 504
    assert "silent" in error_of(reply)["message"]
    async with asyncio.timeout(1):
        await server.asked[0].is_over.wait()


BEGUN = chunk({"content": "a"})
ENDS_BADLY: list[tuple[list[Step], str]] = [
    (cut(stream(BEGUN), Drop()), "connection ended"),
    (cut(stream(BEGUN, b'data: {"choi'), Drop()), "connection ended"),
    (stream(BEGUN), "too early"),
    (stream(BEGUN, b'data: {"choi'), "too early"),
    (cut(stream(BEGUN), Hang()), "silent"),
    (cut(stream(BEGUN), b"no chunk\r\n"), "no HTTP"),
    (stream(BEGUN, b"data: no json\n\n", *says("b")), "no JSON"),
    (stream(BEGUN, event({"error": {"message": "engine died", "code": 500}}), DONE), "engine died"),
    (stream(BEGUN, event({"object": "error", "message": "engine died", "code": 500}), DONE), "engine died"),
]


@pytest.mark.parametrize(("steps", "message"), ENDS_BADLY)
async def test_a_stream_that_breaks_off_ends_with_an_error_not_in_silence(
    hasty_front: Front, steps: list[Step], message: str
) -> None:
    _, client = hasty_front.answering(steps)
    reply = await client.post("/chat/completions", json=STREAM)
    assert reply.status_code == 200
    assert reply.content.startswith(BEGUN)
    assert message in last_error(reply.content)["message"]
    assert b'data: {"choi' + b"\n" not in reply.content


async def test_an_answer_that_breaks_off_before_its_end_is_an_error(front: Front) -> None:
    steps: list[Step] = [whole(COMPLETION)[0][:-10], Drop()]  # type: ignore[index]
    _, client = front.answering(steps)
    reply = await client.post("/chat/completions", json=CHAT)
    assert reply.status_code == 502
    assert "broke off" in error_of(reply)["message"]


async def test_a_large_event_comes_through(front: Front) -> None:
    large = chunk({"content": "x" * 10_000_000})
    _, client = front.answering(stream(large, *says("a")[2:]))
    reply = await client.post("/chat/completions", json=STREAM)
    assert reply.content == large + b"".join(says("a")[2:])


async def test_the_models_of_a_server_are_listed() -> None:
    async with (
        upstream(models=listed("a", "b", max_model_len=99)) as server,
        reached(server) as adapter,
        fronted(adapter) as url,
        httpx2.AsyncClient(base_url=url) as client,
    ):
        cards = (await client.get("/models")).json()["data"]
        assert [(card["id"], card["max_model_len"], card["created"]) for card in cards] == [
            ("a", 99, 1_600_000_000),
            ("b", 99, 1_600_000_000),
        ]
        health = await client.get(f"{url.removesuffix('/v1')}/health")
        assert [model["state"] for model in health.json()["models"]] == ["ready", "ready"]
