"""What a component is to the jobs that call it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from ...adapters.base import GenerationRequest
from ...adapters.events import FinishReason, Usage
from ..schema import Action


class Meter:
    """The tokens that all model calls of a run took."""

    def __init__(self) -> None:
        self.usage = Usage(0, 0)

    def add(self, usage: Usage) -> None:
        """Count what one call took."""
        self.usage += usage


@dataclass(slots=True)
class End:
    """Why an answer ended: known once all of it was read, and None if nobody says."""

    reason: FinishReason | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One call: `scope` has the roots that the action's templates see, `end` is told why the answer ended.

    `request` is set where the answer to this call is the answer to a client's OpenAI request: what that asks for beyond
    its messages, this call has to honour.
    """

    scope: Mapping[str, Any]
    meter: Meter = field(default_factory=Meter)
    request: GenerationRequest | None = None
    end: End = field(default_factory=End)


class Component(Protocol):
    """Something that jobs call, opened by the runner."""

    def call(self, action: Any, call: Call) -> AbstractAsyncContextManager[Any]:
        """The action's plain result, a tree with at most one stream in it; leaving the context ends the call."""
        ...


def missing(action: Action, names: list[str], what: str) -> str:
    """The message for an action that cannot go on without an input."""
    inputs = " and ".join(f"'{name}'" for name in names)
    return f"missing input {inputs}: {what}" if names else f"missing input: {what} (action '{action.id}')"
