"""What the engine keeps of a request, and of each of the answers to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ..base import GenerationRequest

if TYPE_CHECKING:
    from collections.abc import Sequence as Many

    from torch import Tensor

    from .kernels import Kernels
    from .output import ChoiceOutput, Logprob
    from .prompt import EncodedPrompt
    from .sampling import Sampler


@dataclass(eq=False)
class Request:
    """A request that was accepted, and what it took so far (in tokens). Those of less `priority` come first."""

    id: int
    request: GenerationRequest
    prompt_tokens: int
    priority: int = 0
    sequences: list[Sequence] = field(default_factory=list)
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    is_running: bool = False


@dataclass(eq=False)
class Sequence:
    """One choice of a request. Its `tokens` are the decoder's: the prompt's, then the answer's.

    `computed` of them are in the model's cache; `limit` is how many new ones there may be. `place` is where the cache
    is, for whoever computes it.
    """

    request: Request
    choice: int
    prompt: EncodedPrompt
    tokens: list[int]
    limit: int
    sampler: Sampler
    output: ChoiceOutput
    place: object = None
    computed: int = 0
    generated: int = 0
    prompt_logprobs: list[Logprob] = field(default_factory=list)

    @property
    def scores_prompt(self) -> bool:
        """Whether the logprobs of the prompt's own tokens are asked for, and not told yet."""
        return self.generated == 0 and self.request.request.echo and self.request.request.logprobs is not None

    @property
    def left(self) -> int:
        """Tokens that have to be computed before there can be a new one."""
        return len(self.tokens) - self.computed


class Piece(NamedTuple):
    """The next `length` tokens of a sequence that is not as far as its tokens are."""

    sequence: Sequence
    length: int


class Computed(NamedTuple):
    """What a step brought: logits `[sequences, vocabulary]` of those that may have a new token now.

    `scores` has the logits `[tokens, vocabulary]` after every token of those pieces whose prompts are scored, `failed`
    the sequences for which memory ran out.
    """

    sequences: Many[Sequence]
    logits: Tensor | None
    scores: Many[tuple[Sequence, Tensor]] = ()
    failed: Many[tuple[Sequence, Exception]] = ()


class Computer(Protocol):
    """A way to compute what comes next, for several sequences; keeps their caches. Call it in inference mode."""

    @property
    def can_chunk(self) -> bool:
        """Whether prompts may be read in pieces."""

    @property
    def kernels(self) -> Kernels | None:
        """What tokens may be drawn with."""

    @property
    def memory_tokens(self) -> int | None:
        """How many tokens the caches may hold, if there is a limit."""

    def start(self, sequence: Sequence) -> None:
        """Make a cache for a sequence; `computed` says afterwards how many of its tokens were known already."""

    def step(self, running: Many[Sequence], pieces: Many[Piece]) -> Computed:
        """Compute the last token of every running sequence, and the pieces."""

    @property
    def can_repeat(self) -> bool:
        """Whether a token that was computed can be computed again."""

    def repeat(self, sequence: Sequence) -> None:
        """Forget the last token of a sequence's cache, so that the next step computes it again."""

    def fork(self, sequence: Sequence, other: Sequence) -> None:
        """Give `other` the cache of `sequence`, to be continued apart."""

    def release(self, sequence: Sequence) -> None:
        """Forget a sequence's cache."""

    def rest(self) -> None:
        """Give memory back that is kept for sequences to come."""
