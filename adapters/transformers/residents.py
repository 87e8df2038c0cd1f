"""The models that share this machine's memory, and who leaves when another needs it."""

from __future__ import annotations

import logging
from typing import Protocol

logger = logging.getLogger(__name__)


class Resident(Protocol):
    """A model that takes memory while it is loaded; `last_used` is on any clock that all of them share."""

    @property
    def name(self) -> str: ...

    @property
    def last_used(self) -> float: ...

    @property
    def is_idle(self) -> bool:
        """Whether it is loaded and answers nobody."""
        ...

    @property
    def is_leaving(self) -> bool:
        """Whether it was asked to leave and has memory still."""
        ...

    def leave(self) -> None:
        """Give the memory back."""
        ...


class Residents:
    """All local models of a server."""

    def __init__(self) -> None:
        self.all: list[Resident] = []

    def has_others(self, one: Resident) -> bool:
        """Whether there are models besides this one, so that waiting for memory may help."""
        return any(each is not one for each in self.all)

    def make_room(self, one: Resident) -> None:
        """Let the model that was idle for longest leave, because `one` lacks memory; wait while another is leaving."""
        others = [each for each in self.all if each is not one]
        if any(each.is_leaving for each in others):
            return
        idle = [each for each in others if each.is_idle]
        if idle:
            least = min(idle, key=lambda each: each.last_used)
            logger.info("%s is unloaded to make room for %s", least.name, one.name)
            least.leave()
