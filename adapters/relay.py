"""Handing a request on as it is, to a server that speaks OpenAI's API too, and its answer back as it comes.

RelayRequest      what a client sent, as bytes
Relayed           the answer, as bytes
RelayingAdapter   an adapter that can do so besides telling of events
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Literal, Protocol, runtime_checkable

import msgspec

from .base import Adapter
from .events import Usage

Route = Literal["chat/completions", "completions"]


class RelayRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request for a model as it came in: `body` is JSON whose `model` names it and whose `stream` is `is_stream`.

    `headers` are those of the client's that are for the model's server as well.
    """

    model: str
    route: Route
    body: bytes
    is_stream: bool
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Relayed(Protocol):
    """An answer on its way; `usage` is known at its end, if the answer tells it."""

    usage: Usage | None

    def pieces(self) -> AsyncGenerator[bytes, None]:
        """The answer's bytes: whole server-sent events for a stream, else the whole of the JSON.

        Raises what refuses the request before the first piece, and what goes wrong later after whole events. An empty
        piece says that the request was accepted. Closing it cancels the request.
        """
        ...


@runtime_checkable
class RelayingAdapter(Adapter, Protocol):
    """An adapter whose models are reached through OpenAI's API."""

    def relay(self, request: RelayRequest) -> Relayed:
        """The answer to `request`."""
        ...
