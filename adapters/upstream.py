"""What servers like OpenAI's say in their answers: errors, and tokens. Pure."""

from __future__ import annotations

import json
from typing import Any

from .events import FinishReason, Usage

DONE = "[DONE]"
"""What OpenAI's servers send after the last item of a stream."""


def said(text: str) -> str:
    """The message in an error of OpenAI's, vLLM's, SGLang's or FastAPI's form, or the text as it is."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return text
    match body:
        case {"error": {"message": str(message)}} | {"error": str(message)} | {"message": str(message)}:
            return message
        case {"detail": str(message)}:
            return message
    return text


def usage_of(answer: Any) -> Usage | None:
    """The tokens that an answer of one of OpenAI's forms says it took."""
    match answer:
        case {"usage": {"prompt_tokens": int(prompt), **rest}}:
            return Usage(
                prompt,
                _count(rest, "completion_tokens"),
                _count(rest.get("prompt_tokens_details"), "cached_tokens"),
                _count(rest.get("completion_tokens_details"), "reasoning_tokens"),
            )
    return None


def finish_reason_of(answer: Any) -> FinishReason | None:
    """Why an answer of one of OpenAI's forms, or a piece of it, says that its first choice ended."""
    match answer:
        case {"choices": [{"finish_reason": "stop" | "length" | "tool_calls" | "content_filter" as reason}, *_]}:
            found: FinishReason = reason
            return found
    return None


def _count(counts: Any, name: str) -> int:
    count = counts.get(name) if isinstance(counts, dict) else None
    return count if isinstance(count, int) else 0
