"""What usually is behind a command that failed, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..errors import ComposeError, ModelUnavailable
from .log import Log
from .process import Command, said_of, shown

_HINTS = (
    (
        r"pyenv: (?:command )?not found",
        "pyenv is not installed; install it and its plugin pyenv-virtualenv, or let `install` make an environment",
    ),
    (
        r"pyenv: no such command [`'](?:virtualenv|activate)",
        "pyenv lacks its pyenv-virtualenv plugin (https://github.com/pyenv/pyenv-virtualenv)",
    ),
    (r"No space left on device|Disk quota exceeded", "the disk is full"),
    (
        r"externally-managed-environment",
        "this Python belongs to the operating system; let `install` make a virtual environment",
    ),
    (
        r"ensurepip is not\s+available",
        "this Python cannot make virtual environments (Debian: apt install python3-venv)",
    ),
    (r"[Aa]ddress already in use", "the port is taken by another program"),
    (r"Temporary failure in name resolution|Network is unreachable", "there is no network"),
)
_MISSING_PROGRAM = re.compile(r"([\w.+/-]+): (?:command )?not found|^([\w.+/-]+): No such file or directory")
_MISSING_MODULE = re.compile(r"No module named '?([\w]+)")

NOT_FOUND = 127


def failure(name: str, what: str, command: Command, status: int, log: Log) -> ComposeError:
    """The error for a command of `name` that ended as it should not."""
    return ModelUnavailable(
        f"{name}: {what} {said_of(status)}: {reason(command, status, log)}", code="model_not_available"
    )


def reason(command: Command, status: int, log: Log) -> str:
    """Why a command failed, in a line."""
    tail = "\n".join(log.tail)
    for pattern, hint in _HINTS:
        if re.search(pattern, tail):
            return hint
    missing = _missing_program(log.tail) if status == NOT_FOUND else ""
    if missing:
        return f"there is no program '{missing}' here"
    return log.blame or f"'{shown(command)}' said nothing"


def missing_module(log: Log) -> str:
    """The Python module that a command could not import, if that is what its output says."""
    found = _MISSING_MODULE.search("\n".join(log.tail))
    return found[1] if found else ""


def _missing_program(lines: Sequence[str]) -> str:
    for line in reversed(lines):
        if found := _MISSING_PROGRAM.search(line):
            return found[1] or found[2]
    return ""
