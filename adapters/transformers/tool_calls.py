"""The text of one tool-call region -> calls, their arguments as they come. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from transformers.utils.chat_parsing.content_parsers import process_field
from transformers.utils.chat_parsing.response_templates import ResponseTemplateField

from ..base import Tool

# The beginning of a call in JSON, up to where its arguments begin.
CALL_BEGINS = re.compile(
    r'\s*\[?\s*\{\s*(?:"type"\s*:\s*"function"\s*,\s*)?"name"\s*:\s*"(?P<name>[^"\\]+)"\s*,'
    r'\s*"(?:arguments|parameters)"\s*:\s*(?=\{)'
)
ARGUMENTS_BEGIN = re.compile(r"\s*(?=\{)")
BETWEEN_CALLS = " \t\r\n;,"


class CallPiece(NamedTuple):
    """A piece of a call; a `name` begins the next one."""

    name: str
    arguments: str


class JsonSpan:
    """Finds where a JSON object ends in text that comes in pieces."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = self._escaped = False
        self.is_complete = False

    def feed(self, text: str) -> str:
        """The part of `text` that belongs to the object."""
        for place, character in enumerate(text):
            if self.is_complete:
                return text[:place]
            self._step(character)
        return text

    def _step(self, character: str) -> None:
        if self._in_string:
            if self._escaped:
                self._escaped = False
            elif character == "\\":
                self._escaped = True
            elif character == '"':
                self._in_string = False
        elif character == '"':
            self._in_string = True
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            self._depth -= 1
            self.is_complete = self._depth <= 0


class ToolCallReader:
    """Reads one region. The first call's arguments are handed on as they come if they are JSON for a tool on offer.

    `is_marked`: the region began with a mark; without one, only a call of a tool on offer is a call.
    """

    def __init__(
        self,
        field: ResponseTemplateField,
        captures: Mapping[str, str],
        tools: Iterable[Tool],
        *,
        is_marked: bool = True,
    ) -> None:
        self._field = field
        self._is_marked = is_marked
        self._captures = dict(captures)
        self._parameters = {str(tool["function"]["name"]): tool["function"].get("parameters") or {} for tool in tools}
        self._body = ""
        self._unread = ""
        self._span: JsonSpan | None = None
        self._can_stream = field.content == "json" and not field.content_args

    def feed(self, text: str) -> list[CallPiece]:
        """What is certain already."""
        self._body += text
        if not self._can_stream:
            return []
        self._unread += text
        name = "" if self._span is not None else self._begun()
        if self._span is None:
            return []
        arguments, self._unread = self._span.feed(self._unread), ""
        return [CallPiece(name, arguments)] if name or arguments else []

    def finish(self) -> list[CallPiece]:
        """The rest, now that the region is over; raises ValueError if it holds no call and none was begun."""
        has_begun = self._span is not None
        try:
            calls = self._calls()
        except (ValueError, KeyError, TypeError, IndexError, RecursionError):
            if has_begun:
                return []  # what the model wrote of the arguments is out already
            raise ValueError(f"not a tool call: {self._body!r}") from None
        return [CallPiece(*call) for call in calls[has_begun:]]

    def _begun(self) -> str:
        """The name of the call whose arguments begin in the text so far; they are what is then unread."""
        name = self._captures.get("name")
        begins = (CALL_BEGINS if name is None else ARGUMENTS_BEGIN).match(self._unread)
        if begins is None:
            return ""
        name = str(begins["name"]) if name is None else name
        if name not in self._parameters:
            self._can_stream = False
            return ""
        self._unread = self._unread[begins.end() :]
        self._span = JsonSpan()
        return name

    def _calls(self) -> list[tuple[str, str]]:
        """The name and the arguments of every call in the region."""
        if self._field.content == "json" and not self._field.content_args and "name" not in self._captures:
            return [self._call(value) for value in _json_values(self._body)]
        value = process_field(self._body, self._field, self._captures)
        return [self._call(item) for item in (value if isinstance(value, list) else [value])]

    def _call(self, value: Any) -> tuple[str, str]:
        call = value.get("function", value) if isinstance(value, dict) else value
        if isinstance(call, str):  # some write {"function": "name", "arguments": {}}
            call = value
        name = call.get("name") or call["function"]
        if not isinstance(name, str) or not (self._is_marked or name in self._parameters):
            raise TypeError(f"{name!r} is no tool's name")
        arguments = call.get("arguments", call.get("parameters"))
        if isinstance(arguments, str):
            arguments = json.loads(arguments)
        if arguments is None:
            arguments = {}
        if not isinstance(arguments, dict):
            raise TypeError(f"arguments must be an object, not {arguments!r}")
        if self._field.content != "json":
            arguments = _typed(arguments, self._parameters.get(name, {}))
        return name, json.dumps(arguments, ensure_ascii=False)


def _json_values(text: str) -> list[Any]:
    """The JSON objects in a text, one after the other or in a list; a brace too many at its end is forgiven."""
    values: list[Any] = []
    text = text.strip(BETWEEN_CALLS)
    while text.strip("}" + BETWEEN_CALLS) or not values:
        value, end = json.JSONDecoder().raw_decode(text)
        values += value if isinstance(value, list) else [value]
        text = text[end:].strip(BETWEEN_CALLS)
    return values


def _typed(arguments: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that came as text, in the types that the tool's schema asks for."""
    properties = parameters.get("properties") or {}
    return {name: _value(text, properties.get(name)) for name, text in arguments.items()}


def _value(text: Any, schema: Any) -> Any:
    types = schema.get("type") if isinstance(schema, dict) else None
    if not isinstance(text, str) or types is None or "string" in types:
        return text
    if "boolean" in types and text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return json.loads(text)
    except ValueError:
        return text
