"""What surrounds the answers: models, health, metrics, keys, headers, errors, the log."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest
from scripted import ScriptedAdapter, says

from modelcompose.adapters.base import GenerationRequest, ModelCard, ModelCounters, ModelState
from modelcompose.adapters.errors import (
    ComposeError,
    ContextLengthExceeded,
    EngineDied,
    ModelUnavailable,
    QueueFull,
    UnsupportedParameter,
    UpstreamError,
)
from modelcompose.adapters.events import Event, Finish, TextDelta, Usage
from modelcompose.server.settings import Settings

Client = Callable[..., httpx2.AsyncClient]
CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def hello() -> ScriptedAdapter:
    return ScriptedAdapter({"m": says("Hel", "lo")})


def cards(*phases: str) -> ScriptedAdapter:
    states = [ModelState(phase, "a line", 0.5 if phase == "loading" else None) for phase in phases]  # type: ignore[arg-type]
    return ScriptedAdapter({}, [ModelCard(id=f"m{i}", created=1, state=state) for i, state in enumerate(states)])


@pytest.mark.parametrize("prefix", ["/v1", ""])
async def test_every_route_is_there_with_and_without_v1(client: Client, prefix: str) -> None:
    model = client(hello())
    assert (await model.post(f"{prefix}/chat/completions", json=CHAT)).status_code == 200
    assert (await model.post(f"{prefix}/completions", json={"model": "m", "prompt": "a"})).status_code == 200
    assert (await model.get(f"{prefix}/models")).status_code == 200
    assert (await model.get(f"{prefix}/models/m")).status_code == 200


async def test_models_of_all_adapters_are_listed(client: Client) -> None:
    card = ModelCard(id="org/name", created=7, owned_by="org", context_length=4096, state=ModelState("loading"))
    model = client(hello(), ScriptedAdapter({}, [card]))
    described = {
        "id": "org/name",
        "object": "model",
        "created": 7,
        "owned_by": "org",
        "max_model_len": 4096,
        "status": {"value": "loading"},
    }
    listed = (await model.get("/v1/models")).json()
    assert listed["object"] == "list"
    assert [each["id"] for each in listed["data"]] == ["m", "org/name"]
    assert listed["data"][1] == described
    for path in ("/v1/models/org/name", "/v1/models/org%2Fname", "/v1/models/org/name/"):
        assert (await model.get(path)).json() == described
    assert (await model.get("/v1/models/")).json() == listed


async def test_an_unknown_model_is_told_what_there_is(client: Client) -> None:
    model = client(ScriptedAdapter({"a": says(), "b": says()}))
    for reply in (
        await model.get("/v1/models/x"),
        await model.post("/v1/chat/completions", json=CHAT | {"model": "x"}),
    ):
        assert reply.status_code == 404
        assert reply.json()["error"] == {
            "message": "no model 'x' here; this server has: a, b",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }


@pytest.mark.parametrize(
    ("phases", "code", "status"),
    [
        (("ready",), 200, "ok"),
        (("ready", "stopped", "failed"), 200, "ok"),
        (("stopped",), 200, "ok"),
        (("ready", "loading"), 503, "loading"),
        (("failed", "loading"), 503, "loading"),
        (("failed",), 503, "failed"),
        ((), 503, "failed"),
    ],
)
async def test_health_says_how_the_models_are(client: Client, phases: tuple[str, ...], code: int, status: str) -> None:
    reply = await client(cards(*phases)).get("/health")
    assert (reply.status_code, reply.json()["status"]) == (code, status)
    progress = [0.5 if phase == "loading" else None for phase in phases]
    assert reply.json()["models"] == [
        {"id": f"m{index}", "state": phase, "progress": progress[index], "detail": "a line"}
        for index, phase in enumerate(phases)
    ]
    assert (await client(cards(*phases)).head("/health")).status_code == code


async def test_the_root_greets(client: Client) -> None:
    reply = await client(hello()).get("/")
    assert reply.status_code == 200
    assert "/v1" in reply.text
    assert "Models: m" in reply.text
    assert (await client(hello()).head("/")).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "message"),
    [
        ("GET", "/nope", 404, None, "Invalid URL (GET /nope)"),
        ("POST", "/v1/embeddings", 404, None, "Invalid URL (POST /v1/embeddings)"),
        ("GET", "/v1/chat/completions", 405, "method_not_supported", "Wrong method (GET /v1/chat/completions)"),
        ("DELETE", "/v1/models/m", 405, "method_not_supported", "Wrong method (DELETE /v1/models/m)"),
        ("GET", "/a%0Ab", 404, None, "Invalid URL (GET /a%0Ab)"),
        ("GET", "/" + "x" * 5000, 404, None, f"Invalid URL (GET /{'x' * 199})"),
    ],
)
async def test_wrong_urls_and_methods(
    client: Client, method: str, path: str, status: int, code: str | None, message: str
) -> None:
    reply = await client(hello()).request(method, path)
    assert reply.status_code == status
    assert reply.json()["error"] == {
        "message": message,
        "type": "invalid_request_error",
        "param": None,
        "code": code,
    }
    assert ("allow" in reply.headers) == (status == 405)


class Refuses:
    """An adapter that raises instead of answering."""

    def __init__(self, error: Exception, after: tuple[Event, ...] = ()) -> None:
        self._error = error
        self._after = after

    def cards(self) -> list[ModelCard]:
        return [ModelCard(id="m", created=1)]

    async def generate(self, request: GenerationRequest) -> AsyncIterator[Event]:
        for event in self._after:
            yield event
        raise self._error


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status", "kind", "code", "headers"),
    [
        (UnsupportedParameter.named("seed", "no."), 400, "invalid_request_error", "unsupported_parameter", {}),
        (
            ContextLengthExceeded.of(10, 20, 5, "messages"),
            400,
            "invalid_request_error",
            "context_length_exceeded",
            {},
        ),
        (QueueFull("full"), 429, "rate_limit_error", "rate_limit_exceeded", {"retry-after": "1"}),
        (
            ModelUnavailable("loads", retry_after=3),
            503,
            "service_unavailable_error",
            "server_is_overloaded",
            {"retry-after": "3"},
        ),
        (
            ModelUnavailable("failed to load"),
            503,
            "service_unavailable_error",
            "server_is_overloaded",
            {"x-should-retry": "false"},
        ),
        (EngineDied("gone"), 503, "service_unavailable_error", "engine_died", {"retry-after": "1"}),
        (UpstreamError("no", status=418), 418, "invalid_request_error", None, {}),
        (UpstreamError("no"), 502, "server_error", None, {"x-should-retry": "false"}),
        (ComposeError("odd"), 500, "server_error", None, {"x-should-retry": "false"}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
async def test_an_adapters_refusal_is_a_status_also_for_streams(
    client: Client, error: ComposeError, status: int, kind: str, code: str | None, headers: dict[str, str], stream: bool
) -> None:
    reply = await client(Refuses(error)).post("/v1/chat/completions", json=CHAT | {"stream": stream})
    assert reply.status_code == status
    assert reply.json()["error"] == {
        "message": error.message,
        "type": kind,
        "param": error.param,
        "code": code,
    }
    relevant = {name: reply.headers[name] for name in ("retry-after", "x-should-retry") if name in reply.headers}
    assert relevant == headers


@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_unexpected_is_told_to_the_log_only(
    client: Client, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    reply = await client(Refuses(ValueError("/secret/path"))).post(
        "/v1/chat/completions", json=CHAT | {"stream": stream}, headers={"origin": "http://page"}
    )
    assert reply.status_code == 500
    assert reply.headers["x-should-retry"] == "false"
    assert reply.headers["access-control-allow-origin"] == "*"
    request_id = reply.headers["x-request-id"]
    assert reply.json() == {
        "error": {
            "message": f"The server failed on this request. Its log has the reason under the request id {request_id}.",
            "type": "server_error",
            "param": None,
            "code": None,
        }
    }
    logged = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.message for record in logged] == [f"{request_id} failed"]
    assert logged[0].exc_info is not None
    assert "/secret/path" in caplog.text


@pytest.mark.parametrize(
    ("error", "message"),
    [(EngineDied("the engine is gone"), "the engine is gone"), (ValueError("x"), "The server failed")],
)
async def test_an_error_in_mid_stream_is_an_event_and_the_stream_is_ended(
    client: Client, error: Exception, message: str
) -> None:
    adapter = Refuses(error, after=(TextDelta("Hel"),))
    reply = await client(adapter).post("/v1/chat/completions", json=CHAT | {"stream": True})
    assert reply.status_code == 200
    *_, failed, done, end = reply.text.split("\n\n")
    assert failed.startswith('data: {"error":{"message":"' + message)
    assert (done, end) == ("data: [DONE]", "")


@pytest.mark.parametrize("events", [(), (TextDelta("a"),), (TextDelta("a"), Usage(1, 1))])
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_just_ends_is_an_error_and_no_answer(
    client: Client, events: tuple[Event, ...], stream: bool
) -> None:
    reply = await client(ScriptedAdapter({"m": events})).post("/v1/chat/completions", json=CHAT | {"stream": stream})
    assert reply.status_code == (200 if stream and events else 500)
    assert "The server failed" in reply.text
    assert reply.text.endswith("[DONE]\n\n") == bool(stream and events)


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic abc", "Bearer wrong", "Bearer clé"])
async def test_a_key_is_asked_for_where_there_is_one(client: Client, header: str | None) -> None:
    model = client(hello(), settings=Settings(api_keys=("right", "also")))
    headers = [] if header is None else [(b"authorization", header.encode("latin-1"))]
    reply = await model.post("/v1/chat/completions", json=CHAT, headers=headers)
    assert reply.status_code == 401
    error = reply.json()["error"]
    is_wrong = header is not None and header.startswith("Bearer ") and header.strip() != "Bearer"
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key" if is_wrong else None)
    assert reply.headers["www-authenticate"] == "Bearer"


async def test_a_right_key_opens_and_service_routes_need_none(client: Client) -> None:
    model = client(hello(), settings=Settings(api_keys=("right", "also")))
    for key in ("right", "also"):
        assert (await model.get("/v1/models", headers={"authorization": f"bearer {key}"})).status_code == 200
    for path in ("/", "/health", "/metrics", "/docs", "/openapi.json"):
        assert (await model.get(path)).status_code == 200, path
    assert (await model.get("/v1/models")).status_code == 401


@pytest.mark.parametrize(
    ("key", "sent", "status"),
    [
        ("clé", "clé".encode(), 200),
        ("clé", "clé".encode("latin-1"), 200),
        ("clé", b"cle", 401),
        ("ключ", "ключ".encode(), 200),
        ("ключ", b"????", 401),
    ],
)
async def test_a_key_may_have_any_letters(client: Client, key: str, sent: bytes, status: int) -> None:
    model = client(hello(), settings=Settings(api_keys=(key,)))
    reply = await model.get("/v1/models", headers=[(b"authorization", b"Bearer " + sent)])
    assert reply.status_code == status


@pytest.mark.parametrize("header", ["Bearer ", "Bearer anything", "nonsense"])
async def test_without_keys_any_key_will_do(client: Client, header: str) -> None:
    reply = await client(hello()).post("/v1/chat/completions", json=CHAT, headers={"authorization": header})
    assert reply.status_code == 200


async def test_browser_sdks_get_through(client: Client) -> None:
    asked = "authorization,content-type,x-stainless-lang,x-stainless-retry-count,openai-organization"
    preflight = await client(hello()).options(
        "/v1/chat/completions",
        headers={
            "origin": "http://page",
            "access-control-request-method": "POST",
            "access-control-request-headers": asked,
        },
    )
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "*"
    assert preflight.headers["access-control-allow-headers"] == asked
    reply = await client(hello()).post("/v1/chat/completions", json=CHAT, headers={"origin": "http://page"})
    assert reply.headers["access-control-allow-origin"] == "*"
    assert "x-request-id" in reply.headers["access-control-expose-headers"]
    only_there = client(hello(), settings=Settings(cors_origins=("http://there",)))
    assert (
        "access-control-allow-origin" not in (await only_there.get("/health", headers={"origin": "http://x"})).headers
    )


@pytest.mark.parametrize("stream", [False, True])
async def test_headers_of_an_answer(client: Client, stream: bool) -> None:
    reply = await client(hello()).post("/v1/chat/completions", json=CHAT | {"stream": stream})
    assert re.fullmatch("req_[0-9a-f]{24}", reply.headers["x-request-id"])
    assert reply.headers["openai-processing-ms"].isdigit()
    assert reply.headers["openai-version"] == "2020-10-01"
    if stream:
        assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert reply.headers["cache-control"] == "no-cache"
        assert reply.headers["x-accel-buffering"] == "no"
    else:
        assert reply.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("given", "is_kept"), [("abc-123", True), ("x" * 128, True), ("x" * 129, False), ("a b", False), ("", False)]
)
async def test_a_sane_request_id_of_the_client_is_kept(client: Client, given: str, is_kept: bool) -> None:
    reply = await client(hello()).get("/v1/models", headers={"x-request-id": given})
    assert (reply.headers["x-request-id"] == given) == is_kept


async def test_one_line_in_the_log_for_an_answer(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    model = client(hello())
    for _ in range(2):
        await model.post("/v1/chat/completions", json=CHAT, headers={"x-request-id": "r1"})
        await model.get("/health")
    lines = [record.message for record in caplog.records if record.name == "modelcompose.server.record"]
    number = r"[0-9.]+"
    pattern = (
        rf"r1 POST /v1/chat/completions 200 model=m tokens=3\+2 first_token={number}s rate={number}/s time={number}s"
    )
    assert len(lines) == 2
    assert all(re.fullmatch(pattern, line) for line in lines), lines


async def test_metrics_count_requests_and_show_the_models_counters(client: Client) -> None:
    counters = ModelCounters(running=2, waiting=1, requests=9, cancelled=3, prompt_tokens=50, generated_tokens=70)
    card = ModelCard(id="m", created=1, counters=counters)
    model = client(ScriptedAdapter({"m": says("a", "b")}, [card]))
    await model.post("/v1/chat/completions", json=CHAT)
    await model.post("/v1/completions", json={"model": "m", "prompt": "a", "stream": True})
    await model.post("/v1/chat/completions", json=CHAT | {"model": "x" * 50})
    await model.post("/v1/chat/completions", json={})
    await model.get("/v1/elsewhere")
    reply = await model.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    lines = reply.text.splitlines()
    for line in (
        'modelcompose_http_requests_total{endpoint="chat.completions",model="m",status="200"} 1.0',
        'modelcompose_http_requests_total{endpoint="completions",model="m",status="200"} 1.0',
        'modelcompose_http_requests_total{endpoint="chat.completions",model="",status="404"} 1.0',
        'modelcompose_http_requests_total{endpoint="chat.completions",model="",status="400"} 1.0',
        'modelcompose_request_seconds_count{endpoint="chat.completions",model="m"} 1.0',
        'modelcompose_first_token_seconds_count{endpoint="completions",model="m"} 1.0',
        'modelcompose_model_ready{model="m"} 1.0',
        'modelcompose_model_running{model="m"} 2.0',
        'modelcompose_model_waiting{model="m"} 1.0',
        'modelcompose_model_cancelled_total{model="m"} 3.0',
        'modelcompose_model_prompt_tokens_total{model="m"} 50.0',
        'modelcompose_model_generated_tokens_total{model="m"} 70.0',
    ):
        assert line in lines
    assert "x" * 50 not in reply.text


async def test_two_apps_do_not_share_their_counts(client: Client) -> None:
    one, other = client(hello()), client(hello())
    await one.post("/v1/chat/completions", json=CHAT)
    assert "modelcompose_http_requests_total{" not in (await other.get("/metrics")).text


async def test_the_bodies_are_documented(client: Client) -> None:
    page = (await client(hello()).get("/openapi.json")).json()
    assert set(page["paths"]) == {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/models",
        "/v1/models/{model_id}",
        "/v1/models/load",
        "/v1/models/unload",
        "/health",
        "/metrics",
    }
    body = page["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/ChatBody"}
    schemas = page["components"]["schemas"]
    assert set(schemas["ChatBody"]["required"]) == {"model", "messages"}
    assert {"temperature", "tools", "response_format"} <= set(schemas["ChatBody"]["properties"])
    named = set(re.findall(r'"#/components/schemas/([^"]+)"', str(page).replace("'", '"')))
    assert named <= set(schemas)
    assert "swagger" in (await client(hello()).get("/docs")).text.lower()


async def test_ids_differ_and_the_fingerprint_does_not(client: Client) -> None:
    model = client(hello())
    one, other = [(await model.post("/v1/chat/completions", json=CHAT)).json() for _ in range(2)]
    assert one["id"] != other["id"]
    assert one["id"].startswith("chatcmpl-")
    assert one["system_fingerprint"] == other["system_fingerprint"]
    text = (await model.post("/v1/completions", json={"model": "m", "prompt": "a"})).json()
    assert text["id"].startswith("cmpl-")


async def test_several_prompts_and_answers_are_choices_in_order(client: Client) -> None:
    def script(request: GenerationRequest) -> list[Event]:
        pieces = [
            TextDelta(f"{p}{k}", i * request.n + k) for i, p in enumerate(request.prompts) for k in range(request.n)
        ]
        return [*reversed(pieces), *(Finish("stop", piece.choice) for piece in pieces), Usage(2, 4)]

    body = {"model": "m", "prompt": ["a", "b"], "n": 2}
    reply = (await client(ScriptedAdapter({"m": script})).post("/v1/completions", json=body)).json()
    assert [(choice["index"], choice["text"]) for choice in reply["choices"]] == [
        (0, "a0"),
        (1, "a1"),
        (2, "b0"),
        (3, "b1"),
    ]
