"""Times and sizes as people write them. Pure."""

from __future__ import annotations

import re

_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_BYTES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
_TIME = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[hms]))+")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?", re.IGNORECASE)

NEVER = -1.0
"""The number of seconds that stands for a time that does not come, as in Ollama."""


def seconds_in(text: str) -> float | None:
    """`1.5s`, `5m`, `1h30m`, `200ms` in seconds; None if it is no such text."""
    if not _TIME.fullmatch(text):
        return None
    return sum(float(number) * _SECONDS[unit] for number, unit in re.findall(r"([\d.]+)(ms|[hms])", text))


def bytes_in(text: str) -> int | None:
    """`4GB`, `500 MB`, `1.5GiB`, `2g`, `1000` in bytes; None if it is no such text."""
    found = _SIZE.fullmatch(text.strip())
    return None if found is None else int(float(found[1]) * _BYTES[(found[2] or "").upper()])


def until_never(text: str) -> float | None:
    """As `seconds_in`, and `never` and plain numbers besides."""
    if text == "never":
        return NEVER
    try:
        return float(text)
    except ValueError:
        return seconds_in(text)
