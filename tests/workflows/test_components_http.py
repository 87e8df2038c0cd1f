"""HTTP components: requests, answers, streams, errors."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from composing import one, runner
from upstream import Asked, Upstream, deltas, head, replies, streams, upstream

from modelcompose.adapters.errors import ConfigError, UpstreamError
from modelcompose.adapters.events import Usage
from modelcompose.workflows.components import http
from modelcompose.workflows.components.streams import ItemStream, is_sent_as_stream

CONTENT = "${response[].choices[0].delta.content}"
QUICK = {"attempts": 3, "delay": 0.01}


def client(server: Upstream, *, path: str = "/v1/thing", **action: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        name: action.pop(name) for name in ("headers", "timeout", "retry", "base_url") if name in action
    }
    action = {"path": path, **action}
    return {"id": "api", "type": "http-client", "base_url": server.url, "retry": QUICK, **fields, "actions": [action]}


async def run(component: dict[str, Any], given: Any = None) -> Any:
    async with runner(one(component)) as opened, opened.run(given=given) as running:
        return await running.value()


async def test_a_request_is_made_of_its_templates() -> None:
    async with upstream(replies({"answer": [1, 2]})) as server:
        component = client(
            server,
            path="/v1/${input.what}",
            headers={"Authorization": "Bearer ${input.key}", "X-Nothing": "${input.nothing}"},
            params={"q": "${input.q}", "none": "${input.nothing}"},
            body={"n": "${input.n as integer}", "list": ["${input.q}"]},
            output="${response.answer[-1]}",
        )
        assert await run(component, {"what": "a b", "key": "k", "q": "x&y", "n": "3"}) == 2
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("POST", "/v1/a%20b?q=x%26y")
    assert asked.json == {"n": 3, "list": ["x&y"]}
    assert asked.headers["authorization"] == "Bearer k"
    assert "x-nothing" not in asked.headers


@pytest.mark.parametrize(
    ("action", "kind", "body"),
    [
        ({"method": "GET"}, None, b""),
        ({"body": "${input.text}"}, None, b"plain"),
        ({"body": {"a": "${input.text}"}}, "application/json", b'{"a":"plain"}'),
    ],
)
async def test_bodies(action: dict[str, Any], kind: str | None, body: bytes) -> None:
    async with upstream(replies({})) as server:
        await run(client(server, **action), {"text": "plain"})
    assert server.asked[0].body == body
    assert server.asked[0].headers.get("content-type") == kind


async def test_a_form_is_sent_as_one() -> None:
    async with upstream(replies({})) as server:
        headers = {"content-type": "application/x-www-form-urlencoded"}
        await run(client(server, headers=headers, body={"a": "${input.text}"}), {"text": "p q"})
    assert server.asked[0].body == b"a=p+q"


async def test_an_endpoint_stands_for_the_whole_url() -> None:
    async with upstream(replies("text")) as server:
        component = client(server, endpoint=server.url + "/else", base_url="http://127.0.0.1:9")
        assert await run(component) == "text"
    assert server.asked[0].path == "/else"


async def test_what_is_no_url_is_the_files_fault() -> None:
    async with upstream(replies({})) as server:
        with pytest.raises(ConfigError, match="no URL"):
            await run(client(server, base_url="${input.url}"), {"url": "file:///etc"})


@pytest.mark.parametrize(
    ("body", "kind", "value"),
    [
        (b'{"a": 1}', "application/json; charset=utf-8", {"a": 1}),
        (b'{"a": 1}', "application/problem+json", {"a": 1}),
        (b'{"a": 1}', "text/plain", '{"a": 1}'),
        ("ü".encode("latin-1"), "text/plain; charset=latin-1", "ü"),
        (b"\xff\xd8", "image/jpeg", "data:image/jpeg;base64,/9g="),
        (b"", "application/json", ""),
    ],
)
async def test_answers(body: bytes, kind: str, value: Any) -> None:
    async with upstream(replies(body, kind=kind)) as server:
        assert await run(client(server)) == value


async def test_json_that_is_none_is_an_error() -> None:
    async with upstream(replies(b"{", kind="application/json")) as server:
        with pytest.raises(UpstreamError, match="not JSON"):
            await run(client(server))


async def test_a_status_is_an_error_with_the_servers_words() -> None:
    async with upstream(replies({"error": {"message": "no such model"}}, status=404)) as server:
        with pytest.raises(UpstreamError, match=r"'api' answered 404 to POST /v1/thing: no such model") as caught:
            await run(client(server))
    assert caught.value.status == 404
    assert len(server.asked) == 1


async def test_an_errors_text_is_bounded() -> None:
    async with upstream(replies(b"x" * 1_000_000, status=500, kind="text/plain")) as server:
        with pytest.raises(UpstreamError) as caught:
            await run(client(server))
    assert len(caught.value.message) <= http.LONGEST_ERROR


async def test_too_large_an_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "LARGEST_ANSWER", 1000)
    async with upstream(replies(b"x" * 2000, kind="text/plain")) as server:
        with pytest.raises(UpstreamError, match="more than 1000 bytes"):
            await run(client(server))


@pytest.mark.parametrize("status", [429, 503])
async def test_a_busy_server_is_asked_again(status: int) -> None:
    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        busy = len(server.asked) < 3
        writer.write(head(status if busy else 200, length=2) + b"{}")

    async with upstream(answer) as server:
        assert await run(client(server)) == {}
    assert len(server.asked) == 3


async def test_a_server_that_stays_busy_is_an_error() -> None:
    async with upstream(replies({"detail": "busy"}, status=429)) as server:
        with pytest.raises(UpstreamError, match="busy") as caught:
            await run(client(server))
    assert caught.value.status == 429
    assert len(server.asked) == 3


async def test_a_connection_that_breaks_before_the_answer_is_made_again() -> None:
    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if len(server.asked) > 1:
            writer.write(head(length=2) + b"{}")

    async with upstream(answer) as server:
        assert await run(client(server)) == {}
    assert len(server.asked) == 2


async def test_a_server_that_is_not_there_is_an_upstream_error() -> None:
    async with upstream(replies({})) as server:
        pass
    with pytest.raises(UpstreamError, match="'api' could not be reached") as caught:
        await run(client(server))
    assert caught.value.status == 502


async def test_a_silent_server_is_given_up() -> None:
    async with upstream(streams(30.0)) as server:
        with pytest.raises(UpstreamError, match="did not answer in time") as caught:
            await run(client(server, timeout=0.2, stream_format="json"))
    assert caught.value.status == 504


async def test_a_stream_becomes_what_each_item_renders_to() -> None:
    async with upstream(streams(*deltas("Hel", "lo"), b"data: [DONE]\n\n")) as server:
        component = client(server, body={"stream": True}, stream_format="json", output=CONTENT)
        async with runner(one(component)) as opened, opened.run() as running:
            outcome = await running.outcome()
            assert is_sent_as_stream(outcome)
            assert [item async for item in outcome.items()] == ["Hel", "lo"]
        assert running.output == "Hello"
        assert running.state == "completed"


async def test_the_first_item_is_there_while_the_server_still_sends() -> None:
    more = asyncio.Event()
    async with upstream(streams(*deltas("a"), more, *deltas("b"))) as server:
        component = client(server, stream_format="json", output=CONTENT)
        async with runner(one(component, output="${output as text;sse-text}")) as opened, opened.run() as running:
            outcome = await running.outcome()
            assert isinstance(outcome, ItemStream)
            assert outcome.form == "text"
            items = outcome.items()
            assert await anext(items) == "a"
            more.set()
            assert [item async for item in items] == ["b"]


async def test_items_that_are_objects_stay_a_list() -> None:
    lines = [b'{"a": 1}\n', b'{"a": null}\n', b'{"a": 3}\n']
    async with upstream(streams(*lines, kind="application/x-ndjson")) as server:
        assert await run(client(server, stream_format="json")) == [{"a": 1}, {"a": None}, {"a": 3}]
        assert await run(client(server, stream_format="json", output="${response[].a}")) == [1, 3]
        assert await run(client(server, stream_format="json", output="${item.a}")) == [1, 3]
        assert await run(client(server, stream_format="json", output={"b": "${result[].a}"})) == [
            {"b": 1},
            {"b": None},
            {"b": 3},
        ]


async def test_a_text_stream_is_the_text_as_it_comes() -> None:
    async with upstream(streams(b"gr", "ü".encode()[:1], 0.05, "ü".encode()[1:], b"n", kind="text/plain")) as server:
        assert await run(client(server, stream_format="text")) == "grün"


@pytest.mark.parametrize("broken", [b'data: {"error": {"message": "out of memory"}}\n\n', b"data: {\n\n"])
async def test_a_stream_that_breaks_is_an_error_after_its_items(broken: bytes) -> None:
    async with upstream(streams(*deltas("a"), broken)) as server:
        component = client(server, stream_format="json", output=CONTENT)
        async with runner(one(component)) as opened, opened.run() as running:
            items = (await running.outcome()).items()
            assert await anext(items) == "a"
            with pytest.raises(UpstreamError, match=r"broke off its answer: (out of memory|this is not JSON)"):
                await anext(items)
            assert running.state == "failed"


async def test_a_connection_cut_in_the_middle_is_an_error() -> None:
    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(head(kind="text/event-stream", length=1000) + deltas("a")[1])

    async with upstream(answer) as server:
        with pytest.raises(UpstreamError, match="broke off"):
            await run(client(server, stream_format="json", output=CONTENT))
    assert len(server.asked) == 1


async def test_leaving_a_run_ends_the_request() -> None:
    async with upstream(streams(*deltas("a"), 30.0)) as server:
        component = client(server, stream_format="json", output=CONTENT)
        async with runner(one(component)) as opened:
            async with opened.run() as running:
                assert await anext((await running.outcome()).items()) == "a"
            assert running.state == "cancelled"
            await server.idle()
    assert server.left == 1


async def test_tokens_that_the_server_tells_of_are_counted() -> None:
    usages = [b'data: {"usage": {"prompt_tokens": 3, "completion_tokens": %d}}\n\n' % n for n in (1, 2)]
    async with upstream(streams(*deltas("a"), *usages)) as server:
        component = client(server, stream_format="json", output=CONTENT)
        async with runner(one(component)) as opened, opened.run() as running:
            assert await running.value() == "a"
            assert running.usage == Usage(3, 2)


async def test_a_server_component_is_called_on_its_port() -> None:
    async with upstream(streams(*deltas("a"))) as server:
        action = {"path": "/chat", "body": {}, "stream_format": "json", "output": CONTENT}
        form = {"id": "s", "type": "http-server", "port": server.port, "base_path": "/v1", "actions": [action]}
        assert await run(form) == "a"
    assert server.asked[0].path == "/v1/chat"


async def test_two_hundred_streams_at_once_are_neither_lost_nor_mixed() -> None:
    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(head(kind="text/event-stream"))
        for piece in deltas(*(f"{asked.json['n']}:{k} " for k in range(5))):
            writer.write(piece)
            await asyncio.sleep(0.01)

    async with upstream(answer) as server:
        component = client(server, body={"n": "${input.n}"}, stream_format="json", output=CONTENT)
        async with runner(one(component)) as opened:

            async def ask(n: int) -> str:
                async with opened.run(given={"n": n}) as running:
                    return "".join([item async for item in (await running.outcome()).items()])

            answers = await asyncio.gather(*map(ask, range(200)))
    assert answers == ["".join(f"{n}:{k} " for k in range(5)) for n in range(200)]
