"""The part of a compose file that one workflow needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from composing import chat, text

from modelcompose.adapters.errors import ModelNotFound
from modelcompose.workflows.load import Compose
from modelcompose.workflows.needed import needed_by
from modelcompose.workflows.schema import ComposeFile


def job(component: str, **fields: Any) -> dict[str, Any]:
    return {"id": component, "component": component, **fields}


FILE = ComposeFile.model_validate(
    {
        "components": [
            chat("plain"),
            text("unused"),
            {"id": "calls", "type": "workflow", "actions": [{"workflow": "inner"}]},
            chat("answers"),
            {"id": "shell", "type": "shell", "actions": [{"command": "true"}]},
        ],
        "workflows": [
            {"id": "simple", "jobs": [job("plain")]},
            {"id": "outer", "jobs": [job("shell"), job("calls")]},
            {"id": "inner", "jobs": [job("answers")]},
            {"id": "named", "openai": {"model": "answers"}, "jobs": [job("shell")]},
            {"id": "other", "jobs": [job("unused")]},
        ],
    }
)


@pytest.mark.parametrize(
    ("id", "workflows", "components"),
    [
        ("simple", ["simple"], ["plain"]),
        ("outer", ["outer", "inner", "named"], ["calls", "answers", "shell"]),
        ("inner", ["inner", "named"], ["answers", "shell"]),
        ("named", ["named"], ["shell"]),
    ],
)
def test_what_is_called_comes_along_in_the_order_of_the_file(
    id: str, workflows: list[str], components: list[str]
) -> None:
    part = needed_by(id, Compose(FILE, Path(), ())).file
    assert [each.id for each in part.workflows] == workflows
    assert [each.id for each in part.components] == components


def test_what_brings_a_model_that_is_named_comes_along(tmp_path: Path) -> None:
    model = {"type": "model", "task": "chat-completion"}
    small = {**model, "id": "small", "model": {"provider": "local", "path": "./small"}}
    far = {**model, "id": "far", "driver": "vllm", "base_url": ["http://far:1/v1"]}
    file = ComposeFile.model_validate(
        {
            "components": [small, far, chat("other"), {**chat("small"), "id": "asks"}],
            "workflows": [{"id": "w", "jobs": [job("asks")]}],
        }
    )
    part = needed_by("w", Compose(file, tmp_path, ()))
    assert [each.id for each in part.file.components] == ["small", "far", "asks"]


def test_an_unknown_workflow() -> None:
    with pytest.raises(ModelNotFound):
        needed_by("nothing", Compose(FILE, Path(), ()))
