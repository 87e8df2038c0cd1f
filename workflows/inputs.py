"""What a workflow reads of its input: names, types, defaults, and what cannot be left out.

The templates of the actions that its jobs call are followed back, through the jobs' and the workflow's own `input`, to
what the caller sends. A message of the user, a prompt, a command or a request's body needs what it refers to; a system
message, a parameter or a header does without.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec.structs import replace

from .graph import action_of, component_of, default_workflow
from .references import Cast, Default, Each, Reference, Template
from .schema import (
    Action,
    ChatAction,
    Component,
    ComposeFile,
    HttpAction,
    HttpClientComponent,
    HttpServerComponent,
    Job,
    Params,
    ShellAction,
    ShellComponent,
    TextAction,
    Workflow,
    WorkflowAction,
)


class Input(msgspec.Struct, frozen=True):
    """One name that a workflow reads; `type` is one of `references.TYPES`, `default` stands for a missing value."""

    name: str
    type: str
    required: bool
    default: Any = None
    description: str | None = None


class _Scope(msgspec.Struct, frozen=True):
    """What `input` is where a template stands: a tree of templates, which see `outside`; None is the caller's input.

    A tree that is laid over what is outside leaves the names there that it does not have itself.
    """

    tree: Any
    outside: _Scope | None
    is_laid_over: bool = False


class _Use(msgspec.Struct, frozen=True):
    """How a value is used: as what, and whether it has to be there."""

    type: str
    required: bool = False

    @property
    def optional(self) -> _Use:
        return replace(self, required=False)


_TEXT = _Use("text", required=True)
_MAYBE_TEXT = _Use("text")
_ANY = _Use("json", required=True)
_MAYBE = _Use("json")
_PARAMETERS = {
    **dict.fromkeys(("do_sample",), "boolean"),
    **dict.fromkeys(("stop_sequences",), "list"),
    **dict.fromkeys(
        ("temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"), "number"
    ),
}


def inputs_of(workflow: Workflow, file: ComposeFile) -> tuple[Input, ...]:
    """The inputs of a workflow of a checked file, in the order in which they are read."""
    found: dict[str, Input] = {}
    for each in _workflow_reads(workflow, file):
        found[each.name] = _both(found[each.name], each) if each.name in found else each
    return tuple(found.values())


def _both(one: Input, other: Input) -> Input:
    """An input that is read in two places."""
    required = one.required or other.required
    return Input(
        name=one.name,
        type=other.type if one.type == "json" else one.type,
        required=required,
        default=None if required else one.default if one.default is not None else other.default,
        description=one.description if one.description is not None else other.description,
    )


def _workflow_reads(workflow: Workflow, file: ComposeFile) -> Iterator[Input]:
    scope = (
        None if workflow.input is None else _Scope(workflow.input, None, is_laid_over=isinstance(workflow.input, dict))
    )
    for job in workflow.jobs:
        yield from _job_reads(job, scope, file, is_only=len(workflow.jobs) == 1)
    yield from _reads(workflow.output, scope, _MAYBE)


def _job_reads(job: Job, outside: _Scope | None, file: ComposeFile, *, is_only: bool) -> Iterator[Input]:
    is_laid_over = is_only and isinstance(job.input, dict)
    scope = outside if job.input is None else _Scope(job.input, outside, is_laid_over)
    component = component_of(job, file)
    action = action_of(job, component)
    yield from _reads(job.repeat_count, outside, _Use("integer", required=True))
    if isinstance(action, WorkflowAction):
        yield from _called_reads(action, scope, file)
    for value, use in (*_action_uses(action), *_component_uses(component)):
        yield from _reads(value, scope, use)
    yield from _reads(action.output, scope, _MAYBE)
    yield from _reads(job.output, outside, _MAYBE)


def _called_reads(action: WorkflowAction, scope: _Scope | None, file: ComposeFile) -> Iterator[Input]:
    """What the workflow that is called reads of what it is given."""
    inner = {each.id: each for each in file.workflows}.get(action.workflow or "", default_workflow(file))
    if inner is None:
        return
    given = scope if action.input is None else _Scope(action.input, scope)
    for each in inputs_of(inner, file):
        default = None if each.required or each.default is None else Default(literal=each.default)
        reference = Reference("input", (each.name,), Cast(each.type), default, each.description)
        yield from _reference_reads(reference, given, _Use(each.type, each.required))


def _action_uses(action: Action) -> Iterator[tuple[Any, _Use]]:
    match action:
        case ChatAction():
            yield from _message_uses(action.messages)
            yield action.tools, _Use("list")
            yield from _parameter_uses(action.params)
        case TextAction():
            yield action.prompt, _TEXT
            yield from _parameter_uses(action.params)
        case HttpAction():
            yield from ((action.endpoint, _TEXT), (action.path, _TEXT), (action.body, _ANY))
            yield from ((action.params, _MAYBE_TEXT), (action.headers, _MAYBE_TEXT))
        case ShellAction():
            yield from ((action.command, _TEXT), (action.env, _MAYBE_TEXT), (action.working_dir, _MAYBE_TEXT))


def _component_uses(component: Component) -> Iterator[tuple[Any, _Use]]:
    match component:
        case HttpClientComponent():
            yield from ((component.base_url, _TEXT), (component.headers, _MAYBE_TEXT))
        case HttpServerComponent():
            yield component.headers, _MAYBE_TEXT
        case ShellComponent():
            yield component.env, _MAYBE_TEXT


def _message_uses(messages: Any) -> Iterator[tuple[Any, _Use]]:
    """The last message of the user has to be there, or else the list that holds it."""
    items = messages if isinstance(messages, list) else [messages]
    said = [number for number, item in enumerate(items) if isinstance(item, dict) and item.get("role") == "user"]
    for number, item in enumerate(items):
        if isinstance(item, dict):
            yield item, replace(_TEXT, required=number in said[-1:])
        else:
            yield item, _Use("list", required=not said)


def _parameter_uses(params: Params) -> Iterator[tuple[Any, _Use]]:
    for name in Params.model_fields:
        yield getattr(params, name), _Use(_PARAMETERS.get(name, "integer"))


def _reads(value: Any, scope: _Scope | None, use: _Use) -> Iterator[Input]:
    """The caller's inputs that a tree of templates reads."""
    match value:
        case Template():
            use = use if value.only is not None else replace(use, type="text")
            for part in value.parts:
                if isinstance(part, Reference):
                    yield from _reference_reads(part, scope, use)
        case list() | tuple():
            for item in value:
                yield from _reads(item, scope, use)
        case dict():
            for item in value.values():
                yield from _reads(item, scope, use)


