"""A spelled tree becomes a `ComposeFile`; what does not fit is said in plain words, at its place in the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from msgspec.structs import replace
from pydantic import ValidationError

from .references import Template
from .schema import (
    BaseModelComponent,
    BundledModel,
    ChatAction,
    Component,
    ComposeFile,
    Controller,
    Form,
    HubModel,
    Job,
    Lifecycle,
    LocalModel,
    NamedModel,
    OpenAIFace,
    Params,
    Retry,
    TextAction,
    VllmServer,
    WebUI,
    Workflow,
)
from .spellings import KINDS, TASKS, TYPES, kind_of, known_keys
from .tree import Node, Problem, find, joined, plain, suggestion

F = TypeVar("F", bound=Form)


class Reading(NamedTuple):
    """What could be read of a file: its components and workflows by their number in it.

    `left_out` holds the paths, as the file has them, of what does not fit; in the place of a job or an action of which
    nothing could be read there is an empty one. `torn` are the numbers of the components that something is missing of.
    """

    file: ComposeFile
    components: dict[int, Component]
    workflows: dict[int, Workflow]
    left_out: frozenset[str]
    torn: frozenset[int]


class Read(NamedTuple, Generic[F]):
    """One part of a file, and the paths of what had to be left out of it."""

    form: F
    left_out: list[str]


def read_file(root: Node, problems: list[Problem]) -> Reading:
    """The forms of the tree, and problems for all that is not one."""
    fields = root.fields
    components = dict(_each(fields, "components", _component, problems))
    workflows = dict(_each(fields, "workflows", _workflow, problems))
    rest = root.with_value({key: child for key, child in fields.items() if key not in ("components", "workflows")})
    read = _form(rest, ComposeFile, problems)
    forms = {number: read.form for number, read in components.items()}
    flows = {number: read.form for number, read in workflows.items()}
    parts = {"components": tuple(forms.values()), "workflows": tuple(flows.values())}
    file = (read.form if read else ComposeFile()).model_copy(update=parts)
    left_out = [path for read in (*components.values(), *workflows.values()) for path in read.left_out]
    torn = frozenset(number for number, read in components.items() if read.left_out)
    return Reading(file, forms, flows, frozenset(left_out), torn)


def _each(fields: Mapping[str, Node], key: str, read: Any, problems: list[Problem]) -> Iterator[tuple[int, Any]]:
    node = fields.get(key)
    if node is not None and not isinstance(node.value, list) and not _is_reported(node, problems):
        problems.append(node.problem(f"must be a list, not {_shown(node.value)}; one of them goes under '{key[:-1]}'"))
    for number, item in enumerate(node.items if node else ()):
        if (form := read(item, problems)) is not None:
            yield number, form


def _component(node: Node, problems: list[Problem]) -> Read[Any] | None:
    kind = kind_of(node)
    if kind is not None:
        return _form(node, kind.component, problems)
    if not isinstance(node.value, dict):
        if not _is_reported(node, problems):
            problems.append(node.problem(f"must be a mapping, not {_shown(node.value)}"))
        return None
    key, choices = ("task", TASKS) if node.fields.get("type", node).text == "model" else ("type", TYPES)
    if (given := node.fields.get(key)) is None:
        problems.append(Problem(node.place, joined(node.path, key), f"is missing: {_alternatives(choices)}"))
    elif not _is_reported(given, problems):
        near = suggestion(given.text, choices, list_all=False)
        problems.append(given.problem(f"must be {_alternatives(choices)}, not {_shown(given.value)}{near}"))
    return None


def _workflow(node: Node, problems: list[Problem]) -> Read[Any] | None:
    return _form(node, Workflow, problems)


def _form(root: Node, form: type[F], problems: list[Problem]) -> Read[F] | None:
    """The node as a form without the keys that do not fit, or nothing if it is none without them.

    Each of those is a problem, unless it is reported already or comes of another one's absence.
    """
    left_out: list[str] = []
    node = root
    while True:
        try:
            return Read(form.model_validate(plain(node)), left_out)
        except ValidationError as error:
            # A template was not meant, if anything else would have done too.
            mistakes = sorted(error.errors(include_url=False), key=lambda each: each["type"] == "is_instance_of")
            _report([_problem(node, each, form) for each in mistakes], left_out, problems)
            wrong = {id(_descend(node, each["loc"])[0]) for each in mistakes}
            rest = _without(node, wrong, left_out)
            if rest is None:
                return None
            node = rest


def _report(found: list[Problem], left_out: list[str], problems: list[Problem]) -> None:
    reported = reported_in(problems)
    new: dict[tuple[str, str], list[Problem]] = {}
    for problem in found:
        if not any(_holds(problem.path, path) for path in left_out):
            new.setdefault((problem.place.file, problem.path), []).append(problem)
    # A list of which an item is wrong is also not the text that could stand for it.
    new = {where: each for where, each in new.items() if not (_is_of_container(each) and _leads_to_any(where, new))}
    problems += [_one(each) for where, each in new.items() if where not in reported]


def reported_in(problems: Iterable[Problem]) -> set[tuple[str, str]]:
    """The files and paths of which something is said."""
    return {(problem.place.file, problem.path) for problem in problems}


def _is_reported(node: Node, problems: list[Problem]) -> bool:
    return (node.place.file, node.path) in reported_in(problems)


def _is_of_container(problems: list[Problem]) -> bool:
    return problems[0].message.endswith((", not a list", ", not a mapping"))


def _leads_to_any(where: tuple[str, str], others: Iterable[tuple[str, str]]) -> bool:
    return any(where != other and where[0] == other[0] and _holds(where[1], other[1]) for other in others)


def _holds(path: str, other: str) -> bool:
    """Whether a path is another one or leads to it."""
    return path == other or other.startswith((f"{path}.", f"{path}["))


def _without(node: Node, wrong: set[int], left_out: list[str], key: str = "") -> Node | None:
    """The node without what is wrong and the keys of lists that hold it; nothing, if what is left says nothing."""
    if id(node) in wrong:
        return None
    match node.value:
        case dict():
            fields = {key: _without(child, wrong, left_out, key) for key, child in node.value.items()}
            absent = [key for key, child in fields.items() if child is None]
            left_out += [node.value[key].path for key in absent]
            if _ESSENTIAL.intersection(absent):
                return None
            return node.with_value({key: child for key, child in fields.items() if child is not None})
        case list():
            items = [_without(child, wrong, left_out) for child in node.value]
            if key in _WITH_BLANKS:
                blanks = [(child, child.with_value({})) for child in node.value]
                left_out += [child.path for (child, _), item in zip(blanks, items, strict=True) if item is None]
                items = [blank if item is None else item for (_, blank), item in zip(blanks, items, strict=True)]
            return None if None in items else node.with_value(items)
        case _:
            return node


def _one(problems: list[Problem]) -> Problem:
    """Of the problems that one value has with the branches of a union, the first, or what they come to together."""
    texts = [problem for problem in problems if problem.message.startswith("must be text,")]
    if texts and any(problem.message.startswith("must be a list,") for problem in problems):
        return replace(texts[0], message=texts[0].message.replace("must be text,", "must be text or a list,"))
    return problems[0]


def _problem(root: Node, details: Mapping[str, Any], form: type[Form]) -> Problem:
    loc = details["loc"]
    if details["type"] == "missing":
        node, _ = find(root, loc[:-1])
        return Problem(node.place, joined(node.path, str(loc[-1])), "is missing")
    if details["type"] == "extra_forbidden":
        node, _ = _descend(root, loc)
        return node.problem(_unknown(str(loc[-1]), _owner(loc, form)), at_key=True)
    if details["type"].startswith("union_tag"):
        return _provider(_descend(root, loc)[0], details.get("ctx", {}).get("expected_tags", ""))
    node, _ = _descend(root, loc)
    return node.problem(_words(details, node))


def _provider(node: Node, known: str) -> Problem:
    """What is wrong with a model that is of no kind."""
    given = node.fields.get("provider")
    if given is not None:
        return given.problem(f"must be one of {known}")
    if isinstance(node.value, Template):
        return node.problem("no reference can stand here, but for ${env.NAME}")
    return node.problem("must say which model: with 'repository', 'path' or 'name'")


def _descend(root: Node, loc: tuple[int | str, ...]) -> tuple[Node, tuple[int | str, ...]]:
    """The node at a location of pydantic's, which names the branches of unions too."""
    node, left = find(root, loc)
    while left:
        node, left = find(node, left[1:])
    return node, left


