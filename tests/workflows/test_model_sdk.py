"""The official SDK talks to a workflow over a socket and cannot tell it from the model behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import openai
import pytest
import uvicorn
from composing import chat, runner, text
from scripted import ScriptedAdapter, Step, says

from modelcompose.adapters.base import GenerationRequest
from modelcompose.adapters.errors import ContextLengthExceeded
from modelcompose.adapters.events import (
    Accepted,
    Finish,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    TopLogprob,
    Usage,
)
from modelcompose.clients.listen import listen, url_of
from modelcompose.server.app import create_app
from modelcompose.server.settings import Settings
from modelcompose.workflows.model import workflow_models

TOOL: Any = {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}
USER = [{"role": "user", "content": "${input.user_prompt}"}]
FORM: dict[str, Any] = {
    "components": [chat(messages="${input.messages}"), text("t"), chat("d", messages=USER)],
    "workflows": [
        {"id": "w", "jobs": [{"component": "m"}], "output": {"generated": "${output}"}},
        {"id": "wt", "jobs": [{"component": "t"}], "output": {"generated": "${output}"}},
        {
            "id": "two",
            "openai": {"show_jobs": True},
            "jobs": [
                {"id": "draft", "component": "d", "input": {"user_prompt": "${input.question}"}},
                {"id": "final", "component": "d", "input": {"user_prompt": "shorter: ${jobs.draft.output}"}},
            ],
        },
    ],
}


def model(request: GenerationRequest) -> Iterator[Step]:
    """A model that uses everything that OpenAI's answers can have."""
    if "overflow" in str(request.messages):
        yield ContextLengthExceeded.of(10, 20, None, "messages")
    yield Accepted()
    for choice in range(request.n):
        yield ReasoningDelta("hm", choice)
        for piece in ("Hel", "lo"):
            top = (TopLogprob(piece, -0.5, piece.encode()),) * (request.logprobs or 0)
            known = (TokenLogprob(piece, -0.5, piece.encode(), top),)
            yield TextDelta(piece, choice, known if request.logprobs is not None else None)
        if request.tools:
            yield ToolCallDelta(0, "call_1", "now", "", choice)
            yield ToolCallDelta(0, arguments="{}", choice=choice)
        yield Finish("tool_calls" if request.tools else "length", choice)
    yield Usage(7, 2 * request.n, cached_tokens=3, reasoning_tokens=1)


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def served(scripts: ScriptedAdapter) -> AsyncIterator[openai.AsyncOpenAI]:
    """A client of a server that has the scripted models and the workflows over them."""
    with listen("127.0.0.1", 0) as sockets:
        async with runner(FORM, scripts) as opened:
            app = create_app([scripts, *workflow_models(opened)], Settings())
            server = _Server(uvicorn.Config(app, log_config=None, access_log=False, ws="none", lifespan="off"))
            serving = asyncio.create_task(server.serve(sockets))
            url = f"{url_of('127.0.0.1', sockets)}/v1"
            try:
                async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=20) as client:
                    yield client
            finally:
                server.should_exit = True
                await serving


def comparable(value: Any) -> Any:
    """A response or chunk without what differs from one request to the next."""
    body = value.model_dump()
    return {name: body[name] for name in body if name not in ("id", "created", "model", "system_fingerprint")}


WISHES: list[dict[str, Any]] = [
    {},
    {"n": 2},
    {"logprobs": True, "top_logprobs": 1},
    {"tools": [TOOL], "tool_choice": "required"},
    {"temperature": 0.5, "max_completion_tokens": 5, "stop": ["x"], "seed": 1, "user": "me"},
    {"messages": [{"role": ("user", "assistant")[n % 2], "content": str(n)} for n in range(41)]},
]


@pytest.mark.parametrize("wishes", WISHES, ids=str)
async def test_a_workflow_cannot_be_told_from_its_model(wishes: dict[str, Any]) -> None:
    scripts = ScriptedAdapter({"m": model, "t": [], "d": []})
    async with served(scripts) as client:
        wishes = {"messages": [{"role": "user", "content": "Hi"}], **wishes}
        whole = [await client.chat.completions.create(model=name, **wishes) for name in ("m", "w")]
        assert comparable(whole[0]) == comparable(whole[1])
        chunks = []
        for name in ("m", "w"):
            options: Any = {"include_usage": True}
            stream: Any = await client.chat.completions.create(
                model=name, stream=True, stream_options=options, **wishes
            )
            chunks.append([comparable(chunk) async for chunk in stream])
        assert chunks[0] == chunks[1]
    plain, through = scripts.requests[:2]
    for name in GenerationRequest.__struct_fields__:
        if name != "model":
            assert getattr(plain, name) == getattr(through, name)


