"""The servers that run now: each writes down where it is, so that other commands find the one of their folder.

The notes lie in the user's state folder (`$XDG_STATE_HOME/model-compose`), one for each process; what a server said
that nobody watches lies beside them.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import psutil

from .compose_files import ComposeOptions, paths_of

_log = logging.getLogger(__name__)

_SAME_MOMENT = 2.0
"""Seconds by which two readings of when a process was started may differ."""


class RunningServer(msgspec.Struct, frozen=True, kw_only=True):
    """A server: its process, its URL without `/v1`, and what it was started for.

    `started` (Unix seconds) tells the process from a later one of the same number. `folder` is that of the compose
    file, `working_dir` where the command was given. Without `base_path` it has no workflows, without `log` it speaks to
    a terminal. `workflows` are the names they have as models; `webui` is where its Web UI is or will be in a moment.
    """

    pid: int
    started: float
    url: str
    folder: str
    working_dir: str
    files: tuple[str, ...] = ()
    base_path: str | None = None
    workflows: tuple[str, ...] = ()
    log: str | None = None
    webui: str | None = None

    @property
    def is_alive(self) -> bool:
        """Whether the process is there."""
        with suppress(psutil.Error):
            process = psutil.Process(self.pid)
            is_same = abs(process.create_time() - self.started) < _SAME_MOMENT
            return is_same and process.status() != psutil.STATUS_ZOMBIE
        return False


def state_folder() -> Path:
    """Where notes and logs are kept."""
    given = os.environ.get("XDG_STATE_HOME") or (os.environ.get("LOCALAPPDATA") if sys.platform == "win32" else None)
    return Path(given or Path.home() / ".local" / "state") / "model-compose"


def project_of(files: Sequence[Path]) -> tuple[str, tuple[str, ...]]:
    """The folder and the whole paths of a project's files; without files it is the current folder."""
    paths = [Path(file).absolute() for file in files]
    return str(paths[0].parent if paths else Path.cwd()), tuple(map(str, paths))


def log_of(files: Sequence[Path]) -> Path:
    """Where a server of these files, or of the current folder, writes what it says when nobody watches."""
    folder, paths = project_of(files)
    name = re.sub(r"[^\w.-]+", "-", Path(folder).name) or "root"
    digest = hashlib.sha256("\n".join((folder, *paths)).encode()).hexdigest()[:8]
    return state_folder() / "logs" / f"{name}-{digest}.log"


@contextmanager
def noted(server: RunningServer) -> Iterator[None]:
    """Let other commands find this process's server."""
    note = state_folder() / "servers" / f"{server.pid}.json"
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        whole = note.with_suffix(".new")
        whole.write_bytes(msgspec.json.encode(server))
        whole.replace(note)
    except OSError as error:
        _log.warning("other commands will not find this server: %s", error)
    try:
        yield
    finally:
        with suppress(OSError):
            note.unlink()


def running_servers() -> list[RunningServer]:
    """All of this user's, the newest first; notes of those that are gone are thrown away."""
    found: list[RunningServer] = []
    for note in (state_folder() / "servers").glob("*.json"):
        with suppress(OSError, msgspec.MsgspecError):
            server = msgspec.json.decode(note.read_bytes(), type=RunningServer)
            if server.is_alive:
                found.append(server)
            else:
                note.unlink()
    return sorted(found, key=lambda server: server.started, reverse=True)


def servers_here(options: ComposeOptions) -> list[RunningServer]:
    """Those of the files that are named, or else those of the current folder; raises ConfigError."""
    folder, paths = project_of(paths_of(options))
    return [
        server
        for server in running_servers()
        if (server.files == paths if options.files else folder in (server.folder, server.working_dir))
    ]


def server_with(port: int, options: ComposeOptions) -> RunningServer | None:
    """The one among `servers_here` that has the port."""
    return next((server for server in servers_here(options) if server.url.endswith(f":{port}")), None)
