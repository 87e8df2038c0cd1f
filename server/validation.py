"""What pydantic finds wrong with a body, said in OpenAI's words: code, param, and a message of bounded size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ..adapters.errors import InvalidRequest

_ECHO = 200
"""How many characters of the client's own input a message repeats."""

_EXPECTED = {
    "string_type": "a string",
    "int_type": "an integer",
    "float_type": "a number",
    "bool_type": "a boolean",
    "list_type": "an array",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "int_from_float": "an integer",
}
_GOT = {
    type(None): "null",
    bool: "a boolean",
    str: "a string",
    int: "an integer",
    float: "a decimal",
    list: "an array",
    dict: "an object",
}


AnyBody = TypeVar("AnyBody", bound=BaseModel)


def parse(raw: bytes, kind: type[AnyBody]) -> AnyBody:
    """The body that `raw` is the JSON of; raises `InvalidRequest`."""
    if not raw:
        raise InvalidRequest("The body of the request is empty; it must be a JSON object.")
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"The body of the request is not valid JSON in UTF-8: {error}.") from error
    if not isinstance(body, dict):
        raise InvalidRequest(f"The body of the request must be a JSON object, but it is {_kind(body)}.")
    return validated(body, kind)


def validated(body: dict[str, Any], kind: type[AnyBody]) -> AnyBody:
    """The body that `body` is the plain form of; raises `InvalidRequest`."""
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise invalid_body(error, body) from None


def invalid_body(error: ValidationError, body: object) -> InvalidRequest:
    """The fault that lies deepest in `body`; of a union's branches that is the one the client most likely meant."""
    faults = error.errors(include_url=False)
    paths = [_path(fault, body) for fault in faults]
    deepest = max(range(len(faults)), key=lambda index: len(paths[index]))
    same_place = [fault for fault, path in zip(faults, paths, strict=True) if path == paths[deepest]]
    param = _param(paths[deepest])
    code, message = _describe(same_place, param)
    return InvalidRequest(message, param=param, code=code)


def echo(value: object) -> str:
    """A client's own value as a message may repeat it; arrays and objects are only named."""
    if isinstance(value, list | dict):
        return _kind(value)
    text = repr(value[:_ECHO] if isinstance(value, str) else value)
    return text if len(text) <= _ECHO else f"{text[:_ECHO]}..."


def _path(fault: ErrorDetails, body: object) -> list[str | int]:
    """Where in the client's own body the fault is: pydantic's location without the names of union branches."""
    path: list[str | int] = []
    at: Any = body
    for step in fault["loc"]:
        match at:
            case dict() if step in at:
                at = at[step]
            case list() if isinstance(step, int) and step < len(at):
                at = at[step]
            case _:
                continue
        path.append(step)
    match fault:
        case {"type": "missing", "loc": [*_, str(name)]}:
            path.append(name)
        case {"type": "union_tag_invalid" | "union_tag_not_found", "ctx": {"discriminator": str(quoted)}}:
            path.append(quoted.strip("'"))
    return path


def _param(path: Sequence[str | int]) -> str | None:
    """`messages[0].content`; None for the body itself."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step[:64]}" for step in path[:16])
    return text.removeprefix(".") or None


def _describe(faults: Sequence[ErrorDetails], param: str | None) -> tuple[str, str]:
    """The code and the message for faults of one place."""
    fault = faults[0]
    context: dict[str, Any] = fault.get("ctx", {})
    got = fault["input"]
    match fault["type"]:
        case "missing" | "union_tag_not_found":
            return "missing_required_parameter", f"Missing required parameter: '{param}'."
        case "extra_forbidden":
            return "unknown_parameter", f"Unknown parameter: '{param}'."
        case "literal_error":
            supported = context["expected"].replace(" or ", ", ")
            return "invalid_value", f"Invalid value for '{param}': {echo(got)}. Supported values are: {supported}."
        case "union_tag_invalid":
            tag, supported = echo(context["tag"]), context["expected_tags"]
            return "invalid_value", f"Invalid value for '{param}': {tag}. Supported values are: {supported}."
        case "less_than_equal" | "less_than" | "greater_than_equal" | "greater_than" as kind:
            return _out_of_range(kind, context, got, param)
        case "too_short" | "too_long" | "string_too_short" | "string_too_long" as kind:
            return _wrong_length(kind, context, got, param)
        case kind if kind in _EXPECTED or kind == "invalid_type":
            expected = " or ".join(dict.fromkeys(_EXPECTED.get(one["type"], one["msg"]) for one in faults))
            place = f"'{param}'" if param else "the body"
            return "invalid_type", f"Invalid type for {place}: expected {expected}, but got {_kind(got)} instead."
        case _:
            return "invalid_value", f"Invalid value for '{param}': {echo(got)}. {fault['msg'][:_ECHO]}."


def _out_of_range(kind: str, context: dict[str, Any], got: object, param: str | None) -> tuple[str, str]:
    sign = {"less_than_equal": "<=", "less_than": "<", "greater_than_equal": ">=", "greater_than": ">"}[kind]
    bound = next(iter(context.values()))
    number = "integer" if isinstance(bound, int) else "decimal"
    end, side = ("above_max", "above maximum") if kind.startswith("less") else ("below_min", "below minimum")
    wanted = f"{sign} {bound:g}" if isinstance(bound, float) else f"{sign} {bound}"
    message = f"Invalid '{param}': {number} {side} value. Expected a value {wanted}, but got {echo(got)} instead."
    return f"{number}_{end}_value", message


def _wrong_length(kind: str, context: dict[str, Any], got: object, param: str | None) -> tuple[str, str]:
    thing = "string" if kind.startswith("string") else "object" if isinstance(got, dict) else "array"
    length = len(got) if isinstance(got, str | list | dict) else 0
    if not length:
        return f"empty_{thing}", f"Invalid '{param}': the {thing} must not be empty."
    what, code, side = (
        (f"maximum length {context['max_length']}", "above_max_length", "too long")
        if kind.endswith("long")
        else (f"minimum length {context['min_length']}", "below_min_length", "too short")
    )
    return f"{thing}_{code}", f"Invalid '{param}': {thing} {side}. Expected {what}, but got length {length} instead."


def _kind(value: object) -> str:
    return _GOT.get(type(value), "something else")
