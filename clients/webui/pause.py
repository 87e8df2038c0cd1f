"""How long to wait between two views of something that grows. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

SECONDS_BETWEEN_VIEWS = 0.07


class Pause:
    """As long as the last view took, so that showing a very long text leaves time to read what comes next."""

    def __init__(self) -> None:
        self.seconds = SECONDS_BETWEEN_VIEWS

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Around the showing of a view."""
        began = time.monotonic()
        yield
        self.seconds = max(SECONDS_BETWEEN_VIEWS, time.monotonic() - began)
