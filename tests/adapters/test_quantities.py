"""Times and sizes as people write them."""

from __future__ import annotations

import pytest

from modelcompose.adapters.quantities import NEVER, bytes_in, seconds_in, until_never


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("1.5s", 1.5),
        ("5m", 300),
        ("1h30m", 5400),
        ("200ms", 0.2),
        ("5", None),
        ("never", None),
        ("m", None),
    ],
)
def test_times(text: str, seconds: float | None) -> None:
    assert seconds_in(text) == seconds


@pytest.mark.parametrize(("text", "seconds"), [("never", NEVER), ("-1", -1), ("0", 0), ("10m", 600), ("soon", None)])
def test_times_that_may_not_come(text: str, seconds: float | None) -> None:
    assert until_never(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1000", 1000),
        ("4GB", 4_000_000_000),
        ("500 MB", 500_000_000),
        ("1.5GiB", 3 << 29),
        ("2g", 2_000_000_000),
        ("64kib", 65536),
        ("GB", None),
        ("4 apples", None),
        ("-1", None),
    ],
)
def test_sizes(text: str, size: int | None) -> None:
    assert bytes_in(text) == size
