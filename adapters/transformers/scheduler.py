"""Whose turn it is, and who has memory: first come, first served, within priorities. Pure."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator

from .sequences import Piece, Sequence


class Scheduler:
    """Keeps sequences `waiting`, `reading` their prompts, and `running`: these get a new token in every step.

    At most `max_running` read or run at a time, and they hold at most `memory_tokens` (None: any number), counted by
    `row_length`, which says what room a sequence of so many tokens takes. Where a running one needs more than there
    is, those that came last give theirs back, wait again, and later read what they have said as if it were prompt.
    """

    def __init__(
        self, max_running: int, memory_tokens: int | None, row_length: Callable[[int], int], *, can_chunk: bool = True
    ) -> None:
        self._max_running = max_running
        self._memory_tokens = memory_tokens
        self._row_length = row_length
        self._can_chunk = can_chunk
        self._arrivals = 0
        self._order: dict[Sequence, tuple[int, int]] = {}
        self._held: dict[Sequence, int] = {}
        self.waiting: list[Sequence] = []
        self.reading: list[Sequence] = []
        self.running: list[Sequence] = []

    @property
    def held_tokens(self) -> int:
        """Room taken, in tokens."""
        return sum(self._held.values())

    def add(self, sequence: Sequence) -> None:
        self._arrivals += 1
        self._order[sequence] = (sequence.request.priority, self._arrivals)
        self._wait(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence, wherever it is."""
        for line in (self.waiting, self.reading, self.running):
            if sequence in line:
                line.remove(sequence)
        self._held.pop(sequence, None)
        self._order.pop(sequence, None)

    def admit(self) -> list[Sequence]:
        """Let those who wait begin to read, as far as there is room; who began."""
        begun = []
        while self.waiting and len(self._held) < self._max_running:
            sequence = self.waiting[0]
            if not self._hold(sequence, len(sequence.tokens) + 1):
                break
            self.waiting.pop(0)
            self.reading.append(sequence)
            begun.append(sequence)
        return begun

    def make_room(self) -> list[Sequence]:
        """See that every running sequence has room for its next token; who had to give up theirs for that."""
        given_up: list[Sequence] = []
        for sequence in sorted(self.running, key=self._order.__getitem__):
            while sequence in self._held and not self._hold(sequence, len(sequence.tokens)):
                last = max(self._held, key=self._order.__getitem__)
                self._give_up(last)
                given_up.append(last)
        return given_up

    def pieces(self, budget: int, begin: Callable[[Sequence], None]) -> Iterator[Piece]:
        """What is read in this step: about `budget` tokens, but one piece at least.

        `begin` is called with those that have read nothing, and may find that part of a prompt is known.
        """
        prompts: set[int] = set()
        for sequence in sorted(self.reading, key=self._order.__getitem__):
            if sequence.place is None:
                if sequence.generated == 0 and id(sequence.prompt) in prompts:
                    continue  # another choice reads the same prompt, and will share what it computes
                begin(sequence)
            prompts.add(id(sequence.prompt))
            count = min(sequence.left, max(budget, 1)) if self._can_chunk else sequence.left
            yield Piece(sequence, count)
            budget -= count
            if budget <= 0:
                return

    def run(self, sequence: Sequence) -> None:
        """A sequence has read its prompt."""
        self.reading.remove(sequence)
        self.running.append(sequence)

    def _wait(self, sequence: Sequence) -> None:
        insort(self.waiting, sequence, key=self._order.__getitem__)

    def _give_up(self, sequence: Sequence) -> None:
        del self._held[sequence]
        (self.running if sequence in self.running else self.reading).remove(sequence)
        self._wait(sequence)

    def _hold(self, sequence: Sequence, tokens: int) -> bool:
        """Take room for so many tokens, if there is that much."""
        needed, held = self._row_length(tokens), self._held.get(sequence, 0)
        if needed <= held:
            return True
        if self._memory_tokens is not None and self.held_tokens - held + needed > self._memory_tokens:
            return False
        self._held[sequence] = needed
        return True
