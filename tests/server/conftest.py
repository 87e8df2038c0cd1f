"""Servers for tests: in process, or over a real socket."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import httpx2
import pytest
import uvicorn

from modelcompose.adapters.base import Adapter
from modelcompose.clients.listen import listen, url_of
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
    running: list[tuple[uvicorn.Server, threading.Thread]] = []
    opened = ExitStack()

    def start(models: Sequence[Adapter], settings: Settings | None = None) -> str:
        app = create_app(models, settings or Settings())
        sockets = opened.enter_context(listen("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, ws="none", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": sockets})
        thread.start()
        running.append((server, thread))
        while not server.started:
            time.sleep(0.005)
        return url_of("127.0.0.1", sockets)

    with opened:
        yield start
        for server, _ in running:
            server.should_exit = True
        for _, thread in running:
            thread.join()
