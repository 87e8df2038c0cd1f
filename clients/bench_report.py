"""What a benchmark measured, in figures: as a table and as JSON. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

SHOWN = {
    "time_to_first_token": "Time to first token",
    "between_tokens": "Between tokens",
    "whole_answer": "Whole answer",
}
PERCENTILES = (50, 90, 99)


@dataclass
class Answer:
    """One request: when it was sent and when each piece came, in seconds on one clock; `error` if it failed.

    `is_refused` says that the server found the request itself wrong. `tokens` and `prompt_tokens` are the server's own
    count, None if it gave none.
    """

    sent: float
    pieces: list[float] = field(default_factory=list)
    ended: float = 0.0
    tokens: int | None = None
    prompt_tokens: int | None = None
    error: str | None = None
    is_refused: bool = False

    @property
    def made(self) -> int:
        """The tokens of the answer; a piece is taken for one where the server does not count them."""
        return len(self.pieces) if self.tokens is None else self.tokens

    @property
    def gaps(self) -> list[float]:
        """The seconds that each piece after the first was waited for."""
        return [later - earlier for earlier, later in zip(self.pieces, self.pieces[1:], strict=False)]


@dataclass(frozen=True)
class Report:
    """All requests that were answered or failed within `seconds`."""

    model: str
    url: str
    concurrency: int
    seconds: float
    answers: Sequence[Answer]

    @property
    def whole(self) -> list[Answer]:
        """Those that were answered."""
        return [answer for answer in self.answers if answer.error is None]

    @property
    def errors(self) -> list[str]:
        """Why the others failed, each reason once."""
        return list(dict.fromkeys(answer.error for answer in self.answers if answer.error is not None))

    def figures(self) -> dict[str, Any]:
        """What `--json` prints; times are milliseconds."""
        whole = self.whole
        tokens, prompt_tokens = sum(answer.made for answer in whole), sum(answer.prompt_tokens or 0 for answer in whole)
        times = {
            "time_to_first_token": [answer.pieces[0] - answer.sent for answer in whole if answer.pieces],
            "between_tokens": [gap for answer in whole for gap in answer.gaps],
            "whole_answer": [answer.ended - answer.sent for answer in whole],
        }
        return {
            "model": self.model,
            "url": self.url,
            "concurrency": self.concurrency,
            "seconds": round(self.seconds, 3),
            "requests": len(self.answers),
            "failed": len(self.answers) - len(whole),
            "errors": self.errors,
            "prompt_tokens": prompt_tokens,
            "output_tokens": tokens,
            "requests_per_second": _rate(len(whole), self.seconds),
            "output_tokens_per_second": _rate(tokens, self.seconds),
            **{f"{name}_ms": _spread(values) for name, values in times.items()},
        }

    def table(self) -> str:
        """What people read."""
        return "\n".join(_lines(self.figures()))


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of the values that at least so many percent of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def _rate(count: int, seconds: float) -> float:
    return round(count / seconds, 2) if seconds else 0.0


def _spread(seconds: Sequence[float]) -> dict[str, float] | None:
    """The mean, some percentiles and the largest, in milliseconds; None of nothing."""
    if not seconds:
        return None
    spread = {"mean": sum(seconds) / len(seconds), **{f"p{each}": percentile(seconds, each) for each in PERCENTILES}}
    return {name: round(1000 * value, 2) for name, value in {**spread, "max": max(seconds)}.items()}


def _lines(figures: dict[str, Any]) -> Iterator[str]:
    yield f"{figures['model']} at {figures['url']}, {figures['concurrency']} at a time"
    yield ""
    failed = f", {figures['failed']} of them failed" if figures["failed"] else ""
    yield f"Requests             {figures['requests']:>10} in {figures['seconds']:.1f} s{failed}"
    yield f"Requests/s           {figures['requests_per_second']:>10}"
    yield f"Output tokens/s      {figures['output_tokens_per_second']:>10}"
    yield f"Output tokens        {figures['output_tokens']:>10}"
    yield f"Prompt tokens        {figures['prompt_tokens']:>10}"
    columns = ("mean", *(f"p{each}" for each in PERCENTILES), "max")
    yield ""
    yield f"{'Milliseconds':21}" + "".join(f"{column:>10}" for column in columns)
    for name, title in SHOWN.items():
        spread = figures[f"{name}_ms"]
        yield f"{title:21}" + "".join(f"{spread[column] if spread else '-':>10}" for column in columns)
    for error in figures["errors"]:
        yield f"Failed: {error}"
