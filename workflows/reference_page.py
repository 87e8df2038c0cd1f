"""The reference of every key of a compose file, made from `schema.py` and `spellings.py`.

`python -m modelcompose.workflows.reference_page > docs/compose-file.md`
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal

from pydantic.fields import FieldInfo

from .references import TYPES, Template
from .schema import (
    BundledModel,
    ChatAction,
    ChatModelComponent,
    Commands,
    Component,
    ComposeFile,
    Controller,
    Form,
    HttpAction,
    HttpClientComponent,
    HttpServerComponent,
    HubModel,
    Job,
    Lifecycle,
    LocalModel,
    NamedModel,
    OpenAIFace,
    Params,
    Retry,
    ShellAction,
    ShellComponent,
    TextAction,
    TextModelComponent,
    VllmServer,
    WebUI,
    Workflow,
    WorkflowAction,
    WorkflowComponent,
    seconds,
    seconds_or_never,
    size,
)
from .spellings import SAME_KEYS

TITLES: dict[type[Form], str] = {
    ComposeFile: "The file",
    Controller: "controller",
    WebUI: "controller.webui",
    ChatModelComponent: "A model that answers messages",
    ChatAction: "An action of a model that answers messages",
    TextModelComponent: "A model that goes on with a text",
    TextAction: "An action of a model that goes on with a text",
    Params: "params",
    BundledModel: "model: the bundled one",
    HubModel: "model: from the Hugging Face hub",
    LocalModel: "model: in a folder",
    NamedModel: "model: of this server",
    VllmServer: "manage, of vLLM",
    HttpServerComponent: "A server that is run here",
    Lifecycle: "manage",
    HttpClientComponent: "A server that is only talked to",
    Retry: "retry",
    HttpAction: "An HTTP request",
    ShellComponent: "Commands",
    ShellAction: "A command",
    WorkflowComponent: "Other workflows",
    WorkflowAction: "A call of another workflow",
    Workflow: "A workflow",
    Job: "A job",
    OpenAIFace: "openai",
}
TOP = f"""# The compose file: every key

`docs/workflows.md` explains the file; this page lists its keys. It is made from the program's own schema, by
`python -m modelcompose.workflows.reference_page`, and a test keeps it so.

`component`, `workflow`, `job` and `action` stand for lists of one. The keys of a component's only action may stand on
the component itself, and `input`, `output`, `component`, `action` and `repeat_count` of a workflow's only job on the
workflow. Unknown keys are errors; `x-...` at the top is left alone.

A *template* is a text with references, `${{path as type | default @(description)}}`; the types are {", ".join(TYPES)}.
`${{env.NAME}}` may stand in any text. *Any* is any value, with templates in it.

Other spellings, which mean the same:

* the keys of `controller` under `controller.adapter`, or as the one item of `controller.adapters`;
* the keys of `manage` of a server that is run here on the component itself, or under `manage.scripts`;
* `type: component` or `type: action` in a job, which says nothing new;
* `driver: huggingface` for `transformers`; `max_concurrent_count: 0` on a component for no limit;
* one text where a list of texts is wanted (`depends_on`, `base_url`, `packages`, `stop_sequences`);
* `env` as a list of `NAME=VALUE`; `retry: 3` for `retry: {{attempts: 3}}`;
* `peft_adapters` as objects, `{{type: lora, model: ...}}`, for their models;
* `streaming` for `stream` in a `body` that goes to a path of OpenAI's;
* `as text;sse-text` and `as json;sse-json` for `as stream/text` and `as stream/json`.
"""
_PLAIN: dict[Any, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Any: "any",
    type(None): "nothing",
    Template: "template",
}

_QUANTITIES: dict[Any, str] = {
    seconds: "seconds, or a text such as `5m30s`",
    seconds_or_never: "seconds, a text such as `5m30s`, or `never`",
    size: "bytes, or a text such as `4GB`",
}


def page() -> str:
    """The whole page, in Markdown."""
    return "\n".join([TOP, *(line for form in TITLES for line in _section(form))])


def _section(form: type[Form]) -> Iterator[str]:
    also = {key: [same for same, to in SAME_KEYS.get(form, {}).items() if to == key] for key in form.model_fields}
    yield f"## {TITLES[form]}"
    yield ""
    yield (form.__doc__ or "").strip()
    yield ""
    yield "| key | value | if left out | |"
    yield "|---|---|---|---|"
    for name, field in form.model_fields.items():
        names = " ".join(f"`{each}`" for each in (name, *also[name]))
        notes = (field.description or "").replace("|", "\\|")
        yield f"| {names} | {_value(field)} | {_default(field)} | {notes} |"
    yield ""


def _value(field: FieldInfo) -> str:
    return _quantity(field.metadata) or _words(field.annotation) + _limits(field.metadata)


def _quantity(metadata: Any) -> str | None:
    """How a value that has a unit is written."""
    return next((words for each in metadata if (words := _QUANTITIES.get(getattr(each, "func", None)))), None)


def _words(annotation: Any) -> str:
    """A type as one would say it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _quantity(arguments[1:]) or _words(arguments[0]) + _limits(arguments[1:])
    if origin in (typing.Union, types.UnionType):
        several = [each for each in arguments if each is not type(None)]
        several.sort(key=lambda each: _words(each) == "template")
        return " or ".join(dict.fromkeys(map(_words, several)))
    if origin is Literal:
        return ", ".join(f"`{each}`" for each in arguments)
    if annotation == Commands:
        return "command (text for the shell, or a list of words), or a list of commands"
    if annotation == tuple[Component, ...]:
        return "list of components, of the kinds below"
    if origin in (tuple, list):
        return f"list of {_words(arguments[0])}"
    if origin is dict:
        return f"mapping of names to {_words(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, Form):
        return f"[{TITLES[annotation]}](#{_anchor(TITLES[annotation])})"
    return _PLAIN[annotation]


def _limits(metadata: Any) -> str:
    words = {"ge": "from", "gt": "more than", "le": "up to"}
    pieces: list[Any] = [piece for each in metadata for piece in (getattr(each, "metadata", None) or [each])]
    limits = [
        f"{word} {getattr(each, name)}"
        for each in pieces
        for name, word in words.items()
        if getattr(each, name, None) is not None
    ]
    return f" {' '.join(limits)}" if limits else ""


def _anchor(title: str) -> str:
    return "".join(each for each in title.lower().replace(" ", "-") if each.isalnum() or each == "-")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**needed**"
    match field.default:
        case None | () | {} | "":
            return ""
        case Form() | tuple():
            return "its defaults"
        case value:
            return f"`{json.dumps(value, default=str, ensure_ascii=False)}`".replace("|", "\\|")


if __name__ == "__main__":
    print(page(), end="")
