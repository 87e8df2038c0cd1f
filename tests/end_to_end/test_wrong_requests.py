"""Bodies that are wrong in more than twenty ways: status, code and param over the wire, in one envelope."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx2
import pytest

if TYPE_CHECKING:
    from served import Served

HELLO = [{"role": "user", "content": "Hello!"}]
CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "bundled", "messages": HELLO, "max_tokens": 2, **more}


def text(**more: Any) -> dict[str, Any]:
    return {"model": "bundled", "prompt": "Once", "max_tokens": 2, **more}


def without(body: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in names}


WRONG = [
    (CHAT, without(chat(), "messages"), 400, "missing_required_parameter", "messages"),
    (CHAT, without(chat(), "model"), 400, "missing_required_parameter", "model"),
    (CHAT, chat(messages=[]), 400, "empty_array", "messages"),
    (CHAT, chat(messages="Hello!"), 400, "invalid_type", "messages"),
    (CHAT, chat(messages=[{"role": "user"}]), 400, "missing_required_parameter", "messages[0].content"),
    (CHAT, chat(messages=[{"role": "wizard", "content": "x"}]), 400, "invalid_value", "messages[0].role"),
    (CHAT, chat(messages=[{"role": "user", "content": 5}]), 400, "invalid_type", "messages[0].content"),
    (CHAT, chat(model=5), 400, "invalid_type", "model"),
    (CHAT, chat(model="no-such-model"), 404, "model_not_found", "model"),
    (CHAT, chat(temperature="hot"), 400, "invalid_type", "temperature"),
    (CHAT, chat(temperature=3), 400, "decimal_above_max_value", "temperature"),
    (CHAT, chat(temperature=-1), 400, "decimal_below_min_value", "temperature"),
    (CHAT, chat(top_p=1.5), 400, "decimal_above_max_value", "top_p"),
    (CHAT, chat(presence_penalty=9), 400, "decimal_above_max_value", "presence_penalty"),
    (CHAT, chat(n=0), 400, "integer_below_min_value", "n"),
    (CHAT, chat(max_tokens=0), 400, "integer_below_min_value", "max_tokens"),
    (CHAT, chat(top_logprobs=99, logprobs=True), 400, "integer_above_max_value", "top_logprobs"),
    (CHAT, chat(stop=["a", "b", "c", "d", "e"]), 400, "array_above_max_length", "stop"),
    (CHAT, chat(stop=["a", 5]), 400, "invalid_type", "stop[1]"),
    (CHAT, chat(stream="yes"), 400, "invalid_type", "stream"),
    (CHAT, chat(stream_options={"include_usage": True}), 400, None, "stream_options"),
    (CHAT, chat(tools=[{"type": "function"}]), 400, "missing_required_parameter", "tools[0].function"),
    (CHAT, chat(response_format={"type": "poem"}), 400, "invalid_value", "response_format.type"),
    (CHAT, chat(modalities=["audio"]), 400, "unsupported_parameter", "modalities"),
    (CHAT, chat(messages=[{"role": "user", "content": "word " * 200_000}]), 400, "context_length_exceeded", "messages"),
    (TEXT, text(prompt=["Once", 5]), 400, "invalid_type", "prompt[1]"),
    (TEXT, text(prompt="word " * 200_000), 400, "context_length_exceeded", "prompt"),
    (TEXT, text(suffix="the end"), 400, "unsupported_parameter", "suffix"),
    (TEXT, text(model=""), 404, "model_not_found", "model"),
]


def check(response: httpx2.Response, status: int, code: str | None, param: str | None) -> None:
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    assert response.json().keys() == {"error"}
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (response.status_code, error["code"], error["param"]) == (status, code, param), error
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    assert len(response.content) < 3000


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "param"),
    WRONG,
    ids=[f"{path.rpartition('/')[0].removeprefix('/v1/')}{param}-{code}" for path, _, _, code, param in WRONG],
)
def test_a_wrong_body_is_told_what_is_wrong(
    served: Served, path: str, body: dict[str, Any], status: int, code: str | None, param: str | None
) -> None:
    check(httpx2.post(f"{served.url}{path}", json=body, timeout=30), status, code, param)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"\xff\xfe", b"null"])
def test_what_is_no_json_object_is_refused(served: Served, body: bytes) -> None:
    response = httpx2.post(
        f"{served.url}{CHAT}", content=body, headers={"content-type": "application/json"}, timeout=30
    )
    check(response, 400, response.json()["error"]["code"], None)


def test_unknown_addresses_and_methods_have_the_same_envelope(served: Served) -> None:
    check(httpx2.post(f"{served.url}/v1/nothing", json={}), 404, None, None)
    check(httpx2.get(f"{served.url}{CHAT}"), 405, "method_not_supported", None)


def test_null_is_the_same_as_nothing_and_unknown_fields_are_ignored(served: Served) -> None:
    nothing = dict.fromkeys(
        ("temperature", "top_p", "n", "stop", "stream", "stream_options", "tools", "tool_choice", "response_format",
         "logprobs", "seed", "user", "logit_bias", "presence_penalty")
    )  # fmt: skip
    response = httpx2.post(f"{served.url}{CHAT}", json=chat(**nothing, some_field_of_tomorrow={"a": 1}), timeout=30)
    assert response.status_code == 200
