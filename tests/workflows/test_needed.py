"""The part of a compose file that one workflow needs."""

from __future__ import annotations

from typing import Any

import pytest
from composing import chat, text

from modelcompose.adapters.errors import ModelNotFound
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
    part = needed_by(id, FILE)
    assert [each.id for each in part.workflows] == workflows
    assert [each.id for each in part.components] == components


def test_an_unknown_workflow() -> None:
    with pytest.raises(ModelNotFound):
        needed_by("nothing", FILE)
