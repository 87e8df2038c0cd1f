"""Several servers as one, each of them a scripted upstream on a real socket."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any

import pytest
from scripted_upstream import (
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

from modelcompose.adapters.base import GenerationRequest, ModelState, Sampling
from modelcompose.adapters.errors import ComposeError, ConfigError, ModelUnavailable, UpstreamError
from modelcompose.adapters.events import Event, TextDelta, collect
from modelcompose.adapters.vllm import replica
from modelcompose.adapters.vllm.adapter import UpstreamAdapter
from modelcompose.adapters.vllm.affinity import key_of, rank
from modelcompose.adapters.vllm.settings import UpstreamSettings


def asking(text: str = "hi", **more: Any) -> GenerationRequest:
    return GenerationRequest(model=NAME, messages=({"role": "user", "content": text},), **more)


async def answer(adapter: UpstreamAdapter, request: GenerationRequest | None = None) -> str:
    async with aclosing(adapter.generate(request or asking())) as events:
        return (await collect(events)).choices[0].text


@asynccontextmanager
async def pooled(
    *scripts: Script | list[Step], **more: Any
) -> AsyncIterator[tuple[list[ScriptedUpstream], UpstreamAdapter]]:
    """One server a script, and an adapter over all of them."""
    async with AsyncExitStack() as opened:
        servers = [await opened.enter_async_context(upstream(script)) for script in scripts]
        yield servers, await opened.enter_async_context(reached(*servers, **more))


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def texts(*requests: str) -> list[GenerationRequest]:
    return [asking(text) for text in requests]


async def test_load_spreads_over_the_servers() -> None:
    async with pooled(hello, hello, hello) as (servers, adapter):
        await asyncio.gather(*(answer(adapter, request) for request in texts(*map(str, range(60)))))
        assert all(10 <= len(server.asked) <= 30 for server in servers)


async def test_the_server_with_the_fewest_open_requests_is_next() -> None:
    go = asyncio.Event()
    async with pooled(stream(go, *says("a")), stream(go, *says("a")), lead=0) as (servers, adapter):
        tasks = []
        for _ in range(6):
            tasks.append(asyncio.create_task(answer(adapter)))
            await until(lambda: sum(len(server.asked) for server in servers) == len(tasks))
        assert [len(server.asked) for server in servers] == [3, 3]
        go.set()
        await asyncio.gather(*tasks)


async def test_a_conversation_stays_at_its_server() -> None:
    async with pooled(hello, hello, hello) as (servers, adapter):
        for first in range(12):
            turns: list[dict[str, Any]] = [{"role": "system", "content": "s"}, {"role": "user", "content": str(first)}]
            for _ in range(3):
                await answer(adapter, GenerationRequest(model=NAME, messages=tuple(turns)))
                turns += [{"role": "assistant", "content": "x"}, {"role": "user", "content": "more"}]
        firsts = [Counter(asked.json["messages"][1]["content"] for asked in server.asked) for server in servers]
        assert all(set(counted.values()) <= {3} for counted in firsts)
        assert sum(1 for counted in firsts if counted) > 1


async def test_a_conversation_moves_when_its_server_has_too_much_to_do() -> None:
    go = asyncio.Event()
    async with pooled(stream(go, *says("a")), stream(go, *says("a")), lead=2) as (servers, adapter):
        tasks = [asyncio.create_task(answer(adapter)) for _ in range(10)]
        await until(lambda: sum(len(server.asked) for server in servers) == 10)
        assert sorted(len(server.asked) for server in servers) == [4, 6]
        go.set()
        await asyncio.gather(*tasks)


def test_what_belongs_together() -> None:
    def key(**body: Any) -> bytes | None:
        return key_of(json.dumps(body).encode())

    system, user = {"role": "system", "content": "s"}, {"role": "user", "content": "u"}
    assert key(prompt_cache_key="k", messages=[user]) == b"k"
    assert key(messages=[system, user]) == key(messages=[system, user, {"role": "assistant"}, user])
    assert key(messages=[system, user]) != key(messages=[system, {"role": "user", "content": "v"}])
    assert key(prompt="x" * 10_000 + "a") == key(prompt="x" * 10_000 + "b")
    assert key(prompt="a") != key(prompt="b")
    assert key() is None
    assert key(messages=7) is None
    assert key_of(b"{") is None


def test_a_server_more_moves_its_share_of_the_conversations_only() -> None:
    servers = [f"http://host-{index}" for index in range(4)]
    keys = [str(index).encode() for index in range(400)]

    def home(key: bytes, among: list[str]) -> str:
        return max(among, key=lambda server: rank(key, server))

    moved = [key for key in keys if home(key, servers) != home(key, servers[:3])]
    assert all(home(key, servers) == servers[3] for key in moved)
    assert 50 < len(moved) < 150


@pytest.mark.parametrize(
    "bad",
    [
        [Drop()],
        whole({"error": {"message": "full"}}, 503),
        whole(b"", 502),
        [*stream()[:1], Drop()],
        [b"SSH-2.0\r\n"],
        whole(b"<html>", 200, "text/html"),
    ],
)
async def test_a_request_moves_on_before_the_first_byte(bad: list[Step]) -> None:
    async with pooled(bad, hello) as (servers, adapter):
        # Which server is asked first follows from the text and the ports; none is never the first of so many.
        for text in map(str, range(30)):
            assert await answer(adapter, asking(text)) == "Hello"
        assert servers[0].asked
        assert len(servers[1].asked) == 30


async def test_a_request_does_not_move_on_after_the_first_byte_or_for_an_error_of_its_own() -> None:
    for bad in (cut(stream(chunk({"content": "a"})), Drop()), whole({"error": {"message": "no"}}, 400)):
        async with pooled(bad, bad) as (servers, adapter):
            with pytest.raises(UpstreamError):
                await answer(adapter)
            assert sum(len(server.asked) for server in servers) == 1


async def test_the_last_server_s_error_is_told_if_none_can_answer() -> None:
    full = whole({"error": {"message": "full"}}, 503, retry_after="9")
    async with pooled(full, full) as (servers, adapter):
        with pytest.raises(UpstreamError, match="full") as raised:
            await answer(adapter)
        assert (raised.value.status, raised.value.retry_after) == (503, 9)
        assert [len(server.asked) for server in servers] == [1, 1]


async def test_a_server_that_is_gone_is_left_out_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica, "FIRST_PAUSE", 0.05)
    async with pooled(hello, hello) as (servers, adapter):
        await servers[0].stop()
        assert [await answer(adapter, request) for request in texts(*"abcdef")] == ["Hello"] * 6
        assert servers[0].asked == []
        assert "1 of 2" in adapter.cards()[0].state.detail
        await servers[0].start()
        await until(lambda: "2 of 2" in adapter.cards()[0].state.detail)
        await asyncio.gather(*(answer(adapter, request) for request in texts(*map(str, range(20)))))
        assert servers[0].asked


async def test_a_server_that_says_it_is_not_well_is_left_out() -> None:
    async with pooled(hello, hello, interval=0.05) as (servers, adapter):
        servers[1].health = 503
        await until(lambda: "1 of 2" in adapter.cards()[0].state.detail)
        await asyncio.gather(*(answer(adapter, request) for request in texts(*map(str, range(8)))))
        assert servers[1].asked == []


async def test_only_the_streams_of_a_server_that_dies_fail() -> None:
    go = asyncio.Event()
    steps = stream(chunk({"content": "a"}), go, *says("b")[1:])
    async with pooled(steps, steps, lead=0) as (servers, adapter):
        tasks = [asyncio.create_task(answer(adapter, request)) for request in texts(*map(str, range(16)))]
        await until(lambda: sum(len(server.asked) for server in servers) == 16)
        await asyncio.sleep(0.1)
        doomed = len(servers[0].asked)
        await servers[0].stop()
        go.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        failed = [outcome for outcome in outcomes if isinstance(outcome, ComposeError)]
        assert 4 <= doomed <= 12
        assert len(failed) == doomed
        assert all("broke off" in str(error) for error in failed)
        assert outcomes.count("ab") == 16 - doomed


async def test_servers_come_and_go_while_there_are_requests() -> None:
    go = asyncio.Event()
    async with (
        upstream(stream(go, *says("a"))) as first,
        upstream() as second,
        UpstreamAdapter(UpstreamSettings(model=NAME), lambda: ModelState("loading", "installing vllm")) as adapter,
    ):
        assert adapter.cards()[0].state.detail == "installing vllm"
        with pytest.raises(ModelUnavailable, match="installing vllm"):
            await answer(adapter)
        adapter.pool.add(first.url)
        await adapter.ready()
        task = asyncio.create_task(answer(adapter))
        await until(lambda: bool(first.asked))
        adapter.pool.add(second.url)
        await adapter.ready()
        adapter.pool.remove(first.url)
        assert await answer(adapter, asking("x")) == "Hello"
        assert len(first.asked) == 1
        go.set()
        assert await task == "a"


async def test_models_are_asked_of_the_servers_that_have_them() -> None:
    async with (
        upstream(models=listed("a", "b")) as first,
        upstream(models=listed("b", "c")) as second,
        reached(first, second) as adapter,
    ):
        assert sorted(card.id for card in adapter.cards()) == ["a", "b", "c"]
        for name in "aac":
            await answer(adapter, GenerationRequest(model=name, messages=asking().messages))
        assert [len(first.asked), len(second.asked)] == [2, 1]


@pytest.mark.parametrize(
    ("models", "reason"),
    [
        (listed("other"), "has no model 'org/model'; it has: other"),
        (whole({"error": "Unauthorized"}, 401), "answers 401.*Unauthorized"),
        (whole(b"<html>", 200, "text/html"), "no list of models"),
    ],
)
async def test_why_a_model_is_not_to_be_had(models: Any, reason: str) -> None:
    async with upstream(models=models) as server, reached(server, model=NAME) as adapter:
        with pytest.raises(ModelUnavailable, match=reason):
            await adapter.ready()
        assert adapter.cards()[0].state.phase == "failed"
        with pytest.raises(ModelUnavailable):
            await answer(adapter)


async def test_a_server_without_health_is_known_by_its_models() -> None:
    async with upstream() as server:
        server.health = 404
        async with reached(server) as adapter:
            assert await answer(adapter) == "Hello"


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x/v1", "http://", "http://host:none/v1", "http://h/v1?x=1"])
async def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="base URL"):
        async with UpstreamAdapter(UpstreamSettings(base_urls=(url,))):
            pass


async def test_a_url_without_a_path_means_v1() -> None:
    async with upstream() as server:
        settings = UpstreamSettings(base_urls=(server.url.removesuffix("/v1") + "/",))
        async with UpstreamAdapter(settings) as adapter:
            await adapter.ready()
            assert await answer(adapter) == "Hello"


async def test_closing_the_events_ends_the_request() -> None:
    async with upstream(cut(stream(chunk({"content": "a"})), Hang())) as server, reached(server) as adapter:
        events: list[Event] = []
        async with aclosing(adapter.generate(asking())) as answering:
            async for each in answering:
                events.append(each)
                if isinstance(each, TextDelta):
                    break
        async with asyncio.timeout(1):
            await server.asked[0].is_over.wait()
        assert adapter.cards()[0].counters.cancelled == 1
        assert adapter.cards()[0].counters.running == 0


async def test_closing_the_adapter_ends_what_is_open() -> None:
    async with upstream([Hang()]) as server:
        async with reached(server) as adapter:
            task = asyncio.create_task(answer(adapter))
            await until(lambda: bool(server.asked))
        with pytest.raises(ComposeError):
            await task


def completion(asked: Asked) -> list[Step]:
    choices = [{"index": index, "text": str(index), "finish_reason": "stop"} for index in (3, 1, 0, 2)]
    return stream(*(event({"choices": [choice]}) for choice in choices), DONE)


async def test_several_prompts_with_several_answers() -> None:
    async with upstream(completion) as server, reached(server) as adapter:
        request = GenerationRequest(model=NAME, prompts=("a", (1, 2)), n=2, sampling=Sampling(max_tokens=1))
        answers = await collect(adapter.generate(request))
        assert [choice.text for choice in answers.choices] == ["0", "1", "2", "3"]
        assert server.asked[0].path == "/v1/completions"
