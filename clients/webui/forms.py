"""The form of a workflow: fields made of its inputs, and the input made of what is in them. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from ...adapters.runs import InputCard

Kind = Literal["text", "number", "check", "choice", "json"]

_KINDS: dict[str, Kind] = {
    "number": "number",
    "integer": "number",
    "boolean": "check",
    "json": "json",
    "list": "json",
    "object": "json",
}
_YES_OR_NO = (("yes", "true"), ("no", "false"))
_JSON_TYPES = {"list": list, "object": dict}


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """A field: `label` and `help` are for people, `hint` stands in it while it is empty, `start` is in it at first."""

    name: str
    kind: Kind
    type: str
    label: str
    help: str | None = None
    hint: str | None = None
    start: Any = None
    required: bool = False
    choices: tuple[tuple[str, str], ...] = ()


class WrongInput(Exception):
    """What is in the form cannot be an input, or something is missing; the text says where."""


def fields(inputs: Sequence[InputCard]) -> list[Field]:
    """A field for each input, in their order."""
    return [_field(each) for each in inputs]


def _field(card: InputCard) -> Field:
    kind = _KINDS.get(card.type, "text")
    start: Any = None
    if kind == "check":
        # A check box is always one or the other, so what may be left open is a choice of three.
        if isinstance(card.default, bool):
            start = card.default
        else:
            kind, start = "choice", ""
    return Field(
        name=card.name,
        kind=kind,
        type=card.type,
        label=readable(card.name) + (" (required)" if card.required else ""),
        help=card.description,
        hint=_hint(card),
        start=start,
        required=card.required,
        choices=(("please choose" if card.required else "leave open", ""), *_YES_OR_NO) if kind == "choice" else (),
    )


def _hint(card: InputCard) -> str | None:
    if card.default is None:
        return None
    return card.default if isinstance(card.default, str) else json.dumps(card.default, ensure_ascii=False)


def readable(name: str) -> str:
    """A name as a heading has it: `system_prompt` is System prompt."""
    words = name.replace("_", " ").replace("-", " ").strip()
    return words[:1].upper() + words[1:]


def given(fields: Sequence[Field], values: Sequence[Any]) -> dict[str, Any]:
    """The input of a run; what is left empty is left out. Raises WrongInput."""
    found = {}
    missing = []
    for field, value in zip(fields, values, strict=True):
        if value is None or (isinstance(value, str) and not value.strip()):
            if field.required:
                missing.append(field.label.removesuffix(" (required)"))
        else:
            found[field.name] = _value(field, value)
    if missing:
        raise WrongInput(f"Please fill in: {', '.join(missing)}")
    return found


def _value(field: Field, value: Any) -> Any:
    if field.kind == "json":
        return _json_value(field, value)
    if field.kind == "choice":
        return value == "true"
    if field.kind == "number" and field.type == "integer":
        if value != int(value):
            raise WrongInput(f"{readable(field.name)} has to be a whole number")
        return int(value)
    return value


def _json_value(field: Field, value: str) -> Any:
    try:
        found = json.loads(value)
    except ValueError as error:
        if field.type == "json":
            return value  # a plain text is the commonest JSON there is
        raise WrongInput(f"{readable(field.name)} has to be JSON: {error}") from None
    wanted = _JSON_TYPES.get(field.type)
    if wanted is not None and not isinstance(found, wanted):
        raise WrongInput(f"{readable(field.name)} has to be a JSON {'list' if wanted is list else 'object'}")
    return found
