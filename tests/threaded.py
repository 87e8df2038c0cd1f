"""A server of scripted models in a thread of the tests' process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from scripted import ScriptedAdapter

from modelcompose.clients.listen import listen, url_of
from modelcompose.server.app import create_app
from modelcompose.server.settings import Settings


@contextmanager
def served_by(adapter: ScriptedAdapter) -> Iterator[str]:
    """A server in a thread of this process; its URL."""
    server = uvicorn.Server(uvicorn.Config(create_app([adapter], Settings()), log_config=None, ws="none"))
    with listen("127.0.0.1", 0) as sockets:
        thread = threading.Thread(target=server.run, kwargs={"sockets": sockets})
        thread.start()
        try:
            yield f"{url_of('127.0.0.1', sockets)}/v1"
        finally:
            server.should_exit = True
            thread.join()
