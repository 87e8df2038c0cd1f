"""`model-compose validate`: says what a compose file offers, or everything that is wrong with it."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from ..workflows.graph import default_workflow, model_name
from ..workflows.inputs import Input, inputs_of
from ..workflows.load import Compose
from ..workflows.named_models import unknown_models
from ..workflows.references import as_text
from ..workflows.schema import BaseModelComponent, Component, HubModel, LocalModel, NamedModel
from ..workflows.tree import ConfigErrors
from .compose_files import ComposeOptions, read
from .exit_codes import WRONG


def run(options: ComposeOptions) -> int:
    """Print `ok` and what the file offers (exit code 0), or its problems, on standard error (2)."""
    try:
        compose = read(options)
    except ConfigErrors as error:
        count = len(error.problems)
        print(f"{error.message}\n{count} problem{'s' if count > 1 else ''}", file=sys.stderr)
        return WRONG
    print("\n".join(["ok", "", *summary(compose)]))
    return 0


def summary(compose: Compose) -> Iterator[str]:
    """What the file offers, a line each: its models, what they take, and what answers."""
    default = default_workflow(compose.file)
    yield "Models"
    for workflow in compose.file.workflows:
        notes = [workflow.title or "", "(default)" if workflow is default and len(compose.file.workflows) > 1 else ""]
        yield "  ".join(filter(None, (f"  {model_name(workflow)}", *notes)))
        yield from (f"      {_described(each)}" for each in inputs_of(workflow, compose.file))
    yield "Components"
    unknown = unknown_models(compose)
    for component in compose.file.components:
        note = f"  (not in this file: up --model {unknown[component.id]}=...)" if component.id in unknown else ""
        yield f"  {component.id}  {_answers(component)}{note}"


def _described(each: Input) -> str:
    default = f", default {as_text(each.default)}" if each.default is not None else ""
    needed = ", required" if each.required else ""
    return f"{each.name}: {each.type}{needed}{default}" + (f"  {each.description}" if each.description else "")


def _answers(component: Component) -> str:
    if not isinstance(component, BaseModelComponent):
        return component.type
    match component.model:
        case HubModel(repository=name) | LocalModel(path=name) | NamedModel(name=name):
            return f"{component.task}  {name}"
        case None:
            return f"{component.task}  {' '.join(component.base_url)}"
        case _:
            return f"{component.task}  {component.model.provider}"
