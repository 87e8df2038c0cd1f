"""Logprobs kept beside the text they belong to, also while that text is held back. Pure."""

from __future__ import annotations

import sys
from typing import NamedTuple

from ..events import TokenLogprob, TopLogprob
from ..text import StopStrings
from .detokenize import Vocabulary


class Logprob(NamedTuple):
    """A token's natural-log probability (None: a prompt's first token), and the likeliest as (token id, logprob)."""

    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()


def token_logprob(vocabulary: Vocabulary, token_id: int, logprob: Logprob) -> TokenLogprob:
    """A token's logprobs with its text, as clients see them."""
    return TokenLogprob(
        vocabulary.token_text(token_id),
        logprob.logprob,
        vocabulary.token_bytes(token_id),
        tuple(TopLogprob(vocabulary.token_text(t), value, vocabulary.token_bytes(t)) for t, value in logprob.top),
    )


class WaitingLogprobs:
    """Logprobs of tokens whose text has not been shown; places count the characters of the raw text."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, int, TokenLogprob]] = []

    def add(self, start: int, end: int, logprob: TokenLogprob) -> None:
        """A token that stands from `start` to `end`."""
        self._waiting.append((start, end, logprob))

    def drop(self, start: int, end: int) -> None:
        """Forget the tokens that stand wholly between these places: they are marks that are not shown."""
        self._waiting = [token for token in self._waiting if not start <= token[0] < end or token[1] > end]

    def take(self, end: int) -> tuple[TokenLogprob, ...]:
        """The tokens whose text begins before `end`; a token goes with the first of its text that is shown."""
        taken = [token for token in self._waiting if token[0] < end]
        self._waiting = self._waiting[len(taken) :]
        return tuple(logprob for _, _, logprob in taken)

    def rest(self) -> tuple[TokenLogprob, ...]:
        """All that are left: tokens that show nothing."""
        return self.take(sys.maxsize)


class ShownText:
    """Text on its way through the stop strings, with the places in the raw text that it comes from."""

    def __init__(self, stops: StopStrings) -> None:
        self._stops = stops
        self._fed = 0
        self._shown = 0
        self._segments: list[tuple[int, int]] = []  # characters fed up to the end of a piece, and that end's place

    def feed(self, text: str, end: int) -> tuple[str, int]:
        """What may be shown, and the place in the raw text where that ends; `text` itself ends at `end`."""
        self._fed += len(text)
        self._segments.append((self._fed, end))
        return self._show(self._stops.feed(text))

    def finish(self) -> tuple[str, int]:
        """What was held back."""
        return self._show(self._stops.finish())

    def _show(self, text: str) -> tuple[str, int]:
        self._shown += len(text)
        while len(self._segments) > 1 and self._segments[0][0] < self._shown:
            self._segments.pop(0)
        fed, end = self._segments[0] if self._segments else (self._shown, 0)
        return text, end - (fed - self._shown)
