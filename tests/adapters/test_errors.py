"""Errors keep their kind and all they say over a process boundary."""

from __future__ import annotations

import msgspec
import pytest

from modelcompose.adapters.errors import (
    ComposeError,
    ConfigError,
    ContextLengthExceeded,
    EngineDied,
    ErrorReport,
    QueueFull,
    UnsupportedParameter,
    UpstreamError,
)


@pytest.mark.parametrize(
    "error",
    [
        QueueFull("busy", retry_after=7),
        UnsupportedParameter.named("suffix", "this model has no infill tokens"),
        ContextLengthExceeded.of(4096, 5000, 100, "messages"),
        UpstreamError("no", status=418),
        EngineDied("gone"),
        ConfigError("line 3"),
    ],
)
def test_an_error_survives_the_boundary(error: ComposeError) -> None:
    report = msgspec.msgpack.decode(msgspec.msgpack.encode(error.report()), type=ErrorReport)
    back = ComposeError.from_report(report)
    assert type(back) is type(error)
    assert (str(back), back.param, back.code, back.retry_after, back.status) == (
        (str(error), error.param, error.code, error.retry_after, error.status)
    )


def test_context_error_uses_the_words_that_clients_look_for() -> None:
    error = ContextLengthExceeded.of(4096, 5000, 100, "messages")
    assert "This model's maximum context length is 4096 tokens. However, your request has 5000 input tokens" in str(
        error
    )
    assert error.code == "context_length_exceeded"
    assert error.param == "messages"
