"""Every accepted spelling of a compose file becomes the one form of `schema.py`.

The tables below, and the methods of `_Speller`, are the spellings. A key may be given in one spelling only; files that
are merged may use different ones. What is not known here is left as it is, for `forms.py` to refuse.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from .merge import merge
from .schema import (
    BaseComponent,
    BaseModelComponent,
    ChatAction,
    ChatModelComponent,
    ComposeFile,
    Controller,
    Form,
    HttpAction,
    HttpClientComponent,
    HttpServerComponent,
    Job,
    Lifecycle,
    OpenAIFace,
    Params,
    ShellAction,
    ShellComponent,
    TextAction,
    TextModelComponent,
    VllmServer,
    Workflow,
    WorkflowAction,
    WorkflowComponent,
)
from .tree import Node, Problem

Change = Callable[[Node], Node]


class Kind(NamedTuple):
    """A kind of component and of its actions."""

    component: type[BaseComponent]
    action: type[Form]


KINDS = {
    ("model", "chat-completion"): Kind(ChatModelComponent, ChatAction),
    ("model", "text-generation"): Kind(TextModelComponent, TextAction),
    ("http-server", None): Kind(HttpServerComponent, HttpAction),
    ("http-client", None): Kind(HttpClientComponent, HttpAction),
    ("shell", None): Kind(ShellComponent, ShellAction),
    ("workflow", None): Kind(WorkflowComponent, WorkflowAction),
}
TYPES = tuple(dict.fromkeys(type for type, _ in KINDS))
TASKS = tuple(task for type, task in KINDS if type == "model" and task)

SAME_KEYS: dict[type[Form], dict[str, str]] = {
    Params: {
        "max_new_tokens": "max_output_length",
        "max_tokens": "max_output_length",
        "max_completion_tokens": "max_output_length",
        "min_new_tokens": "min_output_length",
        "min_tokens": "min_output_length",
        "n": "num_return_sequences",
        "stop": "stop_sequences",
    },
    ChatAction: {"stream": "streaming"},
    TextAction: {"stream": "streaming", "text": "prompt"},
}
OF_THE_ONLY_JOB = ("input", "output", "component", "action", "repeat_count")
LOCAL_PATH = re.compile(r"(\.{1,2}|~)?/.*|\.{1,2}|~", re.DOTALL)
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
OPENAI_PATH = re.compile(r"/(chat/)?completions/?$")


def known_keys(kind: type[Form]) -> list[str]:
    """Every key a user may write where this form stands."""
    return [*kind.model_fields, *SAME_KEYS.get(kind, ()), *_MORE_KEYS.get(kind, ())]


def kind_of(component: Node) -> Kind | None:
    """What kind of component a mapping is, if its `type` and `task` say so."""
    fields = component.fields
    type, task = (fields[key].text if key in fields else None for key in ("type", "task"))
    return KINDS.get((type or "", task if type == "model" else None))


def with_lists(root: Node) -> Node:
    """`component`, `workflow`, `job` and `action` as lists of one; files are merged in this form."""
    fields = _as_list(_as_list(root.fields, "component", "components"), "workflow", "workflows")
    for name, one, many in (("components", "action", "actions"), ("workflows", "job", "jobs")):
        if name in fields:
            things = [
                thing.with_value(_as_list(thing.fields, one, many)) if isinstance(thing.value, dict) else thing
                for thing in fields[name].items
            ]
            fields[name] = fields[name].with_value(things) if things else fields[name]
    return root.with_value(fields)


def spelled(root: Node, problems: list[Problem]) -> Node:
    """The merged file in the one form, as far as its spelling is known."""
    return _Speller(problems).file(root)


def slug(title: str) -> str:
    """A title as a name: lower case, words joined by hyphens."""
    return re.sub(r"[\W_]+", "-", title.lower()).strip("-")[:128]


def _as_list(fields: dict[str, Node], one: str, many: str) -> dict[str, Node]:
    if one not in fields:
        return fields
    single = fields.pop(one)
    if single.value is not None:
        several = fields.get(many, single)
        fields[many] = several.with_value([*several.items, single] if several is not single else [single])
    return fields


class _Speller:
    """Rewrites a tree; what it cannot rewrite becomes a problem or stays as it is."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems

    def file(self, root: Node) -> Node:
        fields = {key: child for key, child in _given(root, ComposeFile).items() if not key.startswith("x-")}
        self._change(fields, "controller", self._controller)
        self._change_each(fields, "components", self._component)
        self._change_each(fields, "workflows", self._workflow)
        if "workflows" not in fields and (components := fields.get("components")) and components.items:
            implicit = components.with_value({"jobs": components.with_value([components.with_value({})])})
            fields["workflows"] = components.with_value([implicit])
        return root.with_value(fields)

    def _controller(self, node: Node) -> Node:
        if not isinstance(node.value, dict):
            return node
        fields = _given(node, Controller)
        adapters = [fields.pop("adapter")] if "adapter" in fields else []
        if "adapters" in fields:
            adapters += self._listed_adapters(fields.pop("adapters"))
        for adapter in adapters[1:]:
            self.problems.append(adapter.problem("there can be one adapter only, of type http-server"))
        for adapter in adapters[:1]:
            if not isinstance(adapter.value, dict):
                self.problems.append(adapter.problem("must be a mapping: {type: http-server, port: 8080}"))
            for key, child in _given(adapter, Controller).items():
                self._put(fields, key, child)
        return node.with_value(fields)

    def _listed_adapters(self, node: Node) -> list[Node]:
        if not isinstance(node.value, list):
            self.problems.append(node.problem("must be a list of one; without the list it is called 'adapter'"))
        return node.items

    # Components -------------------------------------------------------------------------------------------------------

    def _component(self, node: Node) -> Node:
        kind = kind_of(node)
        if kind is None:
            return node
        fields = _given(node, kind.component)
        if fields.get("max_concurrent_count", node).value == 0:
            del fields["max_concurrent_count"]
        self._lift_into_action(node, fields, kind)
        if kind.component is HttpServerComponent:
            self._lift_into_manage(node, fields)
        if issubclass(kind.component, BaseModelComponent):
            self._change(fields, "base_url", _listed)
            self._change(fields, "manage", self._vllm)
        self._change(fields, "model", _served if "base_url" in fields and _is_text(fields, "model") else self._model)
        self._change(fields, "peft_adapters", self._adapters)
        self._change(fields, "env", _environment)
        self._change(fields, "retry", _retry)
        self._change(fields, "driver", _driver)
        self._change_each(fields, "actions", lambda action: self._action(action, kind))
        return node.with_value(fields)

    def _lift_into_action(self, node: Node, fields: dict[str, Node], kind: Kind) -> None:
        """An action's keys may stand on the component itself, if it has no more than one action."""
        actions = fields["actions"].items if "actions" in fields else []
        names = [key for key in fields if key in _of_actions(kind)]
        if not names:
            return
        if len(actions) > 1:
            self.problems += [fields.pop(key).problem("belongs to one of the actions", at_key=True) for key in names]
            return
        # Headers may stand on the component too; next to the keys of an action they are meant as the action's.
        names += ["headers"] if not actions and "headers" in fields and kind.action is HttpAction else []
        lifted = actions[0].fields if actions else {}
        for key in names:
            self._put(lifted, key, fields.pop(key))
        action = actions[0].with_value(lifted) if actions else node.with_value(lifted)
        fields["actions"] = fields["actions"].with_value([action]) if actions else node.with_value([action])

    def _lift_into_manage(self, node: Node, fields: dict[str, Node]) -> None:
        manage = fields.get("manage", node)
        lifted = _given(manage, Lifecycle) if "manage" in fields else {}
        if isinstance(scripts := lifted.get("scripts", node).value, dict) and "scripts" in lifted:
            del lifted["scripts"]
            for key, child in scripts.items():
                self._put(lifted, key, child)
        for key in [key for key in Lifecycle.model_fields if key in fields]:
            self._put(lifted, key, fields.pop(key))
        for key in ("install", "build", "start", "clean"):
            self._change(lifted, key, _commands)
        self._change(lifted, "env", _environment)
        if lifted and isinstance(manage.value, dict):
            fields["manage"] = manage.with_value(lifted)

    def _vllm(self, node: Node) -> Node:
        fields = _given(node, VllmServer) if isinstance(node.value, dict) else {}
        self._change(fields, "packages", _listed)
        self._change(fields, "env", _environment)
        return node.with_value(fields) if isinstance(node.value, dict) else node

    def _model(self, node: Node) -> Node:
        """A name is `bundled`, a path or a hub id; an object may leave out its provider."""
        fields = {key: child for key, child in node.fields.items() if child.value is not None}
        if isinstance(node.value, dict):
            for key, provider in (("repository", "huggingface"), ("path", "local"), ("name", "server")):
                if key in fields and "provider" not in fields:
                    fields["provider"] = node.with_value(provider)
            return node.with_value(fields)
        if not isinstance(node.value, str):
            return node
        if node.value == "bundled":
            return node.with_value({"provider": node})
        if LOCAL_PATH.fullmatch(node.value):
            return node.with_value({"provider": node.with_value("local"), "path": node})
        if not HUB_ID.fullmatch(node.value) and "${" not in node.value:
            self.problems.append(
                node.problem(f"'{node.value}' is no hub id (organisation/name); a path begins with ./")
            )
        return node.with_value({"provider": node.with_value("huggingface"), "repository": node})

    def _adapters(self, node: Node) -> Node:
        return node.with_value([self._adapter(item) for item in node.items]) if node.items else node

    def _adapter(self, node: Node) -> Node:
        """`{type: lora, name, model, weight}` is its model, if it asks for nothing else."""
        fields = node.fields
        if "model" not in fields:
            return node
        for key, child in fields.items():
            if key not in ("type", "name", "model", "weight"):
                self.problems.append(child.problem("unknown key; known are type, name, model, weight", at_key=True))
        if "type" in fields and fields["type"].value != "lora":
            self.problems.append(fields["type"].problem("must be lora"))
        if "weight" in fields and fields["weight"].value != 1:
            self.problems.append(
                fields["weight"].problem("adapters are applied with weight 1; others are not supported")
            )
        return fields["model"]

    # Actions ----------------------------------------------------------------------------------------------------------

    def _action(self, node: Node, kind: Kind) -> Node:
        fields = self._renamed(_given(node, kind.action), kind.action)
        if kind.action in (ChatAction, TextAction):
            self._lift_into_params(node, fields)
        if kind.action is HttpAction:
            self._name_stream(fields)
        if kind.action is ShellAction:
            self._change(fields, "command", _command)
            self._change(fields, "env", _environment)
        return node.with_value(fields) if isinstance(node.value, dict) else node

    def _lift_into_params(self, node: Node, fields: dict[str, Node]) -> None:
        if not isinstance(fields.get("params", node).value, dict):
            return
        params = fields.get("params", node)
        lifted = self._renamed(_given(params, Params), Params) if "params" in fields else {}
        for key in [key for key in fields if key in known_keys(Params)]:
            self._put(lifted, SAME_KEYS[Params].get(key, key), fields.pop(key))
        if lifted or "params" in fields:
            fields["params"] = params.with_value(lifted)

    def _name_stream(self, fields: dict[str, Node]) -> None:
        """OpenAI calls `stream` what a request body may say as `streaming`."""
        addresses = [str(fields[key].value) for key in ("path", "endpoint") if key in fields]
        if "body" in fields and any(OPENAI_PATH.search(address) for address in addresses):
            body = fields["body"].fields
            if "streaming" in body:
                self._put(body, "stream", body.pop("streaming"))
                fields["body"] = fields["body"].with_value(body)

    # Workflows --------------------------------------------------------------------------------------------------------

    def _workflow(self, node: Node) -> Node:
        if not isinstance(node.value, dict):
            return node
        fields = _given(node, Workflow)
        if "jobs" not in fields:
            job = {key: fields.pop(key) for key in OF_THE_ONLY_JOB if key in fields}
            fields["jobs"] = node.with_value([node.with_value(job)])
        for key in [key for key in OF_THE_ONLY_JOB[2:] if key in fields]:
            self.problems.append(fields.pop(key).problem("belongs to one of the jobs", at_key=True))
        if "id" not in fields and (name := slug(fields["title"].text) if "title" in fields else ""):
            fields["id"] = fields["title"].with_value(name)
        self._change(fields, "openai", lambda face: face.with_value(_given(face, OpenAIFace)) if face.fields else face)
        self._change_each(fields, "jobs", self._job)
        return node.with_value(fields)

    def _job(self, node: Node) -> Node:
        if not isinstance(node.value, dict):
            return node
        fields = _given(node, Job)
        if "type" in fields and (type := fields.pop("type")).value not in ("component", "action"):
            self.problems.append(type.problem(f"must be component, not {type.value!r}: a job calls a component"))
        self._change(fields, "depends_on", lambda ids: ids.with_value([ids]) if isinstance(ids.value, str) else ids)
        return node.with_value(fields)

    # Editing ----------------------------------------------------------------------------------------------------------

    def _renamed(self, fields: dict[str, Node], kind: type[Form]) -> dict[str, Node]:
        renamed: dict[str, Node] = {}
        for key, child in fields.items():
            self._put(renamed, SAME_KEYS.get(kind, {}).get(key, key), child)
        return renamed

    def _put(self, fields: dict[str, Node], key: str, node: Node) -> None:
        """Add a key that was spelled differently; a later file's value counts, a file's own second one is a problem."""
        there = fields.get(key)
        if there is None:
            fields[key] = node
        elif there.key.order == node.key.order:
            message = f"says the same as '{there.path}' on line {there.key.line}; leave one of them out"
            self.problems.append(node.problem(message, at_key=True))
        else:
            earlier, later = sorted((there, node), key=lambda each: each.key.order)
            fields[key] = merge(earlier, later, key)

    @staticmethod
    def _change(fields: dict[str, Node], key: str, change: Change) -> None:
        if key in fields:
            fields[key] = change(fields[key])

    @staticmethod
    def _change_each(fields: dict[str, Node], key: str, change: Change) -> None:
        if key in fields and isinstance(fields[key].value, list):
            fields[key] = fields[key].with_value([change(item) for item in fields[key].items])


