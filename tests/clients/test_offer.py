"""What `up` serves."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from modelcompose.adapters.errors import ConfigError
from modelcompose.adapters.transformers.settings import ModelSettings
from modelcompose.clients.announce import greeting, run_line
from modelcompose.clients.offer import open_offer, with_defaults
from modelcompose.workflows.load import Compose, load

COMMON = ModelSettings(name="", source="")
SHELL = """
component: {type: shell, command: [echo, "${input.text}", "${input.n as integer}"]}
workflows: [{id: a, openai: {model: one}}, {id: b, openai: {model: OTHER}}]
"""


def compose(folder: Path, text: str) -> Compose:
    (folder / "model-compose.yml").write_text(text, encoding="utf-8")
    return load([folder / "model-compose.yml"], env={})


def test_a_component_gets_what_the_file_leaves_open() -> None:
    common = ModelSettings(name="", source="", device="cuda", precision="float32", local_files_only=True)
    component = ModelSettings(name="n", source="s", precision="bfloat16", trust_remote_code=True)
    assert with_defaults(component, common) == ModelSettings(
        name="n", source="s", device="cuda", precision="bfloat16", local_files_only=True, trust_remote_code=True
    )


async def test_workflows_are_served_without_a_model(tmp_path: Path) -> None:
    async with AsyncExitStack() as opened:
        offer = await open_offer([], compose(tmp_path, SHELL.replace("OTHER", "two")), COMMON, opened)
        assert [adapter.cards()[0].id for adapter in offer.models] == ["one", "two"]
        assert offer.local == []
        assert offer.runs is not None
        assert run_line(offer.runs) == (
            """run a --input '{"text": "Explain quantum computing in simple terms.", "n": 1}'"""
        )


async def test_two_workflows_of_one_name_are_refused(tmp_path: Path) -> None:
    async with AsyncExitStack() as opened:
        with pytest.raises(ConfigError) as caught:
            await open_offer([], compose(tmp_path, SHELL.replace("OTHER", "one")), COMMON, opened)
    assert "one" in caught.value.message


def test_the_greeting_names_files_and_models() -> None:
    assert greeting("1", [], ["m"]) == "model-compose 1 is loading m ..."
    assert greeting("1", [Path("a.yml"), Path("b.yml")], []) == "model-compose 1 is starting for a.yml and b.yml ..."
