"""The seeds' three examples, in each spelling, from their files to what the client sees."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from composing import asks, echoing, events_of, only_talking
from scripted import ScriptedAdapter, says
from seeds_documents import every_spelling, example
from upstream import deltas, streams, upstream

from modelcompose.adapters.base import GenerationRequest
from modelcompose.adapters.errors import InvalidRequest
from modelcompose.adapters.events import Finish, TextDelta, Usage
from modelcompose.workflows.components.streams import is_sent_as_stream
from modelcompose.workflows.load import load
from modelcompose.workflows.model import workflow_models
from modelcompose.workflows.runner import Runner

SMOLLM = "HuggingFaceTB/SmolLM3-3B"


def runner_of(name: str, spelling: str, scripts: ScriptedAdapter | None = None) -> Runner:
    @asynccontextmanager
    async def open_model(settings: Any) -> Any:
        assert settings.source == SMOLLM
        yield scripts

    return Runner(load([example(name, spelling)], env={}), open_model=open_model)


@every_spelling
async def test_chat_completion(spelling: str) -> None:
    scripts = ScriptedAdapter({SMOLLM: says("Qu", "bits")})
    async with runner_of("chat-completion", spelling, scripts) as opened:
        given = {"system-prompt": "You are a helpful AI assistant.", "user-prompt": "Explain quantum computing."}
        async with opened.run(given=given) as run:
            assert await run.value() == {"generated": "Qubits"}
        assert [message["role"] for message in scripts.requests[0].messages] == ["system", "user"]
        with pytest.raises(InvalidRequest) as caught:
            opened.run(given={"system_prompt": "x"})
        assert caught.value.param == "user_prompt"
        (model,) = workflow_models(opened)
        assert model.name == "generate-chat-messages"
        assert await events_of(model, asks("Hi")) == says("Qu", "bits")


@every_spelling
async def test_text_generation(spelling: str) -> None:
    scripts = ScriptedAdapter({SMOLLM: says(", far away")})
    async with runner_of("text-generation", spelling, scripts) as opened:
        async with opened.run(given={"prompt": "Once upon a time"}) as run:
            assert await run.value() == {"generated": "Once upon a time, far away"}
        (model,) = workflow_models(opened)
        events = await events_of(model, GenerationRequest(model=model.name, prompts=("Once",)))
        assert events == says(", far away")


@every_spelling
async def test_vllm_chat_completion_stream(spelling: str, tmp_path: Path) -> None:
    more = asyncio.Event()
    async with upstream(streams(*deltas("Pri", "vacy"), more, *deltas("!"), b"data: [DONE]\n\n")) as server:
        text = example("vllm-chat-completion-stream", spelling).read_text(encoding="utf-8")
        path = tmp_path / "model-compose.yml"
        path.write_text(text.replace("port: 8000", f"port: {server.port}"), encoding="utf-8")
        async with Runner(only_talking(load([path], env={}))) as opened:
            async with opened.run(given={"prompt": "Explain", "temperature": 0.2}) as run:
                stream = await run.outcome()
                assert is_sent_as_stream(stream)
                items = stream.items()
                assert [await anext(items), await anext(items)] == ["Pri", "vacy"]
                more.set()
                assert [item async for item in items] == ["!"]
            (model,) = workflow_models(opened)
            assert model.name == "chat-with-vllm-server"
            events = await events_of(model, asks("Explain"))
        assert events == [TextDelta("Pri"), TextDelta("vacy"), TextDelta("!"), Finish("stop"), Usage(0, 0)]
    body = server.asked[0].json
    assert (body["stream"], body["temperature"], body["messages"]) == (
        True,
        0.2,
        [{"role": "user", "content": "Explain"}],
    )
    assert server.asked[1].json["temperature"] == 0.7


async def test_batch_processing_gives_a_result_for_each_prompt_in_order(tmp_path: Path) -> None:
    path = tmp_path / "model-compose.yml"
    path.write_text(
        """
        component: {id: text-generator, type: model, task: text-generation, model: org/model, echo: false}
        workflow:
          title: Batch Text Generation
          jobs:
            - id: generate-multiple
              component: text-generator
              repeat_count: ${input.batch_size}
              input:
                prompt: ${input.prompts[${index}]}
        """,
        encoding="utf-8",
    )

    @asynccontextmanager
    async def open_model(settings: Any) -> Any:
        yield ScriptedAdapter({"org/model": echoing})

    given = {"batch_size": 2, "prompts": ["one", "two"]}
    async with Runner(load([path], env={}), open_model=open_model) as opened, opened.run(given=given) as run:
        assert await run.value() == ["You said: one", "You said: two"]
