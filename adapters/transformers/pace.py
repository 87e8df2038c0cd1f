"""How many tokens of prompts a step may read, so that running answers do not stall."""

from __future__ import annotations

import torch

LONGEST_WAIT = 0.12
"""Seconds that a step may take for prompts while answers are running; people and clients notice twice as much."""

MOST = {"cpu": 2048, "mps": 2048}
FIRST = {"cpu": 128, "mps": 256}
LEAST = 16


class Pace:
    """Learns from the steps done how long a prompt's token takes."""

    def __init__(self, device: torch.device, fixed: int | None) -> None:
        self._fixed = fixed
        self._most = MOST.get(device.type, 8192)
        self._while_running = float(FIRST.get(device.type, 2048))

    def budget(self, running: int) -> int:
        """Prompt tokens for the next step, while so many answers are running."""
        if self._fixed is not None:
            return self._fixed
        return max(LEAST, int(self._while_running)) if running else self._most

    def note(self, running: int, tokens: int, seconds: float) -> None:
        """A step that read so many tokens of prompts took so long."""
        if tokens < LEAST:
            return
        possible = tokens * LONGEST_WAIT / seconds
        # Quickly to less, slowly to more: a single step may have been short by chance.
        weight = 0.5 if possible < self._while_running else 0.2
        self._while_running += weight * (min(possible, self._most) - self._while_running)
