"""Where the output of a run goes: to standard output as it comes, or to a file when it is whole."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ..adapters.errors import ConfigError
from ..adapters.runs import JobNews, JsonPiece, TextPiece
from .console import Console, harmless
from .run_answer import Output, Told

_IMPLICIT_JOB = "default"


class Display:
    """Shows one run: pieces of a text as they come, items of a list a line each, anything else as indented JSON.

    News of the jobs are for people at a terminal.
    """

    def __init__(self, console: Console, file: Path | None) -> None:
        self._console = console
        self._file = file
        self._last = ""

    def show(self, told: Told) -> None:
        """Show what was told; raises ConfigError if the file cannot be written."""
        match told:
            case JobNews(job=job, status="processing") if job != _IMPLICIT_JOB and sys.stderr.isatty():
                self._console.say(f"{job} ...", "dim")
            case TextPiece(text=text) if self._file is None:
                self._write(text)
            case JsonPiece(value=value) if self._file is None:
                self._write(json.dumps(value, ensure_ascii=False) + "\n")
            case Output(value=value) if self._file is not None:
                self._save(as_text(value), self._file)
            case Output(value=value):
                if not self._last:
                    self._write(as_text(value))
                if not self._last.endswith("\n"):
                    self._write("\n")
            case _:
                pass

    def _write(self, text: str) -> None:
        print(harmless(text) if sys.stdout.isatty() else text, end="", flush=True)
        self._last = text or self._last

    def _save(self, text: str, file: Path) -> None:
        try:
            file.write_text(text, encoding="utf-8", newline="")
        except OSError as error:
            raise ConfigError(f"{file} cannot be written: {error.strerror}") from None


def as_text(output: Any) -> str:
    """A text as it is, anything else as indented JSON with a line end."""
    return output if isinstance(output, str) else json.dumps(output, ensure_ascii=False, indent=2) + "\n"
