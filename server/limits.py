"""How large a request may be."""

from __future__ import annotations

from starlette.requests import Request

from ..adapters.base import GenerationRequest
from ..adapters.errors import InvalidRequest
from .errors import BodyTooLarge


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body; raises `BodyTooLarge`, and reads no further, once it is clear that it has over `limit` bytes."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        parts.append(part)
    return b"".join(parts)


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
