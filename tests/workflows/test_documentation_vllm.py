"""docs/vllm.md is true: its files load, and mean what the page says."""

from __future__ import annotations

from pathlib import Path

import pytest
from documents import blocks

from modelcompose.adapters.processes.process import PATIENCE
from modelcompose.adapters.processes.server import LONGEST_DELAY
from modelcompose.adapters.vllm.managed import ManagedSettings
from modelcompose.adapters.vllm.settings import UpstreamSettings
from modelcompose.workflows.components.settings import AnySettings, settings_of
from modelcompose.workflows.load import load
from modelcompose.workflows.schema import ChatModelComponent, VllmServer

PAGE = (Path(__file__).parent.parent.parent / "docs" / "vllm.md").read_text(encoding="utf-8")


def settings(text: str, folder: Path) -> AnySettings:
    path = folder / "model-compose.yml"
    path.write_text(text, encoding="utf-8")
    (component,) = load([path], env={"VLLM_API_KEY": "k"}).file.components
    assert isinstance(component, ChatModelComponent)
    return settings_of(component, folder)


def test_the_files_of_the_page(tmp_path: Path) -> None:
    managed, remote, many = (settings(block.text, tmp_path) for block in blocks(PAGE, "yaml"))
    assert isinstance(managed, ManagedSettings)
    assert (managed.python, managed.packages, managed.replicas) == ("3.11", ("vllm",), 1)
    assert managed.args["gpu-memory-utilization"] == 0.8
    assert isinstance(remote, UpstreamSettings)
    assert (remote.base_urls, remote.api_key, remote.model) == (("http://10.0.0.5:8000/v1",), "k", None)
    assert isinstance(many, UpstreamSettings)
    assert (len(many.base_urls), many.model) == (3, "Qwen/Qwen2-7B-Instruct")


@pytest.mark.parametrize("model", ["./my-model", "{repository: org/name, revision: main, token: t}"])
def test_models_of_every_kind(model: str, tmp_path: Path) -> None:
    text = f"component: {{type: model, task: chat-completion, driver: vllm, model: {model}, replicas: 4}}"
    managed = settings(text, tmp_path)
    assert isinstance(managed, ManagedSettings)
    assert managed.replicas == 4
    assert managed.packages == ("vllm",)
    if "org" in model:
        assert (managed.source, managed.name, managed.env) == ("org/name", "org/name", {"HF_TOKEN": "t"})
        assert managed.args["revision"] == "main"
    else:
        assert (managed.source, managed.name) == (str(tmp_path / "my-model"), "my-model")


def test_the_numbers_of_the_page() -> None:
    assert f"then after 1, 2, 4 ... seconds, {LONGEST_DELAY:g} at most" in PAGE
    assert f"killed after {PATIENCE:g} seconds" in PAGE
    assert VllmServer().timeout == 30 * 60
    assert "`30m` if left out" in PAGE
    for key in VllmServer.model_fields:
        assert f"| `{key}` |" in PAGE
