"""Whose turn it is: first come, first served, with long prompts in pieces so that running answers do not stall."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..base import GenerationRequest

if TYPE_CHECKING:
    from .forward import State
    from .output import ChoiceOutput, Logprob
    from .prompt import EncodedPrompt
    from .sampling import Sampler


@dataclass(eq=False)
class Request:
    """A request that was accepted, and what it took so far (in tokens)."""

    id: int
    request: GenerationRequest
    prompt_tokens: int
    sequences: list[Sequence] = field(default_factory=list)
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    is_running: bool = False
    is_over: bool = False


@dataclass(eq=False)
class Sequence:
    """One choice of a request. Its `tokens` are the decoder's: the prompt's, then the answer's.

    `computed` of them are in the model's `state`; `limit` is how many new ones there may be.
    """

    request: Request
    choice: int
    prompt: EncodedPrompt
    tokens: list[int]
    limit: int
    sampler: Sampler
    output: ChoiceOutput
    state: State | None = None
    computed: int = 0
    generated: int = 0
    prompt_logprobs: list[Logprob] = field(default_factory=list)

    @property
    def is_prefilling(self) -> bool:
        return self.generated == 0

    @property
    def left_of_prompt(self) -> int:
        return len(self.tokens) - self.computed


class Scheduler:
    """Keeps at most `max_running` sequences going and spends at most about `prompt_budget` prompt tokens a step.

    A prompt is cut at multiples of `prompt_budget`, never where the budget of a step happens to end: so its numbers,
    down to the last bit, do not depend on what else runs.
    """

    def __init__(self, max_running: int, prompt_budget: int | None) -> None:
        self._max_running = max_running
        self._prompt_budget = prompt_budget
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []

    @property
    def has_room(self) -> bool:
        return len(self.running) < self._max_running

    def admit(self) -> None:
        """Move sequences from the queue to the running ones while there is room."""
        while self.waiting and self.has_room:
            self.start(self.waiting.popleft())

    def start(self, sequence: Sequence) -> None:
        sequence.request.is_running = True
        self.running.append(sequence)

    def decodes(self) -> Iterator[Sequence]:
        """The sequences that get their next token in this step."""
        for sequence in list(self.running):
            if not sequence.is_prefilling and not sequence.request.is_over:
                yield sequence

    def prefills(self) -> Iterator[tuple[Sequence, int]]:
        """The sequences whose prompts are read in this step, and how many tokens of each."""
        spent = 0
        for sequence in list(self.running):
            if not sequence.is_prefilling or sequence.request.is_over:
                continue
            count = min(sequence.left_of_prompt, self._prompt_budget or sequence.left_of_prompt)
            if spent and self._prompt_budget and spent + count > self._prompt_budget:
                return
            spent += count
            yield sequence, count

    def remove(self, sequence: Sequence) -> None:
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
