"""What is wrong with a body is said in OpenAI's words: status, code, param, and a message of bounded size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import msgspec
import pytest
from pydantic import ValidationError
from scripted import ScriptedAdapter, says

from modelcompose.adapters.errors import InvalidRequest
from modelcompose.server.schema import ChatBody
from modelcompose.server.settings import Settings
from modelcompose.server.validation import parse

Client = Callable[..., httpx2.AsyncClient]

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
TEXT = {"model": "m", "prompt": "hi"}
TOOL = {"type": "function", "function": {"name": "f"}}


def said(**message: Any) -> dict[str, Any]:
    return {"messages": [message]}


WRONG_CHATS: list[tuple[dict[str, Any], str | None, str | None]] = [
    ({"model": None}, "invalid_type", "model"),
    ({"model": 3}, "invalid_type", "model"),
    ({"messages": []}, "empty_array", "messages"),
    ({"messages": "hi"}, "invalid_type", "messages"),
    ({"messages": ["hi"]}, "invalid_type", "messages[0]"),
    (said(content="hi"), "missing_required_parameter", "messages[0].role"),
    (said(role="robot", content="hi"), "invalid_value", "messages[0].role"),
    (said(role="user"), "missing_required_parameter", "messages[0].content"),
    (said(role="user", content=3), "invalid_type", "messages[0].content"),
    (said(role="user", content=None), "invalid_type", "messages[0].content"),
    (said(role="user", content=[]), "empty_array", "messages[0].content"),
    (said(role="user", content=[{"type": "text"}]), "missing_required_parameter", "messages[0].content[0].text"),
    (said(role="user", content=[{"type": "text", "text": 1}]), "invalid_type", "messages[0].content[0].text"),
    (said(role="user", content=[{"type": "smell"}]), "invalid_value", "messages[0].content[0].type"),
    (said(role="user", content=[{"text": "a"}]), "missing_required_parameter", "messages[0].content[0].type"),
    (said(role="assistant"), "missing_required_parameter", "messages[0].content"),
    (said(role="tool", content="4"), "missing_required_parameter", "messages[0].tool_call_id"),
    (
        said(
            role="assistant", tool_calls=[{"id": "1", "type": "function", "function": {"name": "f", "arguments": {}}}]
        ),
        "invalid_type",
        "messages[0].tool_calls[0].function.arguments",
    ),
    ({"temperature": "hot"}, "invalid_type", "temperature"),
    ({"temperature": 2.5}, "decimal_above_max_value", "temperature"),
    ({"temperature": -0.1}, "decimal_below_min_value", "temperature"),
    ({"top_p": 1.5}, "decimal_above_max_value", "top_p"),
    ({"presence_penalty": 3}, "decimal_above_max_value", "presence_penalty"),
    ({"frequency_penalty": -3}, "decimal_below_min_value", "frequency_penalty"),
    ({"max_tokens": 0}, "integer_below_min_value", "max_tokens"),
    ({"max_tokens": 1.5}, "invalid_type", "max_tokens"),
    ({"max_tokens": True}, "invalid_type", "max_tokens"),
    ({"max_completion_tokens": 10**30}, "integer_above_max_value", "max_completion_tokens"),
    ({"n": 0}, "integer_below_min_value", "n"),
    ({"n": 129}, "integer_above_max_value", "n"),
    ({"seed": 2**63}, "integer_above_max_value", "seed"),
    ({"seed": "x"}, "invalid_type", "seed"),
    ({"stop": 5}, "invalid_type", "stop"),
    ({"stop": ["a", 2]}, "invalid_type", "stop[1]"),
    ({"stop": list("abcde")}, "array_above_max_length", "stop"),
    ({"stream": "yes"}, "invalid_type", "stream"),
    ({"stream_options": {"include_usage": True}}, None, "stream_options"),
    ({"stream": True, "stream_options": {"include_usage": 1}}, "invalid_type", "stream_options.include_usage"),
    ({"logprobs": 3}, "invalid_type", "logprobs"),
    ({"top_logprobs": 3}, "invalid_value", "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "integer_above_max_value", "top_logprobs"),
    ({"logit_bias": {"5": 101}}, "decimal_above_max_value", "logit_bias.5"),
    ({"logit_bias": {"five": 1}}, "invalid_value", "logit_bias"),
    ({"logit_bias": [1]}, "invalid_type", "logit_bias"),
    ({"reasoning_effort": "heroic"}, "invalid_value", "reasoning_effort"),
    ({"service_tier": "gold"}, "invalid_value", "service_tier"),
    ({"metadata": {"a": 1}}, "invalid_type", "metadata.a"),
    ({"metadata": {"a": "b" * 513}}, "string_above_max_length", "metadata.a"),
    ({"metadata": {str(i): "" for i in range(17)}}, "object_above_max_length", "metadata"),
    ({"response_format": "json"}, "invalid_type", "response_format"),
    ({"response_format": {"type": "xml"}}, "invalid_value", "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "missing_required_parameter", "response_format.json_schema"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a b"}}},
        "invalid_value",
        "response_format.json_schema.name",
    ),
    ({"tools": [{"type": "function"}]}, "missing_required_parameter", "tools[0].function"),
    ({"tools": [{"type": "function", "function": {}}]}, "missing_required_parameter", "tools[0].function.name"),
    ({"tools": [{"type": "search"}]}, "invalid_value", "tools[0].type"),
    (
        {"tools": [{"type": "function", "function": {"name": "f" * 65}}]},
        "string_above_max_length",
        "tools[0].function.name",
    ),
    ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "unsupported_parameter", "tools"),
    ({"tools": [TOOL], "tool_choice": "maybe"}, "invalid_value", "tool_choice"),
    ({"tools": [TOOL], "tool_choice": 1}, "invalid_type", "tool_choice"),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "invalid_value", "tool_choice"),
    ({"tool_choice": "required"}, "invalid_value", "tool_choice"),
    ({"functions": []}, "empty_array", "functions"),
    ({"functions": [{"name": "f"}] * 129}, "array_above_max_length", "functions"),
    ({"audio": {"voice": "a", "format": "wav"}}, "unsupported_parameter", "audio"),
    ({"modalities": ["text", "audio"]}, "unsupported_parameter", "modalities"),
    ({"web_search_options": {}}, "unsupported_parameter", "web_search_options"),
    ({"moderation": {"model": "m"}}, "unsupported_parameter", "moderation"),
    ({"verbosity": "low"}, "unsupported_parameter", "verbosity"),
    ({"chat_template": "{{ messages }}"}, "unsupported_parameter", "chat_template"),
    ({"guided_json": 3}, "invalid_type", "guided_json"),
    ({"guided_json": "{"}, "invalid_value", "guided_json"),
    ({"guided_json": {}, "guided_regex": "a"}, "invalid_value", "guided_regex"),
    ({"guided_choice": []}, "empty_array", "guided_choice"),
    ({"structured_outputs": {"structural_tag": "{}"}}, "unsupported_parameter", "structured_outputs.structural_tag"),
]

WRONG_TEXTS: list[tuple[dict[str, Any], str | None, str | None]] = [
    ({"prompt": 5}, "invalid_type", "prompt"),
    ({"prompt": []}, "empty_array", "prompt"),
    ({"prompt": [[]]}, "empty_array", "prompt[0]"),
    ({"prompt": ["a", 1]}, "invalid_type", "prompt[1]"),
    ({"prompt": [1, "a"]}, "invalid_type", "prompt[1]"),
    ({"prompt": [-1]}, "integer_below_min_value", "prompt[0]"),
    ({"prompt": ["a"] * 9, "n": 128}, "array_above_max_length", "prompt"),
    ({"max_tokens": -1}, "integer_below_min_value", "max_tokens"),
    ({"logprobs": True}, "invalid_type", "logprobs"),
    ({"logprobs": 21}, "integer_above_max_value", "logprobs"),
    ({"best_of": 3}, "unsupported_parameter", "best_of"),
    ({"n": 3, "best_of": 2}, "integer_below_min_value", "best_of"),
    ({"suffix": "end"}, "unsupported_parameter", "suffix"),
]

WRONG_BYTES = [
    b"",
    b"{",
    b"hello",
    b"[]",
    b'"text"',
    b"null",
    b'{"model": "m", "prompt": "\xff"}',
    b'{"model": "m", "prompt": "\\ud800"}',
    '{"model": "m"}'.encode("utf-16"),
    b'{"model": "m", "prompt": "a", "temperature": NaN}',
    b'{"model": "m", "prompt": "a", "temperature": 1e999}',
    b'{"model": "m", "prompt": "a", "seed": ' + b"9" * 5000 + b"}",
    b"[" * 100_000,
]


@pytest.mark.parametrize(("change", "code", "param"), WRONG_CHATS, ids=str)
async def test_wrong_chat(client: Client, change: dict[str, Any], code: str | None, param: str | None) -> None:
    reply = await client(ScriptedAdapter({"m": says("hi")})).post("/v1/chat/completions", json=CHAT | change)
    error = reply.json()["error"]
    assert (reply.status_code, error["type"]) == (400, "invalid_request_error"), error
    assert (error["code"], error["param"]) == (code, param), error
    assert error["message"]


@pytest.mark.parametrize(("change", "code", "param"), WRONG_TEXTS, ids=str)
async def test_wrong_text(client: Client, change: dict[str, Any], code: str | None, param: str | None) -> None:
    reply = await client(ScriptedAdapter({"m": says("hi")})).post("/v1/completions", json=TEXT | change)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["param"]) == (400, code, param), error


@pytest.mark.parametrize("body", WRONG_BYTES, ids=lambda body: str(body[:20]))
async def test_what_is_not_json_is_refused_in_the_envelope(client: Client, body: bytes) -> None:
    reply = await client(ScriptedAdapter({"m": says("hi")})).post("/v1/completions", content=body)
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert error.pop("message")
    assert error == {"type": "invalid_request_error", "param": None, "code": None}


@pytest.mark.parametrize("name", ["model", "messages"])
async def test_a_missing_field_is_named(client: Client, name: str) -> None:
    body = {key: value for key, value in CHAT.items() if key != name}
    reply = await client(ScriptedAdapter({"m": says("hi")})).post("/v1/chat/completions", json=body)
    assert reply.status_code == 400
    assert reply.json()["error"] == {
        "message": f"Missing required parameter: '{name}'.",
        "type": "invalid_request_error",
        "param": name,
        "code": "missing_required_parameter",
    }


async def test_a_message_names_what_was_expected_and_what_came(client: Client) -> None:
    model = client(ScriptedAdapter({"m": says("hi")}))

    async def message(**change: Any) -> str:
        text = (await model.post("/v1/chat/completions", json=CHAT | change)).json()["error"]["message"]
        assert isinstance(text, str)
        return text

    assert await message(temperature="hot") == (
        "Invalid type for 'temperature': expected a number, but got a string instead."
    )
    assert await message(temperature=9) == (
        "Invalid 'temperature': decimal above maximum value. Expected a value <= 2, but got 9 instead."
    )
    assert await message(stop=1) == (
        "Invalid type for 'stop': expected a string or an array of strings, but got an integer instead."
    )
    assert await message(messages=[]) == "Invalid 'messages': the array must not be empty."
    assert await message(stop=list("abcde")) == (
        "Invalid 'stop': array too long. Expected maximum length 4, but got length 5 instead."
    )
    assert await message(guided_json=3) == (
        "Invalid type for 'guided_json': expected an object or a string, but got an integer instead."
    )
    assert "'system', 'developer', 'user'" in await message(**said(role="robot", content=""))


@pytest.mark.parametrize(
    "change",
    [
        {"reasoning_effort": "x" * 4000},
        {"messages": [{"role": "x" * 4000}]},
        {"messages": [{"role": "user", "content": [{}] * 1000}]},
        {"messages": [{}] * 1000},
        {"messages": [{"role": "user", "content": [{"type": ["deep"] * 500}]}]},
        {"metadata": {"k" * 4000: 3}},
        {"logit_bias": {"x" * 4000: 3}},
        {"response_format": {"type": {"a": "b" * 4000}}},
        {"model": "x" * 4000},
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "y" * 64}}},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_a_small_wrong_body_gets_a_small_answer(client: Client, change: dict[str, Any]) -> None:
    reply = await client(ScriptedAdapter({"m": says("hi")})).post("/v1/chat/completions", json=CHAT | change)
    assert reply.status_code in (400, 404)
    assert len(reply.content) < 1500
    assert reply.json()["error"]["message"]


@pytest.mark.parametrize(
    "change",
    [
        {"logit_bias": {str(index): "x" for index in range(100_000)}},
        {"metadata": {str(index): index for index in range(100_000)}},
        {"guided_choice": [3] * 300_000},
        {"modalities": ["smell"] * 300_000},
        {"messages": [{"role": "user", "content": [3] * 300_000}]},
        {"messages": [3] * 300_000},
        {"response_format": {"type": [3] * 300_000}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_large_wrong_body_is_refused_at_its_first_fault(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as error:
        parse(msgspec.json.encode(CHAT | change), ChatBody)
    cause = error.value.__context__
    assert isinstance(cause, ValidationError)
    assert cause.error_count() < 20
    assert len(error.value.message) < 500


async def test_a_large_body_is_refused_before_it_is_read(client: Client) -> None:
    model = client(ScriptedAdapter({"m": says("hi")}), settings=Settings(max_body_bytes=1000))
    read = 0

    async def endless() -> Any:
        nonlocal read
        while True:
            read += 1
            yield b" " * 400

    declared = await model.post("/v1/completions", json=TEXT | {"prompt": "x" * 1000})
    chunked = await model.post("/v1/completions", content=endless())
    for reply in (declared, chunked):
        assert reply.status_code == 413
        assert reply.json()["error"]["type"] == "invalid_request_error"
        assert "1000 bytes" in reply.json()["error"]["message"]
    assert read == 3


async def test_a_length_that_is_no_number_is_not_believed(client: Client) -> None:
    model = client(ScriptedAdapter({"m": says("hi")}))
    headers = {b"content-length": "²".encode("latin-1")}
    reply = await model.post("/v1/completions", content=msgspec.json.encode(TEXT), headers=headers)
    assert reply.status_code == 200


async def test_what_was_not_given_is_counted_as_its_default(client: Client) -> None:
    reply = await client(ScriptedAdapter({"m": says("hi")})).post("/v1/completions", json=TEXT | {"best_of": 0})
    assert reply.json()["error"]["message"] == "Invalid 'best_of': expected at least n (1), but got 0 instead."


async def test_unknown_fields_are_passed_on_unless_the_server_is_strict(client: Client) -> None:
    adapter = ScriptedAdapter({"m": says("hi")})
    body = TEXT | {"mirostat": 2}
    assert (await client(adapter).post("/v1/completions", json=body)).status_code == 200
    assert adapter.requests[0].extra == {"mirostat": 2}
    reply = await client(adapter, settings=Settings(strict=True)).post("/v1/completions", json=body)
    assert reply.status_code == 400
    assert (reply.json()["error"]["code"], reply.json()["error"]["param"]) == ("unknown_parameter", "mirostat")


async def test_json_is_taken_whatever_the_content_type_says(client: Client) -> None:
    reply = await client(ScriptedAdapter({"m": says("hi")})).post(
        "/v1/completions",
        content=msgspec.json.encode(TEXT),
        headers={"content-type": "application/x-www-form-urlencoded"},
    )
    assert reply.status_code == 200
