"""What runs after what: the order of a workflow's jobs, its last job, and what each job calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ..adapters.errors import ConfigError, ModelNotFound
from .references import references_in
from .schema import Action, Component, ComposeFile, Job, Workflow


class Plan(msgspec.Struct, frozen=True):
    """A workflow's jobs, each after those it waits for; `terminal` is the id of the job whose output is `${output}`."""

    jobs: tuple[Job, ...]
    dependencies: Mapping[str, frozenset[str]]
    terminal: str


def plan(workflow: Workflow) -> Plan:
    """The order in which the jobs can run; raises ConfigError for a cycle or a job that does not exist."""
    needed = dependencies_of(workflow)
    if unknown := sorted(frozenset().union(*needed.values()) - needed.keys()):
        raise ConfigError(f"workflow '{workflow.id}' has no job '{unknown[0]}'")
    if cycle := cycle_in(needed):
        raise ConfigError(f"the jobs of workflow '{workflow.id}' wait for each other: {' -> '.join(cycle)}")
    jobs = {job.id: job for job in workflow.jobs}
    order: dict[str, Job] = {}
    while len(order) < len(jobs):
        order |= {id: job for id, job in jobs.items() if id not in order and needed[id] <= order.keys()}
    return Plan(tuple(order.values()), needed, _terminal(workflow, needed))


def dependencies_of(workflow: Workflow) -> dict[str, frozenset[str]]:
    """For each job the ids it names in `depends_on` or refers to; these may be wrong before the file is checked."""
    return {
        job.id: frozenset(job.depends_on) | jobs_in((job.input, job.output, job.repeat_count)) for job in workflow.jobs
    }


def cycle_in(dependencies: Mapping[str, frozenset[str]]) -> tuple[str, ...] | None:
    """One cycle, its first id repeated at its end, or None."""
    done: set[str] = set()
    for start in dependencies:
        path: list[str] = []
        stack = [iter((start,))]
        while stack:
            following = next(stack[-1], None)
            if following is None:
                stack.pop()
                if path:
                    done.add(path.pop())
            elif following in path:
                return (*path[path.index(following) :], following)
            elif following not in done and following in dependencies:
                path.append(following)
                stack.append(iter(sorted(dependencies[following])))
    return None


def jobs_in(value: Any) -> frozenset[str]:
    """The ids of the jobs whose output a parsed tree refers to."""
    return frozenset(
        reference.steps[0]
        for reference in references_in(value)
        if reference.root == "jobs" and reference.steps and isinstance(reference.steps[0], str)
    )


def component_of(job: Job, file: ComposeFile) -> Component:
    """The component a job calls: the one it names, else the default or only one; raises ConfigError."""
    components = {component.id: component for component in file.components}
    if job.component is not None:
        if job.component not in components:
            raise ConfigError(f"there is no component '{job.component}'; there are {_names(components)}")
        return components[job.component]
    defaults = [component for component in file.components if component.default] or list(file.components)
    if len(defaults) != 1:
        raise ConfigError(f"say which 'component' job '{job.id}' calls: {_names(components)}")
    return defaults[0]


def action_of(job: Job, component: Component) -> Action:
    """The action a job calls: the one it names, else the only one or the one called `default`; raises ConfigError."""
    actions: dict[str, Action] = {action.id: action for action in component.actions}
    name = job.action if job.action is not None else "default"
    if name in actions:
        return actions[name]
    if job.action is None and len(actions) == 1:
        return component.actions[0]
    if job.action is None:
        raise ConfigError(f"say which 'action' of component '{component.id}' is meant: {_names(actions)}")
    raise ConfigError(f"component '{component.id}' has no action '{job.action}'; it has {_names(actions)}")


def model_name(workflow: Workflow) -> str:
    """The name under which OpenAI clients ask for a workflow."""
    return workflow.openai.model or workflow.id


def default_workflow(file: ComposeFile) -> Workflow | None:
    """The workflow that is meant when none is named: the one with `default: true`, or the only one."""
    defaults = [workflow for workflow in file.workflows if workflow.default] or list(file.workflows)
    return defaults[0] if len(defaults) == 1 else None


def workflow_of(file: ComposeFile, id: str | None) -> Workflow:
    """The workflow of that id, the default one if it is None; raises ModelNotFound."""
    ids = {workflow.id: workflow for workflow in file.workflows}
    found = default_workflow(file) if id is None else ids.get(id)
    if found is None:
        named = "there is no default workflow" if id is None else f"there is no workflow '{id[:200]}'"
        raise ModelNotFound(f"{named}; this file has: {', '.join(ids) or 'none'}", param="workflow_id")
    return found


def _terminal(workflow: Workflow, dependencies: Mapping[str, frozenset[str]]) -> str:
    """The last job that no other waits for; of several, the one that the workflow's output names."""
    waited_for = frozenset[str]().union(*dependencies.values())
    last = [job.id for job in workflow.jobs if job.id not in waited_for]
    named = [id for id in last if id in jobs_in(workflow.output)]
    return named[0] if len(named) == 1 else last[-1]


def _names(things: Mapping[str, Any]) -> str:
    return ", ".join(f"'{name}'" for name in things) or "none"
