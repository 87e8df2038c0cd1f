"""Servers for tests: in process, or over a real socket."""

from __future__ import annotations

import contextlib
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
    with contextlib.ExitStack() as servers:

        def start(models: Sequence[Adapter], settings: Settings | None = None) -> str:
            return servers.enter_context(_served(models, settings or Settings()))

        yield start


@contextlib.contextmanager
def _served(models: Sequence[Adapter], settings: Settings) -> Iterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(create_app(models, settings), log_config=None, access_log=False, ws="none", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.005)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
