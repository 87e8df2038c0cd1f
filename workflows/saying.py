"""What of a workflow's output the assistant says, and whether that is its last model call's own answer. Pure but for
waiting for values.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any

from ..adapters.base import GenerationRequest
from ..adapters.errors import UnsupportedParameter
from ..adapters.events import Event
from .components.streams import ItemStream, ModelStream, Stream, gathered, stream_in
from .graph import action_of, component_of, default_workflow, plan
from .jobs import Outcome
from .outputs import hand_on, render_output
from .references import CastError, as_text
from .schema import ChatModelComponent, ComposeFile, TextModelComponent, Workflow, WorkflowAction

_DEEPEST = 16


async def said(workflow: Workflow, outcome: Outcome, *, choices: int) -> Stream | str:
    """The assistant's words in a workflow's outcome: a stream of them if it can be handed on, else all of them.

    `choices` is how many answers the client expects; a stream with another number of them is not handed on.
    """
    tree = await render_output(workflow.openai.output, {**outcome.scope, "output": outcome.tree})
    words = spoken(tree)
    if isinstance(words, ItemStream) or (isinstance(words, ModelStream) and words.choices == choices):
        return words
    whole = await gathered(tree)
    words = spoken(whole)
    return words if isinstance(words, str) else as_text(whole)


def spoken(tree: Any) -> Stream | str | None:
    """The text, or stream, in an output: the output itself, else its `generated`, else its only text."""
    match tree:
        case str() | ModelStream() | ItemStream():
            return tree
        case {"generated": str() | ModelStream() | ItemStream() as words}:
            return words
        case dict():
            texts = [value for value in tree.values() if isinstance(value, str | ModelStream | ItemStream)]
            return texts[0] if len(texts) == 1 else None
    return None


def is_models_own(workflow: Workflow, file: ComposeFile) -> bool:
    """Whether the assistant's words are, whatever the input, the answer of the last job's model call, untouched."""
    tree = _outcome(workflow, file, 0)
    if workflow.openai.output is not None:
        tree = _through((workflow.openai.output,), {"output": tree})
    if stream_in(tree) is None:
        return False
    is_certain = not isinstance(tree, dict) or len(tree) == 1 or isinstance(tree.get("generated"), ModelStream)
    return is_certain and isinstance(spoken(tree), ModelStream)


def refuse(request: GenerationRequest, workflow: str, taken: frozenset[str]) -> None:
    """Refuse what only a model call could honour, where the answer is not a model call's."""
    sampling = request.sampling
    asked = {
        "tools": request.tools,
        "response_format": request.constraint,
        "stop": sampling.stop,
        "logprobs": request.logprobs is not None,
        "n": request.n > 1,
        "echo": request.echo,
        "logit_bias": sampling.logit_bias,
    }
    for name, value in asked.items():
        if value and name not in taken:
            raise UnsupportedParameter.named(name, f"'{workflow}' makes its answer from more than one model's words.")


def _outcome(workflow: Workflow, file: ComposeFile, depth: int) -> Any:
    """The workflow's output with a stream where the last model call's answer stands untouched; None if nowhere."""
    steps = plan(workflow)
    job = next(job for job in steps.jobs if job.id == steps.terminal)
    if job.repeat_count is not None or depth > _DEEPEST:
        return None
    component = component_of(job, file)
    action = action_of(job, component)
    result: Any = None
    if isinstance(component, ChatModelComponent | TextModelComponent):
        result = ModelStream(_nothing())
    elif isinstance(action, WorkflowAction):
        inner = {each.id: each for each in file.workflows}.get(action.workflow or "", default_workflow(file))
        result = None if inner is None else _outcome(inner, file, depth + 1)
    output = _through((action.output, job.output), dict.fromkeys(("output", "result", "response"), result))
    return _through((workflow.output,), {"output": output, "jobs": {job.id: {"output": output}}})


def _through(templates: tuple[Any, ...], scope: Mapping[str, Any]) -> Any:
    """The scope's output after each of the output trees; None once it is not handed on."""
    for template in templates:
        if template is not None and stream_in(scope["output"]) is not None:
            try:
                scope = {**scope, "output": hand_on(template, scope)}
            except CastError:
                return None
    return scope["output"]


async def _nothing() -> AsyncGenerator[Event]:
    return
    yield
