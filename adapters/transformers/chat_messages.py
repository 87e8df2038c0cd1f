"""OpenAI's messages in the shape that chat templates expect. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from ..base import Message, Tool
from ..errors import InvalidRequest, UnsupportedParameter

TEXT_PARTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
NO_PARAMETERS = {"type": "object", "properties": {}}

Shape = Callable[[list[Message]], list[Message]]


def normalised(messages: Sequence[Message], template: str, model: str) -> list[Message]:
    """The messages with texts for contents and objects for arguments, in roles that the template knows.

    Raises UnsupportedParameter, by the part's place, for anything that is not text.
    """
    return [_message(message, f"messages[{index}]", template, model) for index, message in enumerate(messages)]


def _message(message: Message, place: str, template: str, model: str) -> Message:
    plain = {key: value for key, value in message.items() if value is not None and value != []}
    plain["content"] = text_content(message.get("content"), f"{place}.content", model)
    if message["role"] == "developer" and "developer" not in template:
        plain["role"] = "system"
    if message["role"] == "function" and "function" not in template:
        plain["role"] = "tool"
    if "tool_calls" in plain:
        plain["tool_calls"] = [_tool_call(call) for call in plain["tool_calls"]]
    return plain


def text_content(content: Any, place: str, model: str) -> str:
    """The text of a message's content, which may be missing, a text or a list of parts."""
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(_part(part, f"{place}[{index}]", model) for index, part in enumerate(content))


def _part(part: Any, place: str, model: str) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, dict) else None
    text = part.get(TEXT_PARTS[kind]) if kind in TEXT_PARTS else None
    if not isinstance(text, str):
        raise UnsupportedParameter.named(place, f"{model} takes text only, and this is a part of the type {kind!r}")
    return text


def _tool_call(call: dict[str, Any]) -> dict[str, Any]:
    function = dict(call["function"])
    function["arguments"] = parsed_arguments(function.get("arguments"))
    return {**call, "type": "function", "function": function}


def parsed_arguments(arguments: Any) -> Any:
    """The arguments of a call as an object; what is no JSON object stays as it is."""
    if not isinstance(arguments, str):
        return {} if arguments is None else arguments
    try:
        parsed = json.loads(arguments) if arguments.strip() else {}
    except ValueError:
        return arguments
    return parsed if isinstance(parsed, dict) else arguments


def template_tools(tools: Sequence[Tool]) -> list[Tool]:
    """The tools, with parameters for those that take none: templates look for them."""
    return [
        {**tool, "function": {**tool["function"], "parameters": tool["function"].get("parameters") or NO_PARAMETERS}}
        for tool in tools
    ]


# Shapes for templates that refuse what OpenAI allows; each says the same in fewer roles than the one before.


def as_is(messages: list[Message]) -> list[Message]:
    """The messages themselves."""
    return messages


def one_system(messages: list[Message]) -> list[Message]:
    """One system message, at the beginning, with the texts of all."""
    system = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
    others = [message for message in messages if message["role"] != "system"]
    return [{"role": "system", "content": system}, *others] if system else others


def no_system(messages: list[Message]) -> list[Message]:
    """The system's text at the head of the first user message."""
    head, *others = one_system(messages) or [{"role": ""}]
    if head["role"] != "system":
        return messages
    for index, message in enumerate(others):
        if message["role"] == "user":
            joined = {**message, "content": f"{head['content']}\n\n{message['content']}"}
            return [*others[:index], joined, *others[index + 1 :]]
    return [{"role": "user", "content": head["content"]}, *others]


def alternating(messages: list[Message]) -> list[Message]:
    """No system message, and never two users or two assistants in a row."""
    shaped: list[Message] = []
    for role, group in groupby(no_system(messages), key=lambda message: str(message["role"])):
        turn = list(group)
        if role in ("user", "assistant") and not any("tool_calls" in message for message in turn):
            turn = [{**turn[0], "content": "\n\n".join(message["content"] for message in turn)}]
        shaped += turn
    return shaped


SHAPES: tuple[Shape, ...] = (as_is, one_system, no_system, alternating)


def text_arguments(messages: list[Message]) -> list[Message]:
    """The arguments of tool calls as JSON text again, for templates that join them to text."""
    return [
        {**message, "tool_calls": [_with_text(call) for call in message["tool_calls"]]}
        if "tool_calls" in message
        else message
        for message in messages
    ]


def _with_text(call: dict[str, Any]) -> dict[str, Any]:
    arguments = call["function"]["arguments"]
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {**call, "function": {**call["function"], "arguments": text}}


def refuse_role(message: Message, index: int) -> InvalidRequest:
    """The error for a message that a model without a chat template cannot be given."""
    return InvalidRequest(
        f"this model has no chat template, so a message of the role {message['role']!r} cannot be given to it",
        param=f"messages[{index}].role",
    )
