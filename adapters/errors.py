"""Everything that can go wrong, as one small tree.

    ComposeError
      InvalidRequest            the request asks for something wrong or impossible
        UnsupportedParameter    understood, and not to be had from this model
        ContextLengthExceeded   prompt and answer do not fit into the model's context
      ModelNotFound             no model of that name is served here
      Unauthorized              no key, or a wrong one
      QueueFull                 too much to do already; try again in `retry_after` seconds
      ModelUnavailable          known, but not able to answer now (loading, failed to load)
        EngineDied              the process that computed the answer is gone
        OutOfMemory             too little memory is free to load it
      UpstreamError             a server behind this one answered with an error of its own
      ConfigError               what the user wrote cannot be served (exit code 2)

`server/errors.py` alone knows which HTTP status each of them is.
"""

from __future__ import annotations

from typing import Self

import msgspec


class ErrorReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error as it crosses a process boundary."""

    kind: str
    message: str
    param: str | None = None
    code: str | None = None
    retry_after: int | None = None
    status: int | None = None


class ComposeError(Exception):
    """Base of every error whose message is meant for the user.

    `param` names the request field at fault, `code` is OpenAI's machine-readable word for the error, `retry_after` is
    in seconds, `status` is set only where an upstream server chose it.
    """

    param: str | None = None
    code: str | None = None
    retry_after: int | None = None
    status: int | None = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param if param is not None else type(self).param
        self.code = code if code is not None else type(self).code
        self.retry_after = retry_after if retry_after is not None else type(self).retry_after
        self.status = status

    def report(self) -> ErrorReport:
        """This error in the form that crosses a process boundary."""
        return ErrorReport(type(self).__name__, self.message, self.param, self.code, self.retry_after, self.status)

    @staticmethod
    def from_report(report: ErrorReport) -> ComposeError:
        """The error that `report` was made from; a kind this program does not know becomes a plain `ComposeError`."""
        kind = _KINDS.get(report.kind, ComposeError)
        error = kind.__new__(kind)
        ComposeError.__init__(
            error,
            report.message,
            param=report.param,
            code=report.code,
            retry_after=report.retry_after,
            status=report.status,
        )
        return error


class InvalidRequest(ComposeError):
    """The request asks for something wrong or impossible."""


class UnsupportedParameter(InvalidRequest):
    """A parameter that is understood but cannot be honoured here; refused by name, never ignored."""

    code = "unsupported_parameter"

    @classmethod
    def named(cls, param: str, why: str) -> Self:
        """`'param' is not supported: why`."""
        return cls(f"'{param}' is not supported: {why}", param=param)


class ContextLengthExceeded(InvalidRequest):
    """Prompt and answer do not fit; worded as OpenAI does, because clients look for these words."""

    code = "context_length_exceeded"

    @classmethod
    def of(cls, limit: int, prompt_tokens: int, asked: int | None, param: str, *, at_least: bool = False) -> Self:
        """`limit`, `prompt_tokens` and `asked` (output tokens; None if left open) are counts of tokens.

        `at_least`: the prompt was not counted to its end.
        """
        message = (
            f"This model's maximum context length is {limit} tokens. "
            f"However, your request has {'at least ' if at_least else ''}{prompt_tokens} input tokens"
        )
        message += f" and asked for {asked} output tokens." if asked else "."
        return cls(f"{message} Please shorten the {param} or ask for fewer tokens.", param=param)


class ModelNotFound(ComposeError):
    """No model of that name is served here."""

    code = "model_not_found"


class Unauthorized(ComposeError):
    """No key, or a wrong one."""

    code = "invalid_api_key"


class QueueFull(ComposeError):
    """Too much to do already."""

    code = "rate_limit_exceeded"
    retry_after = 1


class ModelUnavailable(ComposeError):
    """The model is known but cannot answer now."""

    code = "server_is_overloaded"


class EngineDied(ModelUnavailable):
    """The process that computed the answer is gone; the same request may work in a moment."""

    code = "engine_died"
    retry_after = 1


class OutOfMemory(ModelUnavailable):
    """Too little memory is free to load the model; there may be more later."""

    code = "model_not_available"


class UpstreamError(ComposeError):
    """A server behind this one answered with an error; `status` is the HTTP status it chose."""


class ConfigError(ComposeError):
    """What the user wrote cannot be served; the message says where and what to write instead."""


def _tree(kind: type[ComposeError]) -> dict[str, type[ComposeError]]:
    return {kind.__name__: kind} | {name: sub for child in kind.__subclasses__() for name, sub in _tree(child).items()}


_KINDS = _tree(ComposeError)
