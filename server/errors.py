"""Errors as HTTP: the only file that knows status numbers and OpenAI's error envelope."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ..adapters.errors import (
    ComposeError,
    InvalidRequest,
    ModelNotFound,
    ModelUnavailable,
    QueueFull,
    Unauthorized,
    UpstreamError,
)
from .record import Record

_log = logging.getLogger(__name__)

OK = 200
ACCEPTED = 202
"""The status of the answer to a run that nobody waits for."""

NOT_READY = 503
"""The status of `/health` while no model can answer."""

CANCELLED = "cancelled"
"""The code of the error that ends a run which somebody has cancelled."""

_LONGEST_MESSAGE = 2000


class BodyTooLarge(InvalidRequest):
    """The body has more bytes than the server takes."""


_STATUS: dict[type[ComposeError], int] = {
    BodyTooLarge: 413,
    InvalidRequest: 400,
    Unauthorized: 401,
    ModelNotFound: 404,
    QueueFull: 429,
    ModelUnavailable: 503,
    UpstreamError: 502,
    ComposeError: 500,
}
_TYPES = {409: "cancelled_error", 429: "rate_limit_error", 503: "service_unavailable_error"}


class Failure(msgspec.Struct, frozen=True):
    """An error as a client gets it."""

    status: int
    message: str
    param: str | None = None
    code: str | None = None
    headers: dict[str, str] = {}

    @property
    def envelope(self) -> dict[str, Any]:
        """OpenAI's form, the same in a response and in the middle of a stream."""
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def failure(error: Exception, record: Record) -> Failure:
    """What a client is told about `error`; nothing of an error that was not meant for it."""
    match error:
        case ComposeError():
            return _expected(error)
        case HTTPException(status_code=404):
            return Failure(404, f"Invalid URL ({record.method} {record.path})")
        case HTTPException(status_code=405):
            message = f"Wrong method ({record.method} {record.path})"
            return Failure(405, message, code="method_not_supported", headers=dict(error.headers or {}))
        case HTTPException():
            return Failure(error.status_code, error.detail, headers=dict(error.headers or {}))
        case _:
            message = f"The server failed on this request. Its log has the reason under the request id {record.id}."
            return Failure(500, message, headers={"x-should-retry": "false"})


def _expected(error: ComposeError) -> Failure:
    status = error.status or next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)
    headers = {}
    if error.retry_after is not None:
        headers["retry-after"] = str(max(1, error.retry_after))
    elif status >= 500:
        # The SDK repeats what failed with 5xx, which would only cost the same again.
        headers["x-should-retry"] = "false"
    if isinstance(error, Unauthorized):
        headers["www-authenticate"] = "Bearer"
    return Failure(status, error.message[:_LONGEST_MESSAGE], error.param, error.code or None, headers)


def run_failure(error: Exception, record: Record) -> Failure:
    """What is told of a run that has failed: it is the client's fault or else this server's, whoever it asked."""
    told = failure(error, record)
    if told.code == CANCELLED:
        return msgspec.structs.replace(told, status=409)
    if told.status >= 500 or isinstance(error, InvalidRequest):
        return told
    return msgspec.structs.replace(told, status=503 if isinstance(error, QueueFull) else 502)


async def respond(request: Request, error: Exception) -> Response:
    """The answer to a request that failed before its answer began."""
    told = failure(error, Record.of(request.scope))
    return Response(msgspec.json.encode(told.envelope), told.status, told.headers, "application/json")


def log_unexpected(error: Exception, record: Record) -> None:
    """Keep what the client is not told; errors that are meant for it need no traceback."""
    if not isinstance(error, ComposeError):
        _log.error("%s failed", record.id, exc_info=error)


class ErrorBoundary:
    """ASGI middleware that answers what nothing else has caught, and is silent about clients that leave."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        record = Record.of(scope)
        try:
            await self.app(scope, receive, send)
        except ClientDisconnect:
            record.has_left = True
        except Exception as error:
            if record.status is not None:
                raise
            log_unexpected(error, record)
            await (await respond(Request(scope), error))(scope, receive, send)
