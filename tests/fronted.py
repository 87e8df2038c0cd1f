"""Our server on a real socket, in the test's own event loop, in front of adapters of the test's own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager, contextmanager

import uvicorn

from modelcompose.adapters.base import Adapter
from modelcompose.server.app import create_app
from modelcompose.server.protocol import Http
from modelcompose.server.settings import Settings


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


@asynccontextmanager
async def fronted(*models: Adapter, settings: Settings | None = None) -> AsyncIterator[str]:
    """The URL of a server of these models, with `/v1`."""
    listener = socket.create_server(("127.0.0.1", 0))
    app = create_app(models, settings or Settings())
    config = uvicorn.Config(
        app, http=Http, log_config=None, access_log=False, ws="none", proxy_headers=False, timeout_graceful_shutdown=1
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve([listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        await serving
        listener.close()
