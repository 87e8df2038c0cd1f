"""The official SDK, sync and async, and curl, against a real server with a scripted model."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam
from pydantic import BaseModel
from scripted import ScriptedAdapter, Step, says

from modelcompose.adapters.base import GenerationRequest, JsonConstraint, ModelCard, NamedTool
from modelcompose.adapters.errors import EngineDied, QueueFull
from modelcompose.adapters.events import (
    Accepted,
    Finish,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)
from modelcompose.server.settings import Settings

HI: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hi"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


class Person(BaseModel):
    name: str
    age: int


def parrot(request: GenerationRequest) -> Iterator[Step]:
    """Repeats the last message in pieces, with pauses so that streams overlap."""
    yield Accepted()
    words = str(request.messages[-1]["content"]).split(" ")
    for k in range(request.n):
        for index, word in enumerate(words):
            yield 0.002
            yield TextDelta(word if index == 0 else f" {word}", k)
        yield Finish("stop", k)
    yield Usage(len(words), len(words) * request.n)


def caller(request: GenerationRequest) -> Iterator[Step]:
    yield ReasoningDelta("It wants ")
    yield ReasoningDelta("weather.")
    yield ToolCallDelta(0, "call_a", "weather")
    yield ToolCallDelta(0, arguments='{"city": ')
    yield ToolCallDelta(0, arguments='"Paris"}')
    yield ToolCallDelta(1, "call_b", "weather", '{"city": "Rome"}')
    yield Finish("tool_calls")
    yield Usage(9, 9, 4, 2)


MODELS: dict[str, Any] = {
    "parrot": parrot,
    "org/caller": caller,
    "person": says('{"name": "Ada", ', '"age": 36}'),
    "logprobs": [
        TextDelta("a", 0, (TokenLogprob("a", -0.1, b"a"),)),
        TextDelta("b", 0, (TokenLogprob("b", -0.2, b"b"),)),
        Finish("length"),
        Usage(1, 2),
    ],
    "dies": [TextDelta("Hel"), EngineDied("the engine is gone")],
    "full": [QueueFull("too many requests wait already")],
}


@pytest.fixture(scope="module")
def url(serve: Callable[..., str]) -> str:
    return serve([ScriptedAdapter(MODELS)])


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_a_whole_and_a_streamed_answer_are_the_same(client: openai.OpenAI) -> None:
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": "héllo 你好 \N{GRINNING FACE} all"}]
    whole = client.chat.completions.create(model="parrot", messages=messages)
    chunks = list(client.chat.completions.create(model="parrot", messages=messages, stream=True))
    assert whole.choices[0].message.content == messages[0]["content"]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == messages[0]["content"]
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason == "stop"
    assert len({(chunk.id, chunk.created, chunk.model, chunk.system_fingerprint) for chunk in chunks}) == 1
    for chunk in chunks:
        ChatCompletionChunk.model_validate_json(chunk.to_json(), strict=True)


def test_usage_at_the_end_of_a_stream(client: openai.OpenAI) -> None:
    *_, last = client.chat.completions.create(
        model="parrot", messages=HI, stream=True, stream_options={"include_usage": True}
    )
    assert last.choices == []
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.total_tokens) == (1, 2)


def test_several_answers_in_a_stream(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="parrot", messages=HI, n=3) as stream:
        completion = stream.get_final_completion()
    assert [choice.message.content for choice in completion.choices] == ["hi"] * 3
    assert [choice.message.role for choice in completion.choices] == ["assistant"] * 3


def test_the_stream_helper_puts_tool_calls_and_reasoning_together(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model="org/caller", messages=HI, tools=[WEATHER], stream_options={"include_usage": True}
    ) as stream:
        completion = stream.get_final_completion()
    choice = completion.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    assert [(call.id, call.function.name, call.function.parsed_arguments) for call in choice.message.tool_calls] == [
        ("call_a", "weather", {"city": "Paris"}),
        ("call_b", "weather", {"city": "Rome"}),
    ]
    assert choice.message.model_extra == {
        "reasoning_content": "It wants weather.",
        "reasoning": "It wants weather.",
    }
    assert completion.usage is not None
    assert completion.usage.prompt_tokens_details is not None
    assert completion.usage.prompt_tokens_details.cached_tokens == 4


def test_a_whole_answer_of_tool_calls(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(model="org/caller", messages=HI, tools=[WEATHER])
    message = completion.choices[0].message
    assert message.content is None
    assert message.tool_calls is not None
    assert [call.id for call in message.tool_calls] == ["call_a", "call_b"]


def test_parse_gives_an_object_of_ones_own(client: openai.OpenAI) -> None:
    completion = client.chat.completions.parse(model="person", messages=HI, response_format=Person)
    assert completion.choices[0].message.parsed == Person(name="Ada", age=36)
    with client.chat.completions.stream(model="person", messages=HI, response_format=Person) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == Person(name="Ada", age=36)


def test_what_the_sdk_sends_arrives(serve: Callable[..., str]) -> None:
    adapter = ScriptedAdapter({"m": says("{}")})
    with openai.OpenAI(base_url=serve([adapter]), api_key="none") as client:
        client.chat.completions.create(
            model="m",
            messages=HI,
            tools=[WEATHER],
            tool_choice={"type": "function", "function": {"name": "weather"}},
            response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
            temperature=0.5,
            extra_body={"top_k": 3, "mirostat": 1},
        )
    request = adapter.requests[0]
    assert request.tool_choice == NamedTool("weather")
    assert request.constraint == JsonConstraint({"type": "object"})
    assert (request.sampling.temperature, request.sampling.top_k) == (0.5, 3)
    assert request.extra == {"mirostat": 1}


def test_logprobs(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(model="logprobs", messages=HI, logprobs=True)
    logprobs = completion.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert [(each.token, each.logprob, each.bytes) for each in logprobs.content] == [
        ("a", -0.1, [97]),
        ("b", -0.2, [98]),
    ]


def test_text_completions_whole_and_streamed(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="logprobs", prompt="x", logprobs=0)
    assert whole.choices[0].text == "ab"
    assert whole.choices[0].finish_reason == "length"
    assert whole.choices[0].logprobs is not None
    assert whole.choices[0].logprobs.text_offset == [0, 1]
    chunks = list(client.completions.create(model="logprobs", prompt="x", logprobs=0, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == "ab"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, None, "length"]


def test_models_can_be_listed_and_found(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == list(MODELS)
    assert client.models.retrieve("org/caller").id == "org/caller"
    with pytest.raises(openai.NotFoundError, match="404"):
        client.models.retrieve("org/other")


def test_headers_can_be_read(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model="parrot", messages=HI)
    assert raw.headers["x-request-id"] == raw.request_id == raw.parse()._request_id
    assert int(raw.headers["openai-processing-ms"]) >= 0
    stream = client.chat.completions.with_raw_response.create(model="parrot", messages=HI, stream=True)
    assert stream.headers["cache-control"] == "no-cache"
    assert len(list(stream.parse())) == 3


def test_errors_have_the_sdks_classes_and_fields(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(model="parrot", messages=HI, temperature=9)
    assert (wrong.value.code, wrong.value.param) == ("decimal_above_max_value", "temperature")
    assert wrong.value.type == "invalid_request_error"
    assert wrong.value.request_id is not None
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="gone", messages=HI, stream=True)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.RateLimitError):
        client.chat.completions.create(model="full", messages=HI)


def test_an_error_in_mid_stream_is_raised_there(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(model="dies", messages=HI, stream=True)
    assert [next(stream).choices[0].delta.content for _ in range(2)] == ["", "Hel"]
    with pytest.raises(openai.APIError, match="the engine is gone"):
        next(stream)


def test_keys(serve: Callable[..., str]) -> None:
    url = serve([ScriptedAdapter({"m": says("hi")})], Settings(api_keys=("right",)))
    with openai.OpenAI(base_url=url, api_key="wrong", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as error:
            client.models.list()
        assert error.value.code == "invalid_api_key"
        assert client.with_options(api_key="right").models.list().data[0].id == "m"


def test_a_body_that_is_too_large_is_a_clear_error(serve: Callable[..., str]) -> None:
    url = serve([ScriptedAdapter({"m": says("hi")})], Settings(max_body_bytes=100_000))
    with (
        openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client,
        pytest.raises(openai.APIStatusError, match="413"),
    ):
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x" * 8_000_000}])


def test_comments_do_not_disturb_the_sdk(serve: Callable[..., str]) -> None:
    adapter = ScriptedAdapter({"m": [Accepted(), 0.2, *says("Hel", "lo")]})
    url = serve([adapter], Settings(keep_alive=0.02))
    with (
        openai.OpenAI(base_url=url, api_key="none") as client,
        client.chat.completions.stream(model="m", messages=HI) as stream,
    ):
        assert stream.get_final_completion().choices[0].message.content == "Hello"


async def test_twenty_streams_at_a_time_are_not_mixed_up(url: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:

        async def ask(number: int) -> str:
            text = " ".join(f"{number}-{index}" for index in range(30))
            stream = await client.chat.completions.create(
                model="parrot", messages=[{"role": "user", "content": text}], stream=True
            )
            answer = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
            assert answer == text
            return answer

        answers = await asyncio.gather(*(ask(number) for number in range(20)))
    assert len(set(answers)) == 20


async def test_the_async_client_can_leave_a_stream(serve: Callable[..., str]) -> None:
    adapter = ScriptedAdapter({"m": [TextDelta("a"), 60.0]})
    async with openai.AsyncOpenAI(base_url=serve([adapter]), api_key="none") as client:
        stream = await client.chat.completions.create(model="m", messages=HI, stream=True)
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        await stream.close()
    for _ in range(300):
        if not adapter.closed_early:
            await asyncio.sleep(0.01)
    assert adapter.closed_early == 1


curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def _curl(*arguments: str) -> str:
    return subprocess.run(["curl", "-sS", *arguments], capture_output=True, text=True, timeout=10, check=True).stdout


@curl
def test_curl_streams(url: str) -> None:
    body = json.dumps({"model": "parrot", "messages": HI, "stream": True})
    lines = _curl("-N", f"{url}/v1/chat/completions", "-H", "Content-Type: application/json", "-d", body)
    events = lines.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    deltas = [json.loads(event.removeprefix("data: "))["choices"][0]["delta"] for event in events[:-2]]
    assert deltas == [{"role": "assistant", "content": ""}, {"content": "hi"}, {}]


@curl
def test_curl_without_a_content_type_and_with_slashes_in_the_name(url: str) -> None:
    body = json.dumps({"model": "person", "prompt": "x"})
    assert json.loads(_curl(f"{url}/v1/completions", "-d", body))["choices"][0]["text"].startswith("{")
    for path in ("org/caller", "org%2Fcaller"):
        assert json.loads(_curl(f"{url}/v1/models/{path}"))["id"] == "org/caller"


@curl
def test_curl_hears_that_a_body_is_too_large(serve: Callable[..., str], tmp_path: Any) -> None:
    url = serve([ScriptedAdapter({}, [ModelCard(id="m", created=1)])], Settings(max_body_bytes=1000))
    (tmp_path / "large").write_bytes(b"x" * 5_000_000)
    reply = json.loads(_curl(f"{url}/v1/completions", "--data-binary", f"@{tmp_path}/large"))
    assert "1000 bytes" in reply["error"]["message"]
