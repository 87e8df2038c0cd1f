"""What a caller gives as input: in the spelling that the workflow reads, and with nothing missing. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..adapters.errors import InvalidRequest
from .inputs import Input
from .references import as_text


def accepted(workflow: str, inputs: Sequence[Input], given: Any) -> Any:
    """`given` as the workflow of that id reads it; raises InvalidRequest naming what is missing."""
    if isinstance(given, Mapping):
        given = respelled(given, frozenset(each.name for each in inputs))
    required = [each.name for each in inputs if each.required]
    if required and not isinstance(given, Mapping):
        raise InvalidRequest(
            f"the input of workflow '{workflow}' must be an object with {_named(required)}, not "
            f"{as_text(given)[:80]!r}",
            param="input",
        )
    if missing := [name for name in required if given.get(name) is None]:
        raise InvalidRequest(f"workflow '{workflow}' needs the input {_named(missing)}", param=missing[0])
    return given


def laid_over(given: Any, made: Any) -> Any:
    """What a workflow's or its only job's `input` makes, and what it does not name as it was given."""
    return {**given, **made} if isinstance(given, Mapping) and isinstance(made, Mapping) else made


def respelled(given: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    """`given` with `system-prompt` as `system_prompt`, or the other way round, where only that one is read."""
    return {_respelled(name, given, names): value for name, value in given.items()}


def _respelled(name: str, given: Mapping[str, Any], names: frozenset[str]) -> str:
    if name in names:
        return name
    for other in (name.replace("-", "_"), name.replace("_", "-")):
        if other in names and other not in given:
            return other
    return name


def _named(names: list[str]) -> str:
    return " and ".join(f"'{name}'" for name in names)
