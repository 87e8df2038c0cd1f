"""A server started for one command: `up` as a child process on a free port, which ends with whoever started it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

from ..adapters.errors import ModelUnavailable
from .reach import SECONDS_BETWEEN_LOOKS, served_models

SECONDS_TO_STOP = 10


class OwnServer:
    """The child process; `url` ends in `/v1`."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, output: IO[bytes]) -> None:
        self._process = process
        self._output = output
        self.url = f"http://127.0.0.1:{port}/v1"

    def check(self) -> None:
        """Raises ModelUnavailable, with the server's reason, if it has ended."""
        if self._process.poll() is None:
            return
        self._output.seek(0)
        said = self._output.read().decode(errors="replace")
        reason = re.search(r"\S+ cannot be served: .*", said) or re.search(r"(?<=model-compose: ).*", said)
        raise ModelUnavailable(reason[0] if reason else f"the server could not be started:\n{said.strip()}")

    def wait_for_answer(self, api_key: str | None) -> list[str]:
        """The names of its models, as soon as it answers; raises ModelUnavailable if it ends instead."""
        while True:
            self.check()
            if (models := served_models(self.url, api_key)) is not None:
                return models
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def stop(self) -> None:
        """End the server, and kill it if it takes longer than it may."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def own_server(arguments: Sequence[str], api_key: str | None) -> Iterator[OwnServer]:
    """Start `up` with these arguments; it answers a moment later."""
    port = _free_port()
    command = [sys.executable, "-m", "modelcompose.clients.cli", "up", "--port", str(port), "--log-level", "error"]
    command += ["--no-webui", "--stop-with-stdin", *arguments]
    environment = {**os.environ, "MODEL_COMPOSE_API_KEY": api_key or ""}
    with tempfile.TemporaryFile() as output:
        # A session of its own: Ctrl-C in this terminal stops an answer, not the server.
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True
        )
        server = OwnServer(process, port, output)
        try:
            yield server
        finally:
            server.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
