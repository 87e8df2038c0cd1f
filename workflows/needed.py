"""The part of a compose file that one workflow needs. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from .graph import action_of, component_of, default_workflow, model_name, workflow_of
from .schema import BaseModelComponent, Component, ComposeFile, NamedModel, Workflow, WorkflowAction


def needed_by(id: str, file: ComposeFile) -> ComposeFile:
    """The file with nothing but that workflow, those it calls, and the components of all of them.

    Raises ModelNotFound.
    """
    workflow = workflow_of(file, id)
    found = {workflow.id: workflow}
    components: dict[str, Component] = {}
    waiting = [workflow]
    while waiting:
        for component, called in _calls(waiting.pop(), file):
            components[component.id] = component
            if called is not None and called.id not in found:
                found[called.id] = called
                waiting.append(called)
    return file.model_copy(
        update={
            "workflows": tuple(each for each in file.workflows if each.id in found),
            "components": tuple(each for each in file.components if each.id in components),
        }
    )


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