@pytest.mark.parametrize("wishes", [{}, {"n": 2}, {"prompt": ["a", "b"]}, {"echo": True}, {"logprobs": 2}], ids=str)
async def test_text_completions_too(wishes: dict[str, Any]) -> None:
    def script(request: GenerationRequest) -> Iterator[Step]:
        for choice in range(len(request.prompts) * request.n):
            yield TextDelta(f"on from {request.prompts[choice // request.n]!s}", choice)
            yield Finish("stop", choice)
        yield Usage(len(request.prompts), 1)

    async with served(ScriptedAdapter({"m": [], "t": script, "d": []})) as client:
        wishes = {"prompt": "Once", **wishes}
        whole = [await client.completions.create(model=name, **wishes) for name in ("t", "wt")]
    assert [choice.model_dump() for choice in whole[0].choices] == [choice.model_dump() for choice in whole[1].choices]


async def test_the_stream_helper_and_the_list_of_models() -> None:
    async with served(ScriptedAdapter({"m": says("Hel", "lo"), "t": [], "d": []})) as client:
        assert [each.id async for each in client.models.list()] == ["m", "t", "d", "w", "wt", "two"]
        messages: Any = [{"role": "user", "content": "Hi"}]
        async with client.chat.completions.stream(model="w", messages=messages) as stream:
            pieces = [event.delta async for event in stream if event.type == "content.delta"]
            final = await stream.get_final_completion()
        assert [piece for piece in pieces if piece] == ["Hel", "lo"]
        assert final.choices[0].message.content == "Hello"


async def test_refusals_have_the_models_status_and_words() -> None:
    async with served(ScriptedAdapter({"m": model, "t": [], "d": []})) as client:
        messages: Any = [{"role": "user", "content": "overflow"}]
        found = []
        for name in ("m", "w"):
            for is_stream in (False, True):
                with pytest.raises(openai.BadRequestError) as caught:
                    await client.chat.completions.create(model=name, messages=messages, stream=is_stream)
                found.append(caught.value.body)
        assert found == [found[0]] * 4
        with pytest.raises(openai.BadRequestError, match="question") as caught:
            await client.chat.completions.create(model="two", messages=[{"role": "system", "content": "x"}])
        assert caught.value.param == "question"


async def test_jobs_are_shown_and_the_last_ones_tokens_come_as_they_are_made() -> None:
    more = asyncio.Event()

    def script(request: GenerationRequest) -> list[Step]:
        is_last = str(request.messages[0]["content"]).startswith("shorter")
        return [TextDelta("sh"), more, *says("ort")] if is_last else says("long", " words")

    async with served(ScriptedAdapter({"m": [], "t": [], "d": script})) as client:
        messages: Any = [{"role": "user", "content": "Why?"}]
        stream = await client.chat.completions.create(
            model="two", messages=messages, stream=True, stream_options={"include_usage": True}
        )
        reasoning = content = ""
        async for chunk in stream:
            for choice in chunk.choices:
                reasoning += getattr(choice.delta, "reasoning_content", None) or ""
                content += choice.delta.content or ""
            if content == "sh":
                more.set()
            usage = chunk.usage
        assert (reasoning, content) == ("draft:\nlong words\n\n", "short")
        assert usage is not None
        assert (usage.prompt_tokens, usage.completion_tokens) == (6, 3)


@pytest.mark.parametrize("is_stream", [True, False])
async def test_a_client_that_leaves_ends_the_running_job(is_stream: bool) -> None:
    scripts = ScriptedAdapter({"m": [], "t": [], "d": [TextDelta("a"), asyncio.Event()]})
    async with served(scripts) as client:
        messages: Any = [{"role": "user", "content": "Why?"}]
        asking: asyncio.Task[Any] = asyncio.create_task(
            client.chat.completions.create(model="two", messages=messages, stream=is_stream, timeout=20)
        )
        while not scripts.requests:  # noqa: ASYNC110  (the server is what is waited for)
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        if is_stream:
            await (await asking).close()
        else:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        for _ in range(300):
            if scripts.closed_early:
                break
            await asyncio.sleep(0.01)
    assert scripts.closed_early == 1