def _reference_reads(reference: Reference, scope: _Scope | None, use: _Use) -> Iterator[Input]:
    for step in reference.steps:
        if isinstance(step, Reference):
            yield from _reference_reads(step, scope, _Use("integer", use.required))
    if reference.default is not None:
        yield from _reads(reference.default.template, scope, _MAYBE_TEXT)
        use = use.optional
    if reference.root != "input":
        return
    while scope is not None and scope.is_laid_over and reference.steps and reference.steps[0] not in scope.tree:
        scope = scope.outside
    if scope is not None:
        yield from _tree_reads(scope.tree, reference, reference.steps, scope.outside, use)
    elif reference.steps and isinstance(name := reference.steps[0], str):
        is_whole = len(reference.steps) == 1
        yield Input(
            name=name,
            type=_type(reference, use),
            required=use.required,
            default=_default(reference) if is_whole else None,
            description=reference.description if is_whole else None,
        )


def _tree_reads(
    tree: Any,
    reference: Reference,
    steps: tuple[str | int | Reference | Each, ...],
    outside: _Scope | None,
    use: _Use,
) -> Iterator[Input]:
    """What is read of the caller's input when `steps` are followed into a tree that was made of it."""
    match tree, steps:
        case Template(), _ if (inner := tree.only) is not None:
            combined = replace(
                inner,
                steps=(*inner.steps, *steps),
                cast=reference.cast or (None if steps else inner.cast),
                default=inner.default or reference.default,
                description=inner.description if reference.description is None else reference.description,
            )
            yield from _reference_reads(combined, outside, use)
        case dict(), (str() as key, *rest):
            yield from _tree_reads(tree.get(key), reference, tuple(rest), outside, use)
        case list(), (int() as index, *rest) if -len(tree) <= index < len(tree):
            yield from _tree_reads(tree[index], reference, tuple(rest), outside, use)
        case _:
            yield from _reads(tree, outside, use)


def _type(reference: Reference, use: _Use) -> str:
    if len(reference.steps) > 1:
        return "object" if isinstance(reference.steps[1], str) else "list"
    if reference.cast is not None:
        return "text" if reference.cast.type == "string" else reference.cast.type
    if use.type != "json":
        return use.type
    match _default(reference):
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "text"
        case list():
            return "list"
        case dict():
            return "object"
    return "json"


def _default(reference: Reference) -> Any:
    """A default that is known without a run."""
    default = reference.default
    if default is None or default.template is None:
        return None if default is None else default.literal
    texts = [part for part in default.template.parts if isinstance(part, str)]
    return "".join(texts) if len(texts) == len(default.template.parts) else None
