"""The openai SDK against a real server process with a real model."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

import openai
import pytest

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam
    from served import Served

QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Explain quantum computing in simple terms."}]
PROMPT = "Once upon a time in a distant galaxy"


def text_of(chunks: Iterable[ChatCompletionChunk]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


@pytest.fixture(scope="module")
def client(served: Served) -> openai.OpenAI:
    return served.client()


def test_the_issues_own_snippet_streams_an_answer(served: Served) -> None:
    said = ""
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none") as client:
        for chunk in client.chat.completions.create(model="bundled", messages=QUESTION, stream=True, max_tokens=40):
            said += chunk.choices[0].delta.content or ""
    assert said.strip()


def test_a_whole_answer_has_what_the_sdk_expects(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="bundled", messages=QUESTION, max_tokens=3, temperature=0)
    assert answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")
    assert answer.model == "bundled"
    (choice,) = answer.choices
    assert (choice.index, choice.message.role, choice.finish_reason) == (0, "assistant", "length")
    assert choice.message.content
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 3


def test_chat_says_the_same_streamed_and_whole(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="bundled", messages=QUESTION, max_tokens=40, temperature=0)
    chunks = list(
        client.chat.completions.create(
            model="bundled",
            messages=QUESTION,
            max_tokens=40,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert text_of(chunks) == whole.choices[0].message.content
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage


def test_a_stream_begins_with_the_role_and_finishes_once(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(model="bundled", messages=QUESTION, max_tokens=3, temperature=0, stream=True)
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].delta.role for chunk in chunks[1:]] == [None] * (len(chunks) - 1)
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["length"]
    assert len({(chunk.id, chunk.created) for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks)


def test_text_completion_says_the_same_streamed_and_whole(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="bundled", prompt=PROMPT, max_tokens=30, temperature=0)
    stream = client.completions.create(model="bundled", prompt=PROMPT, max_tokens=30, temperature=0, stream=True)
    assert whole.object == "text_completion"
    assert whole.choices[0].text
    assert "".join(chunk.choices[0].text for chunk in stream) == whole.choices[0].text


async def test_the_async_client_streams_two_answers_at_once(served: Served) -> None:
    async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:

        async def answer(word: str) -> str:
            messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": f"Repeat: {word}"}]
            stream = await client.chat.completions.create(
                model="bundled", messages=messages, max_tokens=30, temperature=0, stream=True
            )
            return text_of([chunk async for chunk in stream])

        one, two = await asyncio.gather(answer("blorvik"), answer("quamtel"))
        assert (one, two) == ("blorvik", "quamtel")


def test_the_stream_helper_folds_the_same_answer(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="bundled", messages=QUESTION, stop=[".", "e"], temperature=0) as stream:
        pieces = "".join(event.delta for event in stream if event.type == "content.delta")
        final = stream.get_final_completion()
    assert final.choices[0].message.content == pieces
    assert final.choices[0].message.role == "assistant"
    assert final.choices[0].finish_reason == "stop"


def test_raw_responses_have_openais_headers(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model="bundled", messages=QUESTION, max_tokens=1)
    assert raw.headers["x-request-id"]
    assert int(raw.headers["openai-processing-ms"]) >= 0
    assert raw.headers["content-type"] == "application/json"
    assert raw.parse()._request_id == raw.headers["x-request-id"]


def test_streams_are_never_buffered_or_cached_on_their_way(client: openai.OpenAI) -> None:
    with client.chat.completions.with_streaming_response.create(
        model="bundled", messages=QUESTION, max_tokens=1, stream=True
    ) as raw:
        assert raw.headers["content-type"].startswith("text/event-stream")
        assert raw.headers["cache-control"] == "no-cache"
        assert raw.headers["x-accel-buffering"] == "no"


def test_several_answers_come_as_several_choices(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="bundled", messages=QUESTION, max_tokens=8, n=3, temperature=1)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]


def test_a_stop_string_is_cut_off(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="bundled", messages=QUESTION, max_tokens=40, temperature=0)
    said = whole.choices[0].message.content or ""
    stop = said[10:14]
    cut = client.chat.completions.create(model="bundled", messages=QUESTION, max_tokens=40, temperature=0, stop=stop)
    assert cut.choices[0].message.content == said[: said.index(stop)]
    assert cut.choices[0].finish_reason == "stop"


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["bundled"]
    model = client.models.retrieve("bundled")
    assert (model.id, model.object) == ("bundled", "model")


def test_an_unknown_model_is_not_found_and_the_known_ones_are_named(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="bundled") as caught:
        client.chat.completions.create(model="no/such", messages=QUESTION)
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no/such")


def test_the_prefix_v1_may_be_left_out(served: Served) -> None:
    with openai.OpenAI(base_url=served.url, api_key="none", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["bundled"]
        answer = client.chat.completions.create(model="bundled", messages=QUESTION, max_tokens=2)
    assert answer.choices[0].finish_reason == "length"
