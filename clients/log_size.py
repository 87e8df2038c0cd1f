"""The log of a server that nobody watches: begun anew when it is large, and what was in it is kept beside it once."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from pathlib import Path

LARGEST_LOG = 16 << 20
SECONDS_BETWEEN_LOOKS = 5.0

_log = logging.getLogger(__name__)


def older(log: Path) -> Path:
    """The file with what the log said before it was begun anew."""
    return log.with_name(f"{log.name}.1")


def keep_small(log: Path) -> None:
    """Look after the log of this process as long as it runs."""

    def look() -> None:
        try:
            while True:
                begin_anew(log, LARGEST_LOG)
                threading.Event().wait(SECONDS_BETWEEN_LOOKS)
        except OSError as error:
            _log.warning("%s cannot be kept small: %s", log, error.strerror)

    threading.Thread(target=look, daemon=True).start()


def begin_anew(log: Path, largest: int) -> bool:
    """Whether the log had more bytes than that, and is now empty.

    The file stays the same one, because other processes have it open as well; all of them append to it.
    """
    if log.stat().st_size <= largest:
        return False
    shutil.copyfile(log, older(log))
    os.truncate(log, 0)
    return True
