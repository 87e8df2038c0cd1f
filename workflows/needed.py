"""The part of a compose file that one workflow needs. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .graph import action_of, component_of, default_workflow, model_name, workflow_of
from .named_models import bringing
from .schema import BaseModelComponent, Component, ComposeFile, NamedModel, Workflow, WorkflowAction

if TYPE_CHECKING:
    from .load import Compose


def needed_by(id: str, compose: Compose) -> Compose:
    """The file with nothing but that workflow, those it calls, and the components of all of them.

    Raises ModelNotFound.
    """
    file = compose.file
    workflow = workflow_of(file, id)
    found = {workflow.id: workflow}
    components: set[str] = set()
    waiting = [workflow]
    while waiting:
        for component, called in _calls(waiting.pop(), file):
            components.add(component.id)
            if isinstance(component, BaseModelComponent) and isinstance(component.model, NamedModel):
                components.update(bringing(component.model.name, compose))
            if called is not None and called.id not in found:
                found[called.id] = called
                waiting.append(called)
    part = {
        "workflows": tuple(each for each in file.workflows if each.id in found),
        "components": tuple(each for each in file.components if each.id in components),
    }
    return compose._replace(file=file.model_copy(update=part))


def _calls(workflow: Workflow, file: ComposeFile) -> Iterator[tuple[Component, Workflow | None]]:
    """The components that a workflow's jobs call, each with the workflow behind it, if there is one."""
    by_id = {each.id: each for each in file.workflows}
    by_model = {model_name(each): each for each in file.workflows}
    for job in workflow.jobs:
        component = component_of(job, file)
        action = action_of(job, component)
        if isinstance(action, WorkflowAction):
            called = default_workflow(file) if action.workflow is None else by_id.get(action.workflow)
            yield component, called
        elif isinstance(component, BaseModelComponent) and isinstance(component.model, NamedModel):
            yield component, by_model.get(component.model.name)
        else:
            yield component, None
