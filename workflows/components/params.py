"""The `params` of an action as `Sampling`, and what a client's request adds to them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ...adapters.base import GenerationRequest, Sampling
from ...adapters.errors import InvalidRequest
from ..references import Cast, Template, cast, render_deep
from ..schema import Params

_TYPES = {
    **dict.fromkeys(
        ("max_output_length", "min_output_length", "max_length", "top_k", "num_return_sequences", "seed"), "integer"
    ),
    **dict.fromkeys(
        ("temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"), "number"
    ),
    "do_sample": "boolean",
}
_RANGES: dict[str, tuple[float, float]] = {
    "max_output_length": (1, 2**31),
    "min_output_length": (0, 2**31),
    "max_length": (1, 2**31),
    "top_k": (-1, 2**31),
    "num_return_sequences": (1, 128),
    "seed": (-(2**63), 2**63 - 1),
    "temperature": (0, 100),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "repetition_penalty": (0.01, 100),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
}
_DEFAULTS = Sampling()


def rendered(params: Params, scope: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that have a value, each of its type and in its range; raises InvalidRequest."""
    values: dict[str, Any] = {}
    for name in Params.model_fields:
        template = getattr(params, name)
        value = render_deep(template, scope)
        if value is not None and name in _TYPES:
            value = _in_range(name, cast(value, Cast(_TYPES[name]), _path(name, template)), _path(name, template))
        if value is not None:
            values[name] = value
    return values


def sampling_of(values: Mapping[str, Any]) -> Sampling:
    """Rendered parameters in the adapters' words; `do_sample: false` is greedy whatever the temperature.

    A file's limits are meant for prompts and models of all sizes, so they are cut to what fits into the context.
    """
    top_k = values.get("top_k")
    return Sampling(
        max_tokens=values.get("max_output_length"),
        max_length=values.get("max_length"),
        is_cut_to_fit="max_output_length" in values or "max_length" in values,
        min_tokens=values.get("min_output_length", 0),
        temperature=0.0 if values.get("do_sample") is False else values.get("temperature"),
        top_p=values.get("top_p"),
        top_k=None if top_k is None else max(top_k, 0),
        min_p=values.get("min_p"),
        repetition_penalty=values.get("repetition_penalty"),
        presence_penalty=values.get("presence_penalty", 0.0),
        frequency_penalty=values.get("frequency_penalty", 0.0),
        seed=values.get("seed"),
        stop=_stops(values.get("stop_sequences")),
    )


def with_asked(own: Sampling, asked: Sampling) -> Sampling:
    """An action's own parameters, and a client's where the action says nothing.

    Of two limits the smaller one counts, and the client's is never cut; stop strings of both stop.
    """
    unset = {name: getattr(asked, name) for name in Sampling.__struct_fields__ if _is_unset(own, name)}
    limits = [limit for limit in (own.max_tokens, asked.max_tokens) if limit is not None]
    max_tokens = min(limits, default=None)
    return msgspec.structs.replace(
        own,
        **unset,
        max_tokens=max_tokens,
        is_cut_to_fit=own.is_cut_to_fit and (asked.max_tokens is None or max_tokens != asked.max_tokens),
        stop=tuple(dict.fromkeys((*own.stop, *asked.stop))),
    )


def honour(request: GenerationRequest, asked: GenerationRequest | None) -> GenerationRequest:
    """An action's request, and what the client's request asks for beside it."""
    if asked is None:
        return request
    extra = {name: value for name, value in asked.extra.items() if name not in ("input", "metadata")}
    return msgspec.structs.replace(
        request,
        tools=(*request.tools, *asked.tools),
        tool_choice=asked.tool_choice,
        parallel_tool_calls=asked.parallel_tool_calls,
        constraint=asked.constraint,
        reasoning_effort=asked.reasoning_effort,
        chat_template_kwargs=asked.chat_template_kwargs,
        sampling=with_asked(request.sampling, asked.sampling),
        n=asked.n,
        logprobs=asked.logprobs,
        echo=asked.echo,
        extra=extra,
    )


def _is_unset(own: Sampling, name: str) -> bool:
    return name not in ("max_tokens", "is_cut_to_fit", "stop") and getattr(own, name) == getattr(_DEFAULTS, name)


def _stops(value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value
    if stops is None:
        return ()
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise InvalidRequest("'stop_sequences' must be a text or a list of texts", param="stop_sequences")
    return tuple(stop for stop in stops if stop)


def _path(name: str, template: Any) -> str:
    """The input that gives a parameter, or else the parameter."""
    only = template.only if isinstance(template, Template) else None
    return f"params.{name}" if only is None else only.path


def _in_range(name: str, value: Any, path: str) -> Any:
    low, high = _RANGES.get(name, (False, True))
    if not low <= value <= high:
        raise InvalidRequest(f"'{path}' must be between {low} and {high}, not {value}", param=path)
    return value
