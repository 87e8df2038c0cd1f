"""Small servers as child processes, and what is left of them."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import psutil
import pytest
from served import a_free_port

from modelcompose.adapters.base import ModelState
from modelcompose.adapters.processes import server as server_module
from modelcompose.adapters.processes.environment import clean
from modelcompose.adapters.processes.install import Installation, Recipe
from modelcompose.adapters.processes.log import Log
from modelcompose.adapters.processes.process import Command, Surroundings
from modelcompose.adapters.processes.server import ManagedServer, ServerSettings

SERVER = """
import http.server, json, os, pathlib, signal, subprocess, sys, time
port, *options = sys.argv[1:]
if "stubborn" in options:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
mark = pathlib.Path("marks"); mark.mkdir(exist_ok=True)
def worker(*more):
    ignore = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(1000)"
    return subprocess.Popen([sys.executable, "-c", ignore], **(more[0] if more else {}))
if "workers" in options:
    (mark / "workers").write_text(f"{worker().pid} {worker({'start_new_session': True}).pid}")
(mark / str(os.getpid())).touch()
print("Loading the weights", flush=True)
began = time.monotonic()
slow = float(next((each[5:] for each in options if each.startswith("slow=")), 0))
if "broken" in options:
    raise ValueError("these weights are broken")
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        is_loading = time.monotonic() - began < slow
        self.answer(503 if is_loading and self.path == "/health" else 200, {"data": [{"id": "m"}], "pid": os.getpid()})
    def do_POST(self):
        data = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/die":
            os.kill(os.getpid(), signal.SIGKILL)
        self.answer(200, {"said": json.loads(data), "env": dict(os.environ), "path": sys.path, "cwd": os.getcwd()})
    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status); self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data))); self.end_headers()
        self.wfile.write(data)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()
"""


def server_command(folder: Path, port: int, *options: str) -> tuple[str, ...]:
    """The words that start the small server; it leaves a file named by its process id in `folder/marks`."""
    script = folder / "small_server.py"
    script.write_text(SERVER, encoding="utf-8")
    return (sys.executable, "-u", str(script), str(port), *options)


def surroundings(folder: Path, **env: str) -> Surroundings:
    return Surroundings({**clean(os.environ), **env}, folder)


def recipe(folder: Path, *, install: tuple[Command, ...] = (), build: tuple[Command, ...] = ()) -> Recipe:
    """The recipe of a server called `small`, without an environment of its own."""
    steps = (("installing", install), ("building", build))
    return Recipe(name="small", place=folder / "place", steps=steps, surroundings=surroundings(folder))


def small_server(
    folder: Path, *options: str, install: tuple[Command, ...] = (), port: int | None = None, timeout: float = 30
) -> ManagedServer:
    port = port or a_free_port()
    settings = ServerSettings(
        name="small", port=port, start=(server_command(folder, port, *options),), timeout=timeout, patience=0.5
    )
    return ManagedServer(settings, Installation(recipe(folder, install=install)), Log(folder / "small.log"))


def be_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let servers be looked at and started again sooner than is good for real ones."""
    monkeypatch.setattr(server_module, "SECONDS_BETWEEN_PROBES", 0.03)
    monkeypatch.setattr(server_module, "SHORTEST_DELAY", 0.05)


def started_in(folder: Path) -> list[int]:
    """The process ids of every small server that was started in a folder."""
    return [int(file.name) for file in (folder / "marks").glob("[0-9]*")]


def workers_in(folder: Path) -> list[int]:
    return [int(word) for word in (folder / "marks" / "workers").read_text().split()]


def is_there(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def gone_within(seconds: float, *pids: int) -> bool:
    """Whether all of them are gone before that time is over."""
    deadline = time.monotonic() + seconds
    while any(map(is_there, pids)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


async def reaches(server: ManagedServer, phase: str, detail: str = "", seconds: float = 20) -> ModelState:
    """The server's first state of that phase, with `detail` in what it says."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                state = server.state
                if state.phase == phase and detail in state.detail:
                    return state
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"not {phase} {detail!r} after {seconds} s but {server.state}")
