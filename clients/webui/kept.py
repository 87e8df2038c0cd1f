"""What stays in the browser between two visits, as JSON. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from .conversation import Choices, Conversation


class Kept(msgspec.Struct, frozen=True, omit_defaults=True):
    """The conversation, what was chosen for it, and the last request."""

    model: str | None = None
    choices: Choices = Choices()
    conversation: Conversation = Conversation()
    request: dict[str, Any] = {}

    def dump(self) -> dict[str, Any]:
        """As the browser keeps it."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found

    @staticmethod
    def load(found: Any) -> Kept:
        """What was kept; nothing if that is not to be understood, as after an update of this program."""
        try:
            return msgspec.convert(found or {}, Kept)
        except msgspec.ValidationError:
            return Kept()
