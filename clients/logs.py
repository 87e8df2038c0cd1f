"""`model-compose logs`: shows what the server that `up -d` started has said."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TextIO

from ..adapters.errors import ConfigError
from .compose_files import ComposeOptions, paths_of
from .exit_codes import INTERRUPTED
from .log_size import older
from .running import log_of, servers_here

SECONDS_BETWEEN_LOOKS = 0.2


def run(options: ComposeOptions, *, follows: bool, lines: int | None) -> int:
    """Print the log, its last `lines` if given, and go on as long as the server runs if `follows`.

    The exit code is 0, or 130 after Ctrl-C. Raises ConfigError if there is no log.
    """
    log = _log(options)
    try:
        with log.open(encoding="utf-8", errors="replace") as file:
            text = (_before(log) + file.read()).splitlines(keepends=True)
            _write("".join(text if lines is None else text[len(text) - min(lines, len(text)) :]))
            if follows:
                for more in _added(file, options):
                    _write(more)
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _log(options: ComposeOptions) -> Path:
    """The log of the server that runs, else of the one that did last."""
    servers = servers_here(options)
    logs = [Path(server.log) for server in servers if server.log is not None]
    log = logs[0] if logs else log_of(paths_of(options))
    if not logs and servers:
        raise ConfigError(f"{servers[0].url} was started without -d; what it says is shown where it was started")
    if not log.exists():
        raise ConfigError("no server of this folder was started with 'model-compose up -d'")
    return log


def _before(log: Path) -> str:
    """What it said before it was begun anew."""
    return older(log).read_text(encoding="utf-8", errors="replace") if older(log).exists() else ""


def _added(file: TextIO, options: ComposeOptions) -> Iterator[str]:
    """What is written from now on, until the server is gone."""
    is_running = True
    size = 0
    while is_running:
        is_running = bool(servers_here(options))
        size = yield from since(file, size)
        time.sleep(SECONDS_BETWEEN_LOOKS)


def since(file: TextIO, size: int) -> Generator[str, None, int]:
    """The lines that are new in a log that was so large; its size now. If it was begun anew, all of its lines are."""
    if os.fstat(file.fileno()).st_size < size:
        file.seek(0)
    yield from file
    return os.fstat(file.fileno()).st_size


def _write(text: str) -> None:
    print(text, end="", file=sys.stdout, flush=True)
