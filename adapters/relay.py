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
    """An answer on its way, asked for once, as a whole or as events; `usage` is known at its end, if the answer
    tells it.
    """

    usage: Usage | None

    async def whole(self) -> bytes:
        """The answer to a request for the whole of it: JSON. Raises what refuses the request, and what goes wrong."""
        ...

    def events(self) -> AsyncGenerator[bytes, None]:
        """The answer to a request for a stream: whole server-sent events.

        Raises what refuses the request before the first piece, and what goes wrong later after whole events. An empty
        piece says that the request was accepted. Closing it cancels the request.
        """
        ...


@runtime_checkable
class RelayingAdapter(Adapter, Protocol):
    """An adapter whose models are reached through OpenAI's API."""

    def has(self, name: str) -> bool:
        """Whether a model is called so here; the same as to look for it among the cards, but at less cost."""
        ...

    def relay(self, request: RelayRequest) -> Relayed:
        """The answer to `request`."""
        ...