def _owner(loc: tuple[int | str, ...], form: type[Form]) -> type[Form]:
    """The form in which there is no such key."""
    holders = [step for step in loc[:-1] if isinstance(step, str)]
    if not holders:
        return form
    actions: dict[type[Form], type[Form]] = {kind.component: kind.action for kind in KINDS.values()}
    if holders[-1] == "actions":
        return actions[form]
    if holders[-1] == "manage" and issubclass(form, BaseModelComponent):
        return VllmServer
    return _HOLDERS.get(holders[-1], form)


def _unknown(key: str, owner: type[Form]) -> str:
    if (owner, key) in _MISPLACED:
        return _MISPLACED[owner, key]
    if owner is ComposeFile:
        for form, what in _BELONGS.items():
            if key in known_keys(form):
                return f"unknown key; it belongs to a {what}"
    return f"unknown key{suggestion(key, known_keys(owner))}"


def _words(details: Mapping[str, Any], node: Node) -> str:
    """What is wrong with a value, as one would say it."""
    context: dict[str, Any] = details.get("ctx", {})
    name = details["type"]
    if isinstance(node.value, Template):
        return "no reference can stand here, but for ${env.NAME}"
    if name == "value_error":
        return str(context["error"])
    if name == "literal_error":
        return f"must be {_expected(context['expected'])}, not {_shown(node.value)}"
    if name in _LIMITS:
        limit, key = _LIMITS[name]
        return f"must be {limit} {context[key]}, not {_shown(node.value)}"
    for prefix, wanted in _WANTED.items():
        if name.startswith(prefix):
            return f"must be {wanted}, not {_shown(node.value)}{_quoting(wanted, node.value)}"
    message: str = details["msg"]
    return message[:1].lower() + message[1:]


