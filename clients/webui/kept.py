"""What stays in the browser between two visits, as JSON. Pure."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from .conversation import Choices, Conversation

_Kind = TypeVar("_Kind", "Kept", Choices)


class Kept(msgspec.Struct, frozen=True, omit_defaults=True):
    """The conversation, and the last request."""

    conversation: Conversation = Conversation()
    request: dict[str, Any] = {}


def dump(kept: Kept | Choices) -> dict[str, Any]:
    """As the browser keeps it."""
    found: dict[str, Any] = msgspec.to_builtins(kept)
    return found


def load(kind: type[_Kind], found: Any) -> _Kind:
    """What was kept; nothing if that is not to be understood, as after an update of this program."""
    try:
        return msgspec.convert(found or {}, kind)
    except msgspec.ValidationError:
        return kind()
