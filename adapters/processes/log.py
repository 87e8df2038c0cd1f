"""What a command says: all of it in a file, its last lines at hand."""

from __future__ import annotations

import logging
import os
import re
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

LINES_AT_HAND = 1000
LONGEST_LINE = 500
LARGEST_FILE = 32 << 20
"""Bytes; what is older is kept in one more file of that size."""

_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07]*\x07")
_END_OF_LINE = re.compile(rb"[\r\n]+")
_ERROR = re.compile(r"(?:^|[\s.])\w*(?:Error|Exception|ERROR|error)\b:? \S")
_POINTS_ELSEWHERE = re.compile(r"[Ss]ee (?:root cause|above|stack trace|the log)")
_RULES_AND_NOTICES = re.compile(r"[\W_]*$|\[notice\]|For further information")

logger = logging.getLogger(__name__)


class Log:
    """One log file and the end of what went into it; nothing is lost at hand when the file cannot be written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: deque[str] = deque(maxlen=LINES_AT_HAND)
        self._rest = b""
        self._file: int | None = None
        self._size = 0
        self._is_broken = False

    def begin(self, what: str) -> None:
        """Begin with a new command; its lines do not mix with those of the one before."""
        self._lines.clear()
        self._rest = b""
        self._write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {what}\n".encode())

    def feed(self, data: bytes) -> None:
        """Add output, cut anywhere."""
        self._write(data)
        *whole, rest = _END_OF_LINE.split(self._rest + data)
        self._rest = rest[-4 * LONGEST_LINE :]
        self._lines += [line for piece in whole if (line := _readable(piece))]

    def close(self) -> None:
        """Close the file; what is added later opens it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    @property
    def last(self) -> str:
        """The last line."""
        return _readable(self._rest) or (self._lines[-1] if self._lines else "")

    @property
    def tail(self) -> Sequence[str]:
        """The last lines of the command that runs, or ran."""
        rest = _readable(self._rest)
        return [*self._lines, *([rest] if rest else [])]

    @property
    def blame(self) -> str:
        """The line that says best what went wrong."""
        telling = [line for line in self.tail if not _RULES_AND_NOTICES.match(line)]
        errors = [line for line in telling if _ERROR.search(line)]
        causes = [line for line in errors if not _POINTS_ELSEWHERE.search(line)]
        return (causes or errors or telling or [""])[-1]

    def _write(self, data: bytes) -> None:
        if self._is_broken:
            return
        try:
            if self._file is None:
                self._open()
            elif self._size > LARGEST_FILE:
                self.close()
                self._open()
            assert self._file is not None
            os.write(self._file, data)
            self._size += len(data)
        except OSError as error:
            self._is_broken = True
            logger.warning("%s cannot be written: %s", self.path, error.strerror)

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists() and self.path.stat().st_size > LARGEST_FILE:
            self.path.replace(self.path.with_name(f"{self.path.name}.1"))
        # For nobody else's eyes: a server may log its keys.
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = os.fstat(self._file).st_size


def _readable(line: bytes) -> str:
    text = _ANSI.sub("", line.decode("utf-8", "replace")).strip()
    return text if len(text) <= LONGEST_LINE else f"{text[: LONGEST_LINE - 4]} ..."
