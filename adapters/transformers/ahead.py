"""Masks of grammars, computed in threads while the model computes."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet

import torch
from torch import Tensor

from .grammar import Matcher
from .tensors import moved


class MaskAhead:
    """What a sequence may say next by its grammar, worked out from the moment on that its last token is known.

    A grammar can take long over a mask, and then holds up no other sequence.
    """

    def __init__(self, matcher: Matcher, threads: ThreadPoolExecutor) -> None:
        self._matcher = matcher
        self._threads = threads
        self._next: Future[Tensor | None] = threads.submit(matcher.allowed)

    def wait(self, seconds: float) -> bool:
        """Whether the mask is there, at once or within so many seconds."""
        try:
            self._next.exception(seconds)
        except NotYet:
            return False
        return True

    def mask(self, logits: Tensor) -> None:
        """Set what is not allowed in one row of logits to minus infinity; raises what the last token brought about."""
        allowed = self._next.result()
        if allowed is not None:
            logits.masked_fill_(~moved(allowed, logits.device), -torch.inf)

    def accept(self, token_id: int) -> None:
        """Begin to work out what may come after a token."""
        self._next = self._threads.submit(self._after, token_id)

    def drop(self) -> None:
        """Nobody wants to know any more."""
        self._next.cancel()

    def _after(self, token_id: int) -> Tensor | None:
        self._matcher.accept(token_id)
        return self._matcher.allowed()
