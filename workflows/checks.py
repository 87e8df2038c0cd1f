"""What can be wrong with a compose file whose every part is well-formed: names, references and circles."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from ..adapters.errors import ConfigError
from .forms import Reading, reported_in
from .graph import action_of, component_of, cycle_in, default_workflow, dependencies_of, model_name
from .outputs import is_each_item
from .references import Reference, references_in
from .schema import (
    BaseModelComponent,
    Component,
    ComposeFile,
    HttpAction,
    HttpClientComponent,
    HubModel,
    Job,
    NamedModel,
    ShellComponent,
    Workflow,
    WorkflowAction,
)
from .tree import Node, Problem, find, joined, suggestion
from .values import faults_of, faults_of_action

Path = tuple[str | int, ...]


def problems_of(root: Node, reading: Reading, known: Sequence[Problem] = ()) -> list[Problem]:
    """Every mistake that shows only when the file is seen as a whole; `root` is the spelled tree.

    What is `known` to be no reference, or to have no value, is not said to have a wrong one.
    """
    return list(_Checks(root, reading, known).all())


class _Checks:
    def __init__(self, root: Node, reading: Reading, known: Sequence[Problem]) -> None:
        self.root = root
        self.reading = reading
        self.reported = reported_in(known)
        self.file = reading.file
        self.components = (
            [node.fields for node in root.fields["components"].items] if "components" in root.fields else []
        )
        self.has_broken = len(reading.components) < len(self.components)
        self.has_all_components = self._are_named("components")
        self.has_all_workflows = self._are_named("workflows")

    def all(self) -> Iterator[Problem]:
        yield from self._duplicates(self.root, "components", "component")
        yield from self._duplicates(self.root, "workflows", "workflow")
        if not self.root.fields.get("components", self.root.with_value([])).value and not self._is_misspelled:
            yield self.root.problem("there is no component; say with 'component:' what the workflows call")
        for number, component in self.reading.components.items():
            yield from self._component(component, ("components", number))
            if number not in self.reading.torn:
                yield from self._whole(component, ("components", number))
        for number, workflow in self.reading.workflows.items():
            yield from self._workflow(workflow, ("workflows", number))
        yield from self._defaults("components", self.reading.components)
        yield from self._defaults("workflows", self.reading.workflows)
        yield from self._names()
        yield from self._circles()

    @property
    def _is_misspelled(self) -> bool:
        """Whether there is a key that is probably meant to be the one of the components."""
        names = ("component", "components")
        unknown = self.root.fields.keys() - ComposeFile.model_fields.keys()
        return any(suggestion(key.lower(), names, list_all=False) for key in unknown)

    def _are_named(self, key: str) -> bool:
        """Whether nothing is wrong with the names of the things that this key lists."""
        node = self.root.fields.get(key)
        if node is None or not isinstance(node.value, list):
            return node is None
        ids = [item.fields.get("id") for item in node.items if isinstance(item.value, dict)]
        are_said = all(id is None or (id.text and not self._is_reported(id)) for id in ids)
        return are_said and len(ids) == len(node.items)

    def _is_named(self, path: Path) -> bool:
        """Whether nothing is wrong with the name of a job or an action."""
        node, _ = find(self.root, path)
        return not self._is_left_out(path, "id") and not self._is_reported(node.fields.get("id", node))

    def _is_reported(self, node: Node) -> bool:
        return (node.place.file, node.path) in self.reported

    def _is_left_out(self, path: Path, *keys: str) -> bool:
        """Whether what stands there, or one of these keys of it, could not be read."""
        node, _ = find(self.root, path)
        return not self.reading.left_out.isdisjoint({node.path, *(joined(node.path, key) for key in keys)})

    def _at(self, path: Path, message: str, *, at_key: bool = False) -> Problem:
        return find(self.root, path)[0].problem(message, at_key=at_key)

    # Names ------------------------------------------------------------------------------------------------------------

    def _duplicates(self, holder: Node, key: str, what: str) -> Iterator[Problem]:
        first: dict[str, Node] = {}
        for item in holder.fields[key].items if key in holder.fields else ():
            named = item.fields.get("id")
            name = named.text if named else "default"
            if not name or not isinstance(item.value, dict) or self._is_reported(named or item):
                continue
            if name not in first:
                first[name] = named or item
            elif named is None:
                yield item.problem(
                    f"needs an 'id': there is another {what} without one, on line {first[name].key.line}"
                )
            else:
                yield named.problem(f"there is another {what} '{name}', on line {first[name].key.line}")

    def _defaults(self, key: str, things: Mapping[int, Component] | Mapping[int, Workflow]) -> Iterator[Problem]:
        defaults = [number for number, thing in things.items() if thing.default]
        for number in defaults[1:]:
            line = find(self.root, (key, defaults[0], "default"))[0].key.line
            yield self._at((key, number, "default"), f"there is another default, on line {line}")

    def _names(self) -> Iterator[Problem]:
        """OpenAI clients must be able to tell the workflows apart; names that are ids are compared as ids."""
        first: dict[str, int] = {}
        ids = defaultdict(list)
        for number, workflow in self.reading.workflows.items():
            ids[workflow.id].append(number)
        for number, workflow in self.reading.workflows.items():
            name = model_name(workflow)
            other = first.setdefault(name, number)
            if other != number and self.reading.workflows[other].id != workflow.id:
                path: Path = ("workflows", number, "openai", "model")
                there = find(self.root, ("workflows", other, "openai", "model"))[0]
                yield self._at(path, f"another workflow is called '{name}' too, on line {there.key.line}")

    # Components -------------------------------------------------------------------------------------------------------

    def _component(self, component: Component, path: Path) -> Iterator[Problem]:
        node, _ = find(self.root, path)
        yield from self._duplicates(node, "actions", "action")
        yield from self._roots(component, path, {"input", "index"}, skip=("actions",))
        yield from self._faults(path, faults_of(component))
        for number, action in enumerate(component.actions):
            where = (*path, "actions", number)
            yield from self._faults(where, faults_of_action(action))
            yield from self._roots(action, where, {"input", "index"}, skip=("output",))
            yield from self._roots(action.output, (*where, "output"), _IN_ACTION_OUTPUT)
            if isinstance(action, WorkflowAction) and action.workflow is not None:
                yield from self._workflow_named(action.workflow, (*where, "workflow"))

    def _faults(self, path: Path, faults: Iterable[tuple[Path, str]]) -> Iterator[Problem]:
        for inner, message in faults:
            node, _ = find(self.root, (*path, *inner))
            if not self._is_reported(node):
                yield node.problem(message)

    def _whole(self, component: Component, path: Path) -> Iterator[Problem]:
        """What is missing in a component, or does not go together."""
        for number, action in enumerate(component.actions):
            where = (*path, "actions", number)
            if isinstance(action, HttpAction) and action.stream_format is None and _reads_items(action.output):
                yield self._at(
                    (*where, "output"),
                    "'[]' and 'item' stand for the items of a stream: say stream_format: json or text",
                )
            if (
                isinstance(component, HttpClientComponent)
                and component.base_url is None
                and isinstance(action, HttpAction)
                and action.endpoint is None
            ):
                yield self._at(where, "has no URL: give the component a 'base_url' or the action an 'endpoint'")
        if isinstance(component, ShellComponent):
            for number, command in enumerate(component.actions):
                if command.command is None:
                    node, _ = find(self.root, (*path, "actions", number))
                    yield Problem(node.place, joined(node.path, "command"), "is missing")
        if isinstance(component, BaseModelComponent):
            yield from self._model(component, path)
        if not component.actions:
            yield self._at(path, f"has no action{_FIRST_KEY.get(component.type, '')}")

    def _model(self, component: BaseModelComponent, path: Path) -> Iterator[Problem]:
        """Which keys go with which driver."""
        node, _ = find(self.root, path)
        is_far = component.driver == "vllm"
        if component.model is None and not (is_far and component.base_url):
            yield Problem(node.place, joined(node.path, "model"), "is missing")
        for key in _OF_OUR_PROCESSES if is_far else _OF_SERVERS:
            if key in component.model_fields_set:
                yield self._at((*path, key), f"goes with driver: {_DRIVERS[not is_far]} only", at_key=True)
        is_plain = isinstance(component.model, HubModel) and component.model.model_fields_set <= {
            "provider",
            "repository",
        }
        for key in _OF_OUR_SERVERS if component.base_url and is_far else _OF_OTHERS_SERVERS if is_far else ():
            if key in component.model_fields_set:
                why = "does not go with 'base_url'" if component.base_url else "goes with 'base_url' only"
                yield self._at((*path, key), why, at_key=True)
        if component.base_url and component.model is not None and not is_plain:
            yield self._at((*path, "model"), "must be the name that the servers of 'base_url' have for it")

    def _workflow_named(self, name: str, path: Path) -> Iterator[Problem]:
        known = [node.fields["id"].text if "id" in node.fields else "default" for node in self._workflow_nodes()]
        if name not in known and self.has_all_workflows and not self._is_reported(find(self.root, path)[0]):
            yield self._at(path, f"there is no workflow '{name}'{suggestion(name, known)}")

    def _workflow_nodes(self) -> Sequence[Node]:
        return self.root.fields["workflows"].items if "workflows" in self.root.fields else []

    # Workflows --------------------------------------------------------------------------------------------------------

    def _workflow(self, workflow: Workflow, path: Path) -> Iterator[Problem]:
        node, _ = find(self.root, path)
        yield from self._duplicates(node, "jobs", "job")
        if not workflow.jobs:
            yield self._at(path, "has no job")
        ids = [job.id for job in workflow.jobs]
        if not all(self._is_named((*path, "jobs", number)) for number in range(len(ids))):
            ids = []
        yield from self._roots(workflow.input, (*path, "input"), {"input"})
        yield from self._roots(workflow.output, (*path, "output"), {"input", "jobs", "output"}, ids)
        yield from self._roots(workflow.openai.input, (*path, "openai", "input"), _IN_OPENAI_INPUT)
        yield from self._roots(workflow.openai.output, (*path, "openai", "output"), {"input", "jobs", "output"}, ids)
        for number, job in enumerate(workflow.jobs):
            yield from self._job(job, ids, (*path, "jobs", number))
        needed = dependencies_of(workflow)
        if cycle := cycle_in(needed):
            number = [job.id for job in workflow.jobs].index(cycle[0])
            message = f"these jobs wait for each other: {' -> '.join(cycle)}"
            yield self._at((*path, "jobs", number), message)

    def _job(self, job: Job, ids: Sequence[str], path: Path) -> Iterator[Problem]:
        """The mistakes of a job; `ids` are those of the workflow's jobs, none if they are not all known."""
        is_repeated = job.repeat_count is not None or self._is_left_out(path, "repeat_count")
        index = {"index"} if is_repeated else set[str]()
        for number, id in enumerate(job.depends_on):
            if ids and id not in ids:
                yield self._at((*path, "depends_on", number), f"there is no job '{id}'{suggestion(id, ids)}")
        yield from self._roots(job.repeat_count, (*path, "repeat_count"), {"input", "jobs"}, ids)
        yield from self._roots(job.input, (*path, "input"), {"input", "jobs"} | index, ids)
        yield from self._roots(job.output, (*path, "output"), {"input", "jobs", "output"} | index, ids)
        if not self._is_left_out(path, "component", "action"):
            yield from self._call(job, path)

    def _call(self, job: Job, path: Path) -> Iterator[Problem]:
        """The component and action that a job names."""
        ids = [fields["id"].text for fields in self.components if "id" in fields]
        is_unknown = job.component is not None and job.component not in [*ids, "default"]
        if is_unknown and self.has_all_components and not self._is_reported(find(self.root, (*path, "component"))[0]):
            hint = suggestion(str(job.component), ids) if ids else "; components are named by their 'id'"
            message = f"there is no component '{job.component}'{hint}"
            yield self._at((*path, "component"), message)
        if not self.components or (self.has_broken and job.component not in {each.id for each in self.file.components}):
            return
        try:
            component = component_of(job, self.file)
        except ConfigError as error:
            defaults = [("components", number) for number in self.reading.torn]
            is_known = self.has_all_components and not any(self._is_left_out(each, "default") for each in defaults)
            if job.component is None and is_known:
                yield self._at(path, error.message)
            return
        number = next(number for number, each in self.reading.components.items() if each is component)
        actions = [("components", number, "actions", each) for each in range(len(component.actions))]
        if not actions or not all(map(self._is_named, actions)):
            return
        try:
            action_of(job, component)
        except ConfigError as error:
            near = suggestion(job.action or "", [action.id for action in component.actions], list_all=False)
            yield self._at((*path, "action"), f"{error.message}{near}")

    # References -------------------------------------------------------------------------------------------------------

    def _roots(
        self, value: Any, path: Path, allowed: set[str], jobs: Sequence[str] = (), skip: Sequence[str] = ()
    ) -> Iterator[Problem]:
        """Problems for the references in a value whose root is not among the allowed ones, or that name no job."""
        match value:
            case BaseModel():
                for name in type(value).model_fields:
                    if name not in skip:
                        yield from self._roots(getattr(value, name), (*path, name), allowed, jobs)
            case dict():
                for key, item in value.items():
                    yield from self._roots(item, (*path, key), allowed, jobs)
            case list() | tuple():
                for number, item in enumerate(value):
                    yield from self._roots(item, (*path, number), allowed, jobs)
            case _:
                for reference in references_in(value):
                    if message := _fault(reference, allowed, jobs):
                        yield self._at(path, message)

    # Circles ----------------------------------------------------------------------------------------------------------

    def _circles(self) -> Iterator[Problem]:
        """Workflows that call themselves, by a component of type workflow or as a model of the server."""
        calls = {
            workflow.id: frozenset(self._called(workflow, ("workflows", number)))
            for number, workflow in self.reading.workflows.items()
        }
        if cycle := cycle_in(calls):
            number = next(number for number, each in self.reading.workflows.items() if each.id == cycle[0])
            yield self._at(("workflows", number), f"this workflow calls itself: {' -> '.join(cycle)}")

    def _called(self, workflow: Workflow, path: Path) -> Iterator[str]:
        models = {model_name(each): each.id for each in self.file.workflows}
        torn = [self.reading.components[number] for number in self.reading.torn]
        for number, job in enumerate(workflow.jobs):
            if self._is_left_out((*path, "jobs", number), "component", "action"):
                continue
            try:
                component = component_of(job, self.file)
                action = action_of(job, component)
            except ConfigError:
                continue
            if isinstance(action, WorkflowAction) and (action.workflow or component not in torn):
                called = action.workflow or getattr(default_workflow(self.file), "id", None)
                yield from [called] if called else []
            model = getattr(component, "model", None)
            if isinstance(model, NamedModel) and model.name in models:
                yield models[model.name]


