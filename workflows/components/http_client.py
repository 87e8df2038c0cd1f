"""Servers that are only talked to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from ..schema import HttpAction, HttpClientComponent
from .call import Call
from .http import Target, exchange, opened_client


class HttpClient:
    """Sends its actions to `base_url` or to their own endpoints."""

    def __init__(self, settings: HttpClientComponent, client: httpx2.AsyncClient) -> None:
        self._target = Target(settings.id, settings.base_url, settings.headers, settings.timeout, settings.retry)
        self._client = client

    @classmethod
    @asynccontextmanager
    async def opened(cls, settings: HttpClientComponent) -> AsyncIterator[HttpClient]:
        """The component with its connections."""
        async with opened_client(is_local=False) as client:
            yield cls(settings, client)

    @asynccontextmanager
    async def call(self, action: HttpAction, call: Call) -> AsyncIterator[Any]:
        """The answer of the server."""
        async with exchange(self._client, self._target, action, call) as answer:
            yield answer
