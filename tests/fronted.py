"""Our server on a real socket, in the test's own event loop, in front of adapters of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from starlette.types import ASGIApp

from modelcompose.adapters.base import Adapter
from modelcompose.clients.listen import listen, url_of
from modelcompose.server.app import create_app
from modelcompose.server.serving import config_of
from modelcompose.server.settings import Settings


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


@asynccontextmanager
async def fronted(*models: Adapter, settings: Settings | None = None) -> AsyncIterator[str]:
    """The URL of a server of these models, with `/v1`."""
    async with serving(create_app(models, settings or Settings())) as url:
        yield f"{url}/v1"


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[str]:
    """The URL of an app that is served as `model-compose up` does."""
    server = _Server(config_of(app, last_words=1))
    with listen("127.0.0.1", 0) as sockets:
        task = asyncio.create_task(server.serve(sockets))
        try:
            yield url_of("127.0.0.1", sockets)
        finally:
            server.should_exit = True
            await task