def _fault(reference: Reference, allowed: set[str], ids: Sequence[str]) -> str | None:
    if reference.root == "env":
        return None
    if reference.root not in allowed:
        known = sorted({*allowed, "env"})
        hint = "; for a literal '${' write '\\${'" if reference.root.isupper() else suggestion(reference.root, known)
        return f"nothing is called '{reference.root}' here{hint}"
    if reference.root != "jobs":
        return None
    if not reference.steps or not isinstance(id := reference.steps[0], str):
        return f"name a job: ${{jobs.{ids[0] if ids else 'id'}.output}}"
    if ids and id not in ids:
        return f"there is no job '{id}'{suggestion(id, ids)}"
    if len(reference.steps) > 1 and reference.steps[1] != "output":
        return f"a job has an 'output', and no {reference.path.removeprefix(f'jobs.{id}')}"
    return None


def _reads_items(value: Any) -> bool:
    return any(map(is_each_item, references_in(value)))


_DRIVERS = ("transformers", "vllm")
_OF_SERVERS = ("base_url", "api_key", "aliases", "timeout", "manage", "replicas")
_OF_OTHERS_SERVERS = ("api_key",)
_OF_OUR_SERVERS = ("manage", "replicas", "precision", "max_model_len", "max_batch_tokens", "trust_remote_code")
_OF_OUR_PROCESSES = (
    "device",
    "quantization",
    "peft_adapters",
    "kv_cache_memory",
    "max_waiting_count",
    "compile",
    "preload",
    "keep_alive",
)
_IN_ACTION_OUTPUT = {"input", "index", "output", "response", "result", "item"}
_IN_OPENAI_INPUT = {"input", "messages", "prompt", "request", "metadata"}
_FIRST_KEY = {
    "shell": ": say with 'command' what to run",
    "http-client": ": say with 'path' or 'endpoint', 'method' and 'body' what to send",
    "http-server": ": say with 'path', 'method' and 'body' what to send",
}