def _given(node: Node, kind: type[Form]) -> dict[str, Node]:
    """The mapping's keys without those that are known and left empty."""
    known = known_keys(kind)
    return {key: child for key, child in node.fields.items() if child.value is not None or key not in known}


def _of_actions(kind: Kind) -> set[str]:
    """The keys that say something of an action when they stand on a component."""
    kinds = (ChatAction, TextAction, Params) if issubclass(kind.action, ChatAction | TextAction) else (kind.action,)
    keys = {key for each in kinds for key in (*each.model_fields, *SAME_KEYS.get(each, ()))}
    return keys - set(kind.component.model_fields) - {"id"}


def _driver(node: Node) -> Node:
    return node.with_value("transformers") if node.text == "huggingface" else node


def _listed(node: Node) -> Node:
    return node.with_value([node]) if isinstance(node.value, str) else node


def _is_text(fields: dict[str, Node], key: str) -> bool:
    return key in fields and isinstance(fields[key].value, str)


def _served(node: Node) -> Node:
    """Whatever a server calls its model; it need not be a hub id."""
    return node.with_value({"provider": node.with_value("huggingface"), "repository": node})


def _environment(node: Node) -> Node:
    """A list of NAME=VALUE as a mapping."""
    items = node.items
    if not items or not all("=" in item.text for item in items):
        return node
    pairs = [(item, *item.text.partition("=")) for item in items]
    return node.with_value({name: item.with_value(value) for item, name, _, value in pairs})


