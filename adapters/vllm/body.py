"""From a `GenerationRequest` to the body that vLLM and OpenAI take. Pure.

What the request leaves open is left out, so that servers which know OpenAI's fields only take it too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from ..base import (
    ChoiceConstraint,
    Constraint,
    GenerationRequest,
    GrammarConstraint,
    JsonConstraint,
    NamedTool,
    RegexConstraint,
    Sampling,
)
from ..errors import UnsupportedParameter

_OF_THE_TEMPLATE = ("add_generation_prompt", "continue_final_message", "documents")
"""What vLLM has as fields of the body, beside `chat_template_kwargs`."""

_SAME = (
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "min_tokens",
    "stop",
    "stop_token_ids",
    "ignore_eos",
)
_DEFAULTS = Sampling()


def body_of(request: GenerationRequest, model: str) -> bytes:
    """The body of a request for a stream, `model` being the server's name for it; raises UnsupportedParameter."""
    fields = dict(_chat(request) if request.is_chat else _completion(request))
    shared = {**dict(_sampling(request.sampling)), **dict(_constraint(request.constraint))}
    always = {"model": model, "stream": True, "stream_options": {"include_usage": True}}
    number = {} if request.n == 1 else {"n": request.n}
    return msgspec.json.encode({**request.extra, **fields, **shared, **number, **always})


def _chat(request: GenerationRequest) -> Iterator[tuple[str, Any]]:
    yield "messages", request.messages
    if request.tools:
        yield "tools", request.tools
        yield "tool_choice", _tool_choice(request)
        if not request.parallel_tool_calls:
            yield "parallel_tool_calls", False
    if request.reasoning_effort is not None:
        yield "reasoning_effort", request.reasoning_effort
    yield from template_fields(request)
    if request.logprobs is not None:
        yield "logprobs", True
        yield "top_logprobs", request.logprobs


def template_fields(request: GenerationRequest) -> Iterator[tuple[str, Any]]:
    """What is said to the model's chat template."""
    kwargs = dict(request.chat_template_kwargs)
    yield from [(name, kwargs.pop(name)) for name in _OF_THE_TEMPLATE if name in kwargs]
    if kwargs:
        yield "chat_template_kwargs", kwargs


def _completion(request: GenerationRequest) -> Iterator[tuple[str, Any]]:
    yield "prompt", request.prompts if len(request.prompts) > 1 else request.prompts[0]
    if request.echo:
        yield "echo", True
    if request.logprobs is not None:
        yield "logprobs", request.logprobs


def _tool_choice(request: GenerationRequest) -> Any:
    match request.tool_choice:
        case NamedTool(name=name):
            return {"type": "function", "function": {"name": name}}
        case choice:
            return choice


def _sampling(sampling: Sampling) -> Iterator[tuple[str, Any]]:
    if sampling.max_length is not None:
        raise UnsupportedParameter.named("max_length", "this model's server cannot count the prompt; give max_tokens.")
    for name in _SAME:
        value = getattr(sampling, name)
        if value != getattr(_DEFAULTS, name):
            yield name, value
    if sampling.logit_bias:
        yield "logit_bias", {str(token): bias for token, bias in sampling.logit_bias.items()}


def _constraint(constraint: Constraint | None) -> Iterator[tuple[str, Any]]:
    match constraint:
        case JsonConstraint(schema=None):
            yield "response_format", {"type": "json_object"}
        case JsonConstraint(schema=schema):
            yield "response_format", {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
        case RegexConstraint(pattern=pattern):
            yield "structured_outputs", {"regex": pattern}
        case ChoiceConstraint(choices=choices):
            yield "structured_outputs", {"choice": choices}
        case GrammarConstraint(grammar=grammar):
            yield "structured_outputs", {"grammar": grammar}
