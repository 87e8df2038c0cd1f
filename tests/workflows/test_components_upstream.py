"""Components whose model is at a server elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from loading import loaded
from scripted_upstream import NAME, ScriptedUpstream, upstream

from modelcompose.adapters.errors import ModelUnavailable
from modelcompose.adapters.vllm.adapter import UpstreamAdapter
from modelcompose.workflows.load import load
from modelcompose.workflows.runner import Runner


@asynccontextmanager
async def running(folder: Path, keys: str) -> AsyncIterator[tuple[Runner, ScriptedUpstream]]:
    async with upstream() as server:
        file = folder / "model-compose.yml"
        lines = ["component:", "  type: model", "  driver: vllm", *(f"  {line}" for line in keys.splitlines())]
        file.write_text("\n".join(lines).replace("URL", server.url), encoding="utf-8")
        async with Runner(load([file], env={})) as runner:
            for model in runner.local_models:
                assert isinstance(model, UpstreamAdapter)
                await model.ready()
            yield runner, server


async def test_a_chat_over_a_server_s_model(tmp_path: Path) -> None:
    keys = f"task: chat-completion\nbase_url: URL\nmodel: {NAME}\napi_key: secret\ntemperature: 0.5\n"
    async with running(tmp_path, keys) as (runner, server):
        async with runner.run(None, {"user_prompt": "hi"}) as run:
            assert await run.value() == "Hello"
        (asked,) = server.asked
        assert asked.json["temperature"] == 0.5
        assert asked.json["messages"] == [{"role": "user", "content": "hi"}]
        assert asked.headers["authorization"] == "Bearer secret"
        assert [card.id for model in runner.local_models for card in model.cards()] == [NAME]


async def test_without_a_model_the_first_of_the_server_is_asked(tmp_path: Path) -> None:
    keys = "task: chat-completion\nbase_url: [URL]\naliases: {small: org/model}\ntimeout: 5s\n"
    async with running(tmp_path, keys) as (runner, server):
        async with runner.run(None, {"user_prompt": "hi"}) as run:
            assert await run.value() == "Hello"
        assert server.asked[0].json["model"] == NAME
        assert [card.id for model in runner.local_models for card in model.cards()] == [NAME, "small"]


async def test_a_server_that_is_not_there_is_said_to_be(tmp_path: Path) -> None:
    async with upstream() as server:
        url = server.url
    file = tmp_path / "model-compose.yml"
    file.write_text(f"component: {{type: model, task: chat-completion, driver: vllm, base_url: '{url}'}}\n")
    async with Runner(load([file], env={})) as runner:
        with pytest.raises(ModelUnavailable):
            async with runner.run(None, {"user_prompt": "hi"}) as run:
                await run.value()


@pytest.mark.parametrize("model", ["llama3:8b", "./a/path", "bundled", "a b"])
def test_a_server_may_call_its_model_what_it_likes(model: str) -> None:
    compose = loaded(
        f"""
        component:
          type: model
          task: chat-completion
          driver: vllm
          base_url: http://host:8000/v1
          model: "{model}"
        """
    )
    assert compose.components[0].model.repository == model  # type: ignore[union-attr]