def _expected(choices: str) -> str:
    return choices.replace("'", "")


def _quoting(wanted: str, value: Any) -> str:
    return "; put it in quotes" if wanted == "text" and isinstance(value, bool | int | float) else ""


def _alternatives(choices: tuple[str, ...]) -> str:
    return f"{', '.join(choices[:-1])} or {choices[-1]}"


def _shown(value: Any) -> str:
    match value:
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case str():
            return repr(str(value) if len(value) <= 60 else value[:57] + "...")
        case _:
            return str(value)


_ESSENTIAL = {"jobs", "actions"}
_WITH_BLANKS = ("jobs", "actions")
_HOLDERS: dict[str, type[Form]] = {
    "controller": Controller,
    "webui": WebUI,
    "params": Params,
    "manage": Lifecycle,
    "retry": Retry,
    "jobs": Job,
    "openai": OpenAIFace,
    "bundled": BundledModel,
    "huggingface": HubModel,
    "local": LocalModel,
    "server": NamedModel,
}
_BELONGS: dict[type[Form], str] = {
    Workflow: "workflow",
    **dict.fromkeys((kind.component for kind in KINDS.values()), "component"),
}
_LIMITS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "string_too_long": ("a text of a length of at most", "max_length"),
    "string_too_short": ("a text of a length of at least", "min_length"),
}
_WANTED = {
    "int_": "a whole number",
    "float_": "a number",
    "finite_number": "a number",
    "bool_": "true or false",
    "string_": "text",
    "tuple_": "a list",
    "list_": "a list",
    "dict_": "a mapping",
    "model_": "a mapping",
    "is_instance_of": "a template",
}
_MISPLACED: dict[tuple[type[Form], str], str] = {
    (TextAction, "messages"): "text-generation goes on with a 'prompt'; for messages use task: chat-completion",
    (ChatAction, "prompt"): "chat-completion answers 'messages'; for a prompt use task: text-generation",
    (ChatAction, "text"): "chat-completion answers 'messages'; for a text use task: text-generation",
}
