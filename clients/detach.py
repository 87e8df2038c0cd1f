"""`model-compose up -d`: starts a server that outlives this command, and returns when it is ready.

This module is also that server's program: it reads the options from standard input, so that no key is seen in a list of
processes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

import msgspec

from ..adapters.errors import ComposeError, ConfigError
from .compose_files import paths_of
from .console import Console, explained, open_console
from .exit_codes import INTERRUPTED, WRONG
from .log_size import keep_small, older
from .plan import UpOptions, plan_of
from .reach import conditions
from .running import RunningServer, log_of, running_servers, server_with

SECONDS_BETWEEN_LOOKS = 0.1
NOT_STARTED = 1


def run(options: UpOptions) -> int:
    """Start the server and wait for it: exit code 0 when it is ready, else its own, after the last it said.

    Raises ConfigError.
    """
    console, plan = open_console(), plan_of(options)
    if (there := server_with(plan.port, options.compose)) is not None:
        console.say(f"{there.url} is served already (process {there.pid}); 'model-compose down' stops it.")
        return 0
    log = log_of(paths_of(options.compose))
    with _opened(log) as output:
        process = _start(msgspec.structs.replace(options, log=log), output)
    try:
        ready = _wait_until_ready(process, console)
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        return INTERRUPTED
    if ready is None:
        console.say(log.read_text(encoding="utf-8", errors="replace").strip())
        return process.returncode or NOT_STARTED
    console.say(f"Ready: {ready.url}/v1 (process {ready.pid})", "bold green")
    if ready.webui is not None:
        console.say(f"Web UI: {ready.webui} (in a few seconds)", "bold green")
    elif plan.webui is not None:
        console.say("There is no Web UI; 'model-compose logs' says why.", "yellow")
    console.say("'model-compose logs' shows what it says, 'model-compose down' stops it.")
    return 0


def _opened(log: Path) -> IO[bytes]:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        older(log).unlink(missing_ok=True)
        log.write_bytes(b"")
        return log.open("ab")
    except OSError as error:
        raise ConfigError(f"the log {log} cannot be written: {error.strerror}") from None


def _start(options: UpOptions, output: IO[bytes]) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=output,
        start_new_session=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdin is not None
    with process.stdin as stdin:
        stdin.write(msgspec.json.encode(options, enc_hook=str))
    return process


def _wait_until_ready(process: subprocess.Popen[bytes], console: Console) -> RunningServer | None:
    """The server, once none of its models loads any more; None if it has ended."""
    with console.loading() as loading:
        while process.poll() is None:
            server = next((each for each in running_servers() if each.pid == process.pid), None)
            if server is not None and (cards := conditions(f"{server.url}/v1")) is not None:
                loading.update([card for card in cards if card.id not in server.workflows])
                if all(card.state.phase != "loading" for card in cards) and any(
                    card.state.phase != "failed" for card in cards
                ):
                    return server
            time.sleep(SECONDS_BETWEEN_LOOKS)
    return None


def _path(kind: type, value: Any) -> Any:
    return kind(value)


def main() -> int:
    """Serve what standard input says."""
    from .up import run as serve

    options = msgspec.json.decode(sys.stdin.buffer.read(), type=UpOptions, dec_hook=_path)
    if options.log is not None:
        keep_small(options.log)
    try:
        return serve(options)
    except ComposeError as error:
        print(explained(error), file=sys.stderr)
        return WRONG


if __name__ == "__main__":
    raise SystemExit(main())