def _retry(node: Node) -> Node:
    """A number of attempts."""
    is_number = isinstance(node.value, int) and not isinstance(node.value, bool)
    return node.with_value({"attempts": node}) if is_number else node


def _commands(node: Node) -> Node:
    """A list of commands: texts for the shell, lists of words to run as they stand."""
    items = node.items
    if not isinstance(node.value, list):
        return node.with_value([node])
    if any(isinstance(item.value, list) for item in items) or len(items) == 1 or _is_line(items[:1]):
        return node.with_value([_command(item) for item in items])
    return node.with_value([_command(node)]) if items else node


def _command(node: Node) -> Node:
    """A list whose only item is a whole command line is that line; numbers among words are words."""
    if not isinstance(node.value, list):
        return node
    if len(node.items) == 1 and _is_line(node.items):
        return node.items[0]
    return node.with_value([_word(item) for item in node.items])


def _is_line(items: Iterable[Node]) -> bool:
    return any(len(item.text.split()) > 1 for item in items)


def _word(node: Node) -> Node:
    match node.value:
        case bool():
            return node.with_value(str(node.value).lower())
        case int() | float():
            return node.with_value(str(node.value))
        case _:
            return node


_MORE_KEYS: dict[type[Form], tuple[str, ...]] = {
    ComposeFile: ("component", "workflow"),
    Controller: ("adapter", "adapters"),
    Workflow: ("job", *OF_THE_ONLY_JOB[2:]),
    Job: ("type",),
    Lifecycle: ("scripts",),
}
for _kind in KINDS.values():
    _MORE_KEYS[_kind.component] = ("action", *sorted(_of_actions(_kind)))
_MORE_KEYS[HttpServerComponent] += tuple(Lifecycle.model_fields)
