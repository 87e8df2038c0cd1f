"""Parsing every text of a compose file, and putting the environment's values where `${env.NAME}` stands.

A value is a literal piece of its template: it is never parsed, and never becomes more than one value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from .references import (
    CastError,
    Default,
    Each,
    Reference,
    ReferenceSyntaxError,
    Template,
    as_text,
    mapped,
    parse,
    references_in,
    resolve,
)
from .schema import Verbatim
from .tree import Node, Problem, suggestion


def with_environment(node: Node, env: Mapping[str, str], problems: list[Problem]) -> Node:
    """The tree with its texts parsed: each a text, a `Verbatim` text, or a `Template` without `env`."""
    match node.value:
        case dict():
            return node.with_value({key: with_environment(child, env, problems) for key, child in node.value.items()})
        case list():
            return node.with_value([with_environment(child, env, problems) for child in node.value])
        case str() if "${" in node.value:
            try:
                environment = _Environment(env)
                value = environment.value(parse(node.value))
            except ReferenceSyntaxError as error:
                problems.append(node.problem(error.message + _hint(error)))
                return node.with_value(Verbatim(node.value))
            problems += map(node.problem, environment.faults)
            return node.with_value(value if value is not None or not environment.faults else Verbatim(""))
        case _:
            return node


class _Environment:
    """Replaces the references to `env` in a template; `faults` are those that have no value."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = env
        self.faults: list[str] = []

    def value(self, template: Template) -> Any:
        """The template without `env`; what that leaves, if it leaves no reference."""
        if (only := template.only) is not None and only.root == "env":
            return self._alone(only)
        replaced = self._template(template)
        if all(isinstance(part, str) for part in replaced.parts):
            return Verbatim("".join(part for part in replaced.parts if isinstance(part, str)))
        return replaced

    def _alone(self, reference: Reference) -> Any:
        value = self._resolved(reference)
        match value:
            case str():
                return Verbatim(value)
            case dict() | list():
                # A default is the one part of a template that can hold such a value.
                return Template((Reference("env", default=Default(literal=value)),))
            case _:
                return value

    def _template(self, template: Template) -> Template:
        parts: list[str | Reference] = []
        for part in template.parts:
            new = part if isinstance(part, str) else self._part(part)
            if isinstance(new, str) and parts and isinstance(parts[-1], str):
                parts[-1] += new
            else:
                parts.append(new)
        return Template(tuple(parts))

    def _part(self, reference: Reference) -> str | Reference:
        if reference.root == "env":
            return as_text(self._resolved(reference))
        steps = tuple(self._step(step) for step in reference.steps)
        default = reference.default
        if default is not None and default.template is not None:
            value = self.value(default.template)
            default = Default(template=value) if isinstance(value, Template) else Default(literal=_bare(value))
        elif default is not None:
            default = Default(literal=self._literal(default.literal))
        return replace(reference, steps=steps, default=default)

    def _literal(self, value: Any) -> Any:
        """A JSON default without `env`."""
        return mapped(value, lambda leaf: _bare(self.value(leaf)) if isinstance(leaf, Template) else leaf)

    def _step(self, step: str | int | Reference | Each) -> str | int | Reference | Each:
        if not isinstance(step, Reference):
            return step
        value = self.value(Template((step,)))
        if isinstance(value, Template):
            return value.only or step
        return value if isinstance(value, int) else str(value)

    def _resolved(self, reference: Reference) -> Any:
        if len(reference.steps) != 1 or not isinstance(name := reference.steps[0], str):
            return self._fault(f"'{reference.path}' is no variable; write ${{env.NAME}}")
        default = reference.default
        if name not in self.env and default is None:
            hint = suggestion(name, self.env, list_all=False)
            hint = hint or f"; set it, here or in .env, or give a default: ${{env.{name} | ...}}"
            return self._fault(f"the environment variable '{name}' is not set{hint}")
        if name not in self.env and default is not None and default.template is not None:
            if (only := default.template.only) is not None and only.root == "env":
                return self._resolved(replace(only, cast=reference.cast or only.cast))
            value = self.value(default.template)
            if isinstance(value, Template):
                return self._fault(f"the default of '{name}' may refer to nothing but env")
            reference = replace(reference, default=Default(literal=_bare(value)))
        elif default is not None and name not in self.env:
            literal = self._literal(default.literal)
            if any(references_in(literal)):
                return self._fault(f"the default of '{name}' may refer to nothing but env")
            reference = replace(reference, default=Default(literal=literal))
        try:
            return resolve(reference, {"env": self.env})
        except CastError as error:
            return self._fault(error.message)

    def _fault(self, message: str) -> None:
        self.faults.append(message)


def _bare(value: Any) -> Any:
    return str(value) if isinstance(value, Verbatim) else value


def _hint(error: ReferenceSyntaxError) -> str:
    if "no closing" in error.message:
        return "\n    (an unquoted text ends at ' #'; if there is one, put the whole text in quotes)"
    return "\n    (for a literal '${' write '\\${')" if error.message.startswith("expected") else ""
