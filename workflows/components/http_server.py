"""Servers of this machine that the file describes; here they are talked to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from ..schema import HttpAction, HttpServerComponent, Retry
from .call import Call
from .http import Target, exchange, opened_client

PATIENCE = 600.0
"""Seconds without a byte."""


class HttpServer:
    """Sends its actions to the server's port on this machine."""

    def __init__(self, settings: HttpServerComponent, client: httpx2.AsyncClient) -> None:
        base_url = f"http://127.0.0.1:{settings.port}/{settings.base_path.strip('/')}"
        self._target = Target(settings.id, base_url, settings.headers, PATIENCE, Retry())
        self._client = client

    @classmethod
    @asynccontextmanager
    async def opened(cls, settings: HttpServerComponent) -> AsyncIterator[HttpServer]:
        """The component with its connections."""
        async with opened_client(is_local=True) as client:
            yield cls(settings, client)

    @asynccontextmanager
    async def call(self, action: HttpAction, call: Call) -> AsyncIterator[Any]:
        """The answer of the server."""
        async with exchange(self._client, self._target, action, call) as answer:
            yield answer
