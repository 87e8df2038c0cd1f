"""A real server process with a real model behind a real socket, started once for all tests that need one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
import psutil
import pytest
import tiny_models

from modelcompose.adapters.bundled import MODEL_FOLDER

ROOT = Path(__file__).parent.parent
COMMAND = (sys.executable, "-m", "modelcompose.clients.cli")
STATE = tempfile.TemporaryDirectory(prefix="model-compose-", ignore_cleanup_errors=True)
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name != "MODEL_COMPOSE_API_KEY"},
    "PYTHONPATH": str(ROOT / "typings"),
    "HF_HUB_OFFLINE": "1",
    # It has tests of its own, and takes seconds to start.
    "MODEL_COMPOSE_NO_WEBUI": "1",
    # So that no command finds a server that is not the tests' own.
    "XDG_STATE_HOME": STATE.name,
    # Threads that wait for each other are slow beyond measure where the cores have other work as well.
    "OMP_NUM_THREADS": "1",
}
SECONDS_TO_START = 50


class Served:
    """`model-compose up` as it runs: `url` without `/v1`, and what it said so far."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, output: Path) -> None:
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._output = output
        self._clients: list[openai.OpenAI] = []

    @property
    def output(self) -> str:
        return self._output.read_text(encoding="utf-8")

    def client(self, api_key: str = "none") -> openai.OpenAI:
        """The SDK's client, closed when the server ends."""
        self._clients.append(openai.OpenAI(base_url=f"{self.url}/v1", api_key=api_key, max_retries=0, timeout=30))
        return self._clients[-1]

    def close_clients(self) -> None:
        for client in self._clients:
            client.close()

    def health(self) -> httpx2.Response:
        return httpx2.get(f"{self.url}/health", timeout=10)

    def state(self, name: str = "bundled") -> str:
        """What `/health` says that a model does."""
        models: list[dict[str, Any]] = self.health().json()["models"]
        return str(next(model["state"] for model in models if model["id"] == name))

    def count(self, name: str) -> int:
        """One of the engine's counters (`ModelCounters`) of the bundled model, as `/metrics` has it."""
        text = httpx2.get(f"{self.url}/metrics", timeout=10).text
        found = re.search(rf'^modelcompose_model_{name}(?:_total)?{{model="bundled"}} ([0-9.e+]+)$', text, re.MULTILINE)
        assert found, text
        return int(float(found[1]))

    def wait_until_ready(self) -> None:
        self.wait_for_answer(until_status=200)

    def wait_for_answer(self, until_status: int | None = None) -> httpx2.Response:
        """The first answer of `/health`, or the first with a certain status."""
        deadline = time.monotonic() + SECONDS_TO_START
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.output
            try:
                response = self.health()
            except httpx2.TransportError:
                time.sleep(0.02)
                continue
            if until_status in {None, response.status_code}:
                return response
            time.sleep(0.05)
        raise AssertionError(f"not ready after {SECONDS_TO_START} s:\n{self.output}")

    def engines(self) -> list[psutil.Process]:
        """The processes that the server started."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def stop(self, by: signal.Signals = signal.SIGTERM) -> int:
        """End the server as a user or an init system would; its exit code."""
        self.process.send_signal(by)
        return self.process.wait(20)


@contextmanager
def serving(folder: Path, port: int, *options: str) -> Iterator[Served]:
    """Run `up` with these options, its output in a file in `folder`; what is left of it afterwards is killed."""
    output = folder / f"up-{port}.txt"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [*COMMAND, "up", "--port", str(port), *options], env=ENVIRONMENT, stdout=file, stderr=file, cwd=folder
        )
    served = Served(process, port, output)
    try:
        yield served
    finally:
        served.close_clients()
        started = served.engines() if process.poll() is None else []
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for left_over in started:
            if left_over.is_running():
                left_over.kill()


def run_command(*arguments: str, stdin: str = "", cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run `model-compose` to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env=ENVIRONMENT,
        input=stdin,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )


def a_free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random model that loads in a moment and talks nonsense."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_models.qwen2(folder)
    return folder


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Iterator[Served]:
    """The bundled model, served in float32, so that an answer does not depend on its neighbours; all tests share it."""
    options = () if (MODEL_FOLDER / "config.json").exists() else ("--model", f"bundled={tiny_folder}")
    with serving(tmp_path_factory.mktemp("served"), a_free_port(), "--precision", "float32", *options) as server:
        server.wait_until_ready()
        yield server
