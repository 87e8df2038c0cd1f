"""From an OpenAI request to a workflow's input. Pure.

The scope of `openai.input` is `messages`, `prompt`, `request` (every field of the body), and two of those fields by
themselves: `input` and `metadata`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ..adapters.base import (
    ChoiceConstraint,
    Constraint,
    GenerationRequest,
    GrammarConstraint,
    JsonConstraint,
    Message,
    NamedTool,
    RegexConstraint,
    Sampling,
)
from ..adapters.errors import UnsupportedParameter
from .given import respelled
from .inputs import Input
from .references import render_deep
from .schema import Workflow

_NOT_PARAMETERS = ("model", "messages", "prompt", "input", "metadata")
_LAST_TURN = ("prompt", "user_prompt")


def input_of(workflow: Workflow, inputs: Sequence[Input], request: GenerationRequest) -> dict[str, Any]:
    """The workflow's input as the request gives it; what is missing is left out.

    An explicit mapping comes first, then the body's `input` object, then its `metadata`. Without a mapping the inputs
    have their meaning from their names.
    """
    body = body_of(request)
    names = frozenset(each.name for each in inputs)
    extra = request.extra.get("input")
    metadata = request.extra.get("metadata")
    given = _present(respelled(extra, names)) if isinstance(extra, Mapping) else {}
    noted = _present(respelled(metadata, names)) if isinstance(metadata, Mapping) else {}
    noted = {name: value for name, value in noted.items() if name in names}
    if workflow.openai.input is None:
        return _by_name(inputs, body, {**noted, **given})
    mapped = render_deep(workflow.openai.input, scope_of(request, body))
    return {**noted, **given, **(_present(mapped) if isinstance(mapped, Mapping) else {})}


def scope_of(request: GenerationRequest, body: Mapping[str, Any]) -> dict[str, Any]:
    """What the templates of `openai.input` see."""
    return {
        "messages": body["messages"],
        "prompt": body["prompt"],
        "request": body,
        "input": request.extra.get("input"),
        "metadata": request.extra.get("metadata"),
    }


def taken_by(workflow: Workflow, inputs: Sequence[Input], request: GenerationRequest) -> frozenset[str]:
    """The request's parameters that reach the workflow as inputs, so that nothing else has to honour them."""
    if workflow.openai.input is not None:
        return frozenset()
    return frozenset(each.name for each in inputs) & body_of(request).keys() - set(_NOT_PARAMETERS)


def body_of(request: GenerationRequest) -> dict[str, Any]:
    """The request's fields in OpenAI's words; those that were not given are not there.

    `messages` and `prompt` are always: of a text completion the prompt is a user's only message, of a chat the prompt
    is the last of the user's messages.
    """
    return {
        **request.extra,
        **_sampling_fields(request.sampling),
        **_fields(request),
        "model": request.model,
        "messages": messages_of(request),
        "prompt": _last_turn(messages_of(request)),
    }


def messages_of(request: GenerationRequest) -> list[Message]:
    """The conversation, contents that are lists of nothing but texts as one text."""
    if request.is_chat:
        return [_plain(message) for message in request.messages]
    if not all(isinstance(prompt, str) for prompt in request.prompts):
        raise UnsupportedParameter.named("prompt", "a workflow needs text, not token ids.")
    return [{"role": "user", "content": prompt} for prompt in request.prompts]


def _by_name(inputs: Sequence[Input], body: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs that have a meaning by their name, under what is given anyway."""
    messages: list[Message] = body["messages"]
    known = {
        **{name: value for name, value in body.items() if name not in _NOT_PARAMETERS},
        "messages": messages,
        "system_prompt": _system_prompt(messages),
        "conversation_history": _earlier_turns(messages),
    }
    wanted = {each.name: known.get(each.name.replace("-", "_")) for each in inputs}
    filled = {**_present(wanted), **given}
    left = [each for each in inputs if each.name not in filled]
    named = [each for each in left if each.name.replace("-", "_") in _LAST_TURN]
    without_default = [each for each in left if each.default is None]
    required = [each for each in left if each.required]
    turn = named or next((some for some in (without_default, required) if len(some) == 1), [])
    said = body["prompt"]
    return filled if said is None else {**filled, **{each.name: said for each in turn}}


def _present(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _plain(message: Message) -> Message:
    content = message.get("content")
    if isinstance(content, list) and all(part.get("type") == "text" for part in content):
        return {**message, "content": "\n".join(part.get("text", "") for part in content)}
    return message


def _system_prompt(messages: Sequence[Message]) -> str | None:
    texts = [message.get("content") for message in messages if message["role"] in ("system", "developer")]
    return "\n\n".join(text for text in texts if isinstance(text, str) and text) or None


def _last_turn(messages: Sequence[Message]) -> Any:
    return next((message.get("content") for message in reversed(messages) if message["role"] == "user"), None)


def _earlier_turns(messages: Sequence[Message]) -> list[dict[str, Any]] | None:
    """What was said before the last message of the user, each with the answer to it."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message["role"] == "user":
            turns.append({"content": message.get("content"), "response": None})
        elif message["role"] == "assistant" and turns and message.get("content"):
            said = turns[-1]["response"]
            turns[-1]["response"] = message["content"] if said is None else f"{said}\n{message['content']}"
    return turns[:-1] or None


def _sampling_fields(sampling: Sampling) -> dict[str, Any]:
    """The fields that say something else than the default."""
    defaults = Sampling()
    fields = {name: getattr(sampling, name) for name in Sampling.__struct_fields__}
    fields = {name: value for name, value in fields.items() if value != getattr(defaults, name)}
    if "stop" in fields:
        fields["stop"] = list(fields["stop"])
    if "max_tokens" in fields:
        fields["max_completion_tokens"] = fields["max_output_length"] = fields["max_tokens"]
    return fields


def _fields(request: GenerationRequest) -> dict[str, Any]:
    fields = {
        "tools": list(request.tools) or None,
        "tool_choice": _tool_choice(request) if request.tools else None,
        "response_format": None if request.constraint is None else _response_format(request.constraint),
        "reasoning_effort": request.reasoning_effort,
        "chat_template_kwargs": request.chat_template_kwargs or None,
        "n": request.n if request.n > 1 else None,
        "logprobs": request.logprobs,
        "echo": request.echo or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _tool_choice(request: GenerationRequest) -> Any:
    choice = request.tool_choice
    return {"type": "function", "function": {"name": choice.name}} if isinstance(choice, NamedTool) else choice


def _response_format(constraint: Constraint) -> dict[str, Any]:
    match constraint:
        case JsonConstraint(schema=None):
            return {"type": "json_object"}
        case JsonConstraint(schema=schema):
            return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
        case RegexConstraint(pattern=pattern):
            return {"type": "regex", "regex": pattern}
        case ChoiceConstraint(choices=choices):
            return {"type": "choice", "choice": list(choices)}
        case GrammarConstraint(grammar=grammar):
            return {"type": "grammar", "grammar": grammar}


def single(request: GenerationRequest) -> list[GenerationRequest]:
    """One request for each prompt; a workflow answers them one by one."""
    if len(request.prompts) <= 1:
        return [request]
    return [msgspec.structs.replace(request, prompts=(prompt,)) for prompt in request.prompts]
