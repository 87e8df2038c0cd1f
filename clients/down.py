"""`model-compose down`: stops the server of this folder."""

from __future__ import annotations

from contextlib import suppress

import psutil

from .compose_files import ComposeOptions
from .console import open_console
from .running import RunningServer, servers_here

SECONDS_TO_STOP = 20
NOT_STOPPED = 1


def run(options: ComposeOptions) -> int:
    """Stop all servers of the files or the folder; exit code 0, or 1 if one is somebody else's."""
    console = open_console()
    found = servers_here(options)
    if not found:
        console.say("No server of this folder is running.")
    exit_code = 0
    for server in found:
        try:
            _stop(server)
        except psutil.AccessDenied:
            console.say(f"{server.url} (process {server.pid}) may not be stopped by this user", "red")
            exit_code = NOT_STOPPED
        else:
            console.say(f"Stopped {server.url} (process {server.pid}).")
    return exit_code


def _stop(server: RunningServer) -> None:
    """Tell the server to end; kill it and all it started if it takes longer than it may."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(server.pid)
        started = process.children(recursive=True)
        process.terminate()
        try:
            process.wait(SECONDS_TO_STOP)
        except psutil.TimeoutExpired:
            for each in (process, *started):
                with suppress(psutil.NoSuchProcess):
                    each.kill()
            psutil.wait_procs([process, *started], timeout=SECONDS_TO_STOP)
