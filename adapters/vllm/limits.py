"""How many tokens an answer may have, at servers that count new tokens only and refuse what does not fit.

A request may leave that open, count the prompt too (`max_length`), or want its limit cut to what fits. vLLM counts a
prompt's tokens at `/tokenize`, which is asked where it matters; a server without it gets what was asked for as it is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec

from ..base import GenerationRequest, Prompt
from ..errors import InvalidRequest, UpstreamError
from .body import template_fields

TOKENIZE: Literal["/tokenize"] = "/tokenize"
TOKENS_OF_A_TEMPLATE = 2048
"""More than a chat template adds to the messages and tools."""

Ask = Callable[[bytes], Awaitable[bytes]]
"""Gives the answer of `/tokenize` to a body; raises UpstreamError."""


class _Counted(msgspec.Struct):
    count: int
    max_model_len: int | None = None


_counted = msgspec.json.Decoder(_Counted)


async def limited(request: GenerationRequest, model: str, context: int | None, ask: Ask) -> GenerationRequest:
    """The request with a limit that counts new tokens; `context` is the model's, None if it is not known.

    Raises InvalidRequest if the prompt alone is longer than `max_length`.
    """
    if not _matters(request, context):
        return request
    try:
        counted = [_counted.decode(await ask(body)) for body in _bodies(request, model)]
    except (UpstreamError, msgspec.DecodeError, UnicodeDecodeError):
        # Whatever is wrong with the prompt, the server says when it is asked for the answer.
        return request
    given = [len(prompt) for prompt in request.prompts if not isinstance(prompt, str)]
    length = max([*given, *(each.count for each in counted)], default=0)
    context = context or next((each.max_model_len for each in counted), None)
    most = _most(request, length, context)
    sampling = msgspec.structs.replace(request.sampling, max_length=None, max_tokens=most)
    return msgspec.structs.replace(request, sampling=sampling)


def _matters(request: GenerationRequest, context: int | None) -> bool:
    """Whether the prompt has to be counted."""
    sampling = request.sampling
    if sampling.max_length is not None:
        return True
    if sampling.max_tokens is None:
        # A chat then goes on to the end of the context; but a text only for 16 tokens, as was OpenAI's way.
        return not request.is_chat
    # No token is shorter than a byte.
    longest = len(msgspec.json.encode([request.messages, request.prompts, request.tools])) + TOKENS_OF_A_TEMPLATE
    return sampling.is_cut_to_fit and context is not None and sampling.max_tokens + longest > context


def _bodies(request: GenerationRequest, model: str) -> list[bytes]:
    fields: list[dict[str, Any]]
    if request.is_chat:
        tools = {"tools": request.tools} if request.tools else {}
        fields = [{"messages": request.messages, **tools, **dict(template_fields(request))}]
    else:
        texts: list[Prompt] = [prompt for prompt in request.prompts if isinstance(prompt, str)]
        fields = [{"prompt": text} for text in texts]
    return [msgspec.json.encode({"model": model, **each}) for each in fields]


def _most(request: GenerationRequest, length: int, context: int | None) -> int | None:
    """How many new tokens there may be after a prompt of that length; None leaves it to the server."""
    sampling = request.sampling
    limits = [] if sampling.max_tokens is None else [sampling.max_tokens]
    if sampling.max_length is not None:
        if sampling.max_length < length:
            raise InvalidRequest(
                f"max_length is {sampling.max_length}, but the prompt alone has {length} tokens", param="max_length"
            )
        limits.append(sampling.max_length - length)
    if context is not None and (sampling.is_cut_to_fit or not limits):
        limits.append(max(context - length, 1))
    return min(limits, default=None)
