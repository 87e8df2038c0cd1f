"""Servers of this machine that the file describes: installed, started and ended with this one, and talked to."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2

from ...adapters.base import ModelCard
from ...adapters.processes.environment import clean, find_python, needs_environment
from ...adapters.processes.install import Installation, Recipe
from ...adapters.processes.log import Log
from ...adapters.processes.places import place_of
from ...adapters.processes.process import Surroundings
from ...adapters.processes.server import ManagedServer, ServerSettings
from ..schema import HttpAction, HttpServerComponent, Retry
from .call import Call
from .http import Target, exchange, opened_client

PATIENCE = 600.0
"""Seconds without a byte."""

SAFE_PATH = "PYTHONSAFEPATH"
"""The variable that keeps the current folder off Python's import path."""


class HttpServer:
    """Sends its actions to the server's port on this machine; without a `start` command somebody else runs it."""

    def __init__(
        self, settings: HttpServerComponent, client: httpx2.AsyncClient, managed: ManagedServer | None
    ) -> None:
        base_url = f"http://127.0.0.1:{settings.port}/{settings.base_path.strip('/')}"
        # A request that a server of ours died of is not for the next one.
        retry = Retry() if managed is None else Retry(attempts=1)
        self._target = Target(settings.id, base_url, settings.headers, PATIENCE, retry)
        self._client = client
        self._managed = managed
        self._created = int(time.time())

    @classmethod
    @asynccontextmanager
    async def opened(cls, settings: HttpServerComponent, folder: Path) -> AsyncIterator[HttpServer]:
        """The component; its server is installed and started in the background. `folder` is the compose file's."""
        async with AsyncExitStack() as opened:
            client = await opened.enter_async_context(opened_client(is_local=True))
            managed = None
            if settings.manage.start:
                managed = await opened.enter_async_context(await _managed(settings, folder))
            yield cls(settings, client, managed)

    def cards(self) -> Sequence[ModelCard]:
        """The server under the component's id, if it is run here."""
        managed = self._managed
        return (
            [] if managed is None else [ModelCard(id=managed.settings.name, created=self._created, state=managed.state)]
        )

    @asynccontextmanager
    async def call(self, action: HttpAction, call: Call) -> AsyncIterator[Any]:
        """The answer of the server; raises ModelUnavailable while it is not ready."""
        if self._managed is not None:
            self._managed.check()
        async with exchange(self._client, self._target, action, call) as answer:
            yield answer


async def _managed(settings: HttpServerComponent, folder: Path) -> ManagedServer:
    manage = settings.manage
    place = place_of("servers", settings.id, str(folder))
    env = {**clean(os.environ), "PORT": str(settings.port), **_import_path(settings), **manage.env}
    commands = (*manage.install, *manage.build)
    needs_venv = needs_environment(commands, env)
    recipe = Recipe(
        name=settings.id,
        place=place,
        steps=(("installing", manage.install), ("building", manage.build)),
        surroundings=Surroundings(env, folder / (manage.working_dir or "")),
        venv=place / "venv" if needs_venv else None,
        python=await find_python(None),
    )
    server = ServerSettings(
        name=settings.id, port=settings.port, start=manage.start, clean=manage.clean, timeout=settings.timeout
    )
    return ManagedServer(server, Installation(recipe), Log(place / "server.log"))


def _import_path(settings: HttpServerComponent) -> dict[str, str]:
    """What lies beside a compose file is not meant to be imported, unless the folder was chosen for the server."""
    return {} if settings.manage.working_dir is not None else {SAFE_PATH: "1"}
