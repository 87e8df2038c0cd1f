"""What a client is told about an upstream server's errors. Pure.

Servers spell errors in many ways: OpenAI's envelope, with a number for its code (vLLM), a text in its place (vLLM when
a key is wrong), the error without an envelope (SGLang), FastAPI's `detail`, or a page of HTML.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from ..errors import ComposeError, ContextLengthExceeded, ModelNotFound, ModelUnavailable, UpstreamError
from .troubles import TooSlow, Trouble, Unreachable

TRY_ANOTHER = frozenset({502, 503, 504})
"""With these a server says that it cannot answer now; another may."""

LONGEST_MESSAGE = 2000
_CONTEXT_WORDS = ("maximum context length", "longer than the model's context", "exceeds the available context")
_KEY_REFUSED = frozenset({401, 403})


def refused(status: int, headers: Mapping[bytes, bytes], body: bytes) -> UpstreamError:
    """The error that a response other than 200 is; its status is kept if it is an error's."""
    given = _error_in(body) or {}
    message = _text(given.get("message")) or f"the model's server answered with status {status}"
    if status in _KEY_REFUSED:
        message = f"the model's server refused the key this server has for it: {message}"
    if not 400 <= status < 600:
        return UpstreamError(f"the model's server answered with status {status} where 200 was due", status=502)
    retry_after = _retry_after(headers.get(b"retry-after", b"").decode("latin-1"))
    if retry_after is None and status in TRY_ANOTHER:
        retry_after = 1
    return UpstreamError(
        message, param=_text(given.get("param")), code=_code(given, status), retry_after=retry_after, status=status
    )


def error_in_stream(event: Any) -> UpstreamError | None:
    """The error that an event of a stream is, if it is one."""
    if not isinstance(event, dict) or not (event.get("error") or event.get("object") == "error"):
        return None
    given = _error_of(event)
    code = given.get("code")
    status = code if isinstance(code, int) and 400 <= code < 600 else 500
    message = _text(given.get("message")) or "the model's server reported an error"
    return UpstreamError(message, param=_text(given.get("param")), code=_code(given, status), status=status)


def told(trouble: Trouble) -> ComposeError:
    """What is said when a server does not answer as it should."""
    match trouble:
        case Unreachable():
            return ModelUnavailable("the model's server cannot be reached", retry_after=2)
        case TooSlow():
            return UpstreamError(f"the model's server is silent: {trouble}", status=504)
        case _:
            return UpstreamError(f"the model's server broke off: {trouble}", status=502, retry_after=1)


def broken(what: str) -> UpstreamError:
    """An answer that is none."""
    return UpstreamError(f"the model's server {what}", status=502)


def _error_in(body: bytes) -> dict[str, Any] | None:
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = body.decode(errors="replace").strip()
        # A page is for people; what it says is in its status.
        return None if text.startswith("<") else {"message": text}
    return _error_of(answer)


def _error_of(answer: Any) -> dict[str, Any]:
    match answer:
        case {"error": dict(error)}:
            return error
        case {"error": str(text)}:
            return {**answer, "message": text}
        case {"detail": str(text)}:
            return {"message": text}
        case {"detail": detail}:
            return {"message": msgspec.json.encode(detail).decode()}
        case dict():
            return answer
        case _:
            return {"message": str(answer)}


def _code(given: Mapping[str, Any], status: int) -> str | None:
    """OpenAI's word for the error; numbers are the status once more."""
    message = _text(given.get("message")) or ""
    if any(words in message for words in _CONTEXT_WORDS):
        return ContextLengthExceeded.code
    code = given.get("code")
    if isinstance(code, str) and not code.isdigit():
        return code[:64]
    return ModelNotFound.code if status == 404 and "model" in message else None


def _text(value: Any) -> str | None:
    return value[:LONGEST_MESSAGE] if isinstance(value, str) and value else None


def _retry_after(value: str) -> int | None:
    """Seconds, given as a number or as the time when they are over."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(1, math.ceil(seconds)) if math.isfinite(seconds) else None
