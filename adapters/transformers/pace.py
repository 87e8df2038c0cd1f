"""How many tokens of prompts a step may read, so that running answers do not stall, and prompts are not starved."""

from __future__ import annotations

import torch

LONGEST_WAIT = 0.15
"""Seconds that a step may take for prompts while answers are running; people and clients notice twice as much."""

LONGEST_OF_STEPS = 2.5
"""Where steps without prompts are slow, one that reads prompts may take so many times as long."""

MOST = {"cpu": 2048, "mps": 2048}
FIRST = {"cpu": 128, "mps": 256}
LEAST = 16


class Pace:
    """Learns from the steps done how long one takes that only gives running answers their tokens, and what a token of a
    prompt adds to that.
    """

    def __init__(self, device: torch.device, fixed: int | None) -> None:
        self._fixed = fixed
        self._most = MOST.get(device.type, 8192)
        self._token_seconds = LONGEST_WAIT / FIRST.get(device.type, 2048)
        self._step_seconds = self._step_running = 0.0

    def budget(self, running: int) -> int:
        """Prompt tokens for the next step, while so many answers are running."""
        if self._fixed is not None:
            return self._fixed
        if not running:
            return self._most
        alone = self._alone(running)
        left = max(LONGEST_WAIT, LONGEST_OF_STEPS * alone) - alone
        return min(self._most, max(LEAST, int(left / self._token_seconds)))

    def note(self, running: int, tokens: int, seconds: float) -> None:
        """A step with so many answers that read so many tokens of prompts took so long."""
        if not tokens:
            self._step_seconds += 0.5 * (seconds - self._step_seconds)
            self._step_running += 0.5 * (running - self._step_running)
        elif tokens >= LEAST:
            taken = max(seconds - self._alone(running), seconds / 2) / tokens
            # Quickly to more, slowly to less: a single step may have been short by chance.
            weight = 0.5 if taken > self._token_seconds else 0.2
            self._token_seconds += weight * (taken - self._token_seconds)

    def _alone(self, running: int) -> float:
        """Seconds that a step with so many answers takes without prompts."""
        more = running - self._step_running
        # Fewer answers take hardly less time than those of the last steps: the model's weights are read all the same.
        return self._step_seconds + max(0.0, more) * self._token_seconds
