"""`model-compose ps`: lists the servers that run, and how their models are."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from .compose_files import ComposeOptions
from .console import describe, open_console
from .reach import conditions
from .running import RunningServer, running_servers, servers_here

_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def run(options: ComposeOptions, *, is_everywhere: bool) -> int:
    """Print a table of the servers of this folder, or of all folders; exit code 0."""
    servers = running_servers() if is_everywhere else servers_here(options)
    if not servers:
        place = "" if is_everywhere else " of this folder"
        open_console().say(f"No server{place} is running; 'model-compose up' starts one.")
        return 0
    print("\n".join(table([row for server in servers for row in _rows(server)])))
    return 0


def table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """The rows under their headings, in columns."""
    rows = [("URL", "PROCESS", "UP", "FOLDER", "MODEL", "STATE"), *rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def ago(seconds: float) -> str:
    """A time in its largest unit: `3h`."""
    size, unit = next(((size, unit) for size, unit in _UNITS if seconds >= size), _UNITS[-1])
    return f"{int(seconds // size)}{unit}"


def _rows(server: RunningServer) -> Iterator[tuple[str, ...]]:
    """A row for each of its models; what is the server's own stands in the first."""
    own = (server.url, str(server.pid), ago(time.time() - server.started), server.working_dir)
    cards = conditions(f"{server.url}/v1")
    states = [("", "does not answer")] if cards is None else [(card.id, describe(card.state)) for card in cards]
    for number, state in enumerate(states or [("", "")]):
        yield (*(own if number == 0 else ("",) * len(own)), *state)
