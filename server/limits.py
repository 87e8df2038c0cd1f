"""How large a request may be."""

from __future__ import annotations

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope

from ..adapters.base import GenerationRequest
from ..adapters.errors import InvalidRequest
from .errors import BodyTooLarge
from .record import Record


async def read_body(request: Request, limit: int) -> bytes:
    """See `read_all`."""
    return await read_all(request.scope, request.receive, limit)


async def read_all(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The whole body; raises `BodyTooLarge`, and reads no further, once it is clear that it has over `limit` bytes."""
    declared = Record.of(scope).headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    parts: list[bytes] = []
    size, is_more = 0, True
    while is_more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise _too_large(limit)
        is_more = message.get("more_body", False)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def check_choices(request: GenerationRequest, limit: int) -> None:
    """Raises `InvalidRequest` if the request asks for more answers than `limit`."""
    prompts = max(1, len(request.prompts))
    if request.n * prompts > limit:
        raise InvalidRequest(
            f"Too many answers in one request: {prompts} prompts times n = {request.n} is more than {limit}.",
            param="prompt" if prompts > 1 else "n",
            code="array_above_max_length" if prompts > 1 else "integer_above_max_value",
        )


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body of the request is larger than {limit} bytes, which is the most this server takes.")
