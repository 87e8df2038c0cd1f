"""Servers for tests: in process, or over a real socket."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import httpx2
import pytest
import uvicorn

from modelcompose.adapters.base import Adapter
from modelcompose.server.app import create_app
from modelcompose.server.settings import Settings

Client = Callable[..., httpx2.AsyncClient]
Serve = Callable[..., str]


@pytest.fixture
def client() -> Client:
    """Makes a client of an app that lives in the test's own event loop."""

    def make(*models: Adapter, settings: Settings | None = None) -> httpx2.AsyncClient:
        app = create_app(models, settings or Settings())
        return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test")

    return make


@pytest.fixture(scope="module")
def serve() -> Iterator[Serve]:
    """Starts servers on real sockets, and gives their URLs."""
    running: list[tuple[uvicorn.Server, threading.Thread, socket.socket]] = []

    def start(models: Sequence[Adapter], settings: Settings | None = None) -> str:
        app = create_app(models, settings or Settings())
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, ws="none", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        running.append((server, thread, listener))
        while not server.started:
            time.sleep(0.005)
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for server, _, _ in running:
        server.should_exit = True
    for _, thread, listener in running:
        thread.join()
        listener.close()
