"""Compose files as dictionaries in the internal form, and runners of them over scripted models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripted import ScriptedAdapter, Step, says

from modelcompose.adapters.base import Adapter, GenerationRequest
from modelcompose.adapters.events import Event
from modelcompose.adapters.transformers.adapter import TransformersAdapter
from modelcompose.adapters.transformers.settings import ModelSettings
from modelcompose.workflows.load import Compose
from modelcompose.workflows.model import WorkflowModel
from modelcompose.workflows.runner import Runner
from modelcompose.workflows.schema import ComposeFile, HttpServerComponent, Lifecycle

SAY_PROMPT = [{"role": "system", "content": "${input.system_prompt}"}, {"role": "user", "content": "${input.prompt}"}]


def chat(name: str = "m", **action: Any) -> dict[str, Any]:
    """A component that asks the scripted model of that name, which is also the component's id."""
    return {
        "id": name,
        "type": "model",
        "task": "chat-completion",
        "model": {"provider": "server", "name": name},
        "actions": [{"messages": SAY_PROMPT, **action}],
    }


def text(name: str = "m", **action: Any) -> dict[str, Any]:
    """A component that lets the scripted model go on with a text."""
    return {**chat(name), "task": "text-generation", "actions": [{"prompt": "${input.prompt}", **action}]}


def one(component: dict[str, Any], **workflow: Any) -> dict[str, Any]:
    """A file of one component and one workflow with one job."""
    job = workflow.pop("job", {})
    return {"components": [component], "workflows": [{"jobs": [job], **workflow}]}


def runner(
    form: dict[str, Any],
    scripts: ScriptedAdapter | None = None,
    folder: Path | None = None,
    *,
    find: Callable[[str], Adapter | None] | None = None,
    open_model: Callable[[ModelSettings], Any] = TransformersAdapter,
) -> Runner:
    """The runner of a file; every model that the server has is one of the scripted ones, unless `find` finds it."""

    def find_scripted(name: str) -> ScriptedAdapter | None:
        return scripts if scripts is not None and name in scripts.scripts else None

    compose = Compose(ComposeFile.model_validate(form), folder or Path.cwd(), ())
    return Runner(compose, find or find_scripted, open_model=open_model)


def only_talking(compose: Compose) -> Compose:
    """The same with servers that somebody else runs."""
    components = tuple(
        each.model_copy(update={"manage": Lifecycle()}) if isinstance(each, HttpServerComponent) else each
        for each in compose.file.components
    )
    return compose._replace(file=compose.file.model_copy(update={"components": components}))


async def value_of(form: dict[str, Any], given: Any = None, scripts: ScriptedAdapter | None = None) -> Any:
    """What the file's default workflow gives."""
    async with runner(form, scripts) as opened, opened.run(given=given) as run:
        return await run.value()


def asks(content: Any, **fields: Any) -> GenerationRequest:
    """A chat request with one message of the user, or with these messages."""
    messages = content if isinstance(content, tuple) else ({"role": "user", "content": content},)
    return GenerationRequest(model="w", messages=messages, **fields)


async def events_of(model: WorkflowModel, request: GenerationRequest) -> list[Event]:
    """All events of an answer."""
    return [event async for event in model.generate(request)]


async def answer(form: dict[str, Any], scripts: ScriptedAdapter, request: GenerationRequest) -> list[Event]:
    """The events with which the file's first workflow, as a model, answers a request."""
    async with runner(form, scripts) as opened:
        return await events_of(WorkflowModel(opened, opened.file.workflows[0]), request)


def echoing(request: GenerationRequest) -> list[Step]:
    """The script of a model that says what it was asked, in two pieces."""
    said = request.prompts[0] if request.prompts else request.messages[-1]["content"]
    assert isinstance(said, str)
    return says("You said: ", said)
