"""The runs API over scripted models, behind a real socket in the test's own event loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NamedTuple

import httpx2
import uvicorn
from composing import runner
from scripted import ScriptedAdapter

from modelcompose.adapters.sse import EventDecoder, ServerEvent
from modelcompose.clients.listen import listen, url_of
from modelcompose.server.app import create_app
from modelcompose.server.settings import Settings
from modelcompose.workflows.model import workflow_models
from modelcompose.workflows.runs import WorkflowRuns


class Served(NamedTuple):
    """A client of the server, and what lies behind it."""

    http: httpx2.AsyncClient
    scripts: ScriptedAdapter
    server: uvicorn.Server

    async def run(self, given: Any = None, **fields: Any) -> httpx2.Response:
        """The answer to a run."""
        return await self.http.post("/api/workflows/runs", json={"input": given, **fields})

    @asynccontextmanager
    async def stream(self, given: Any = None, **fields: Any) -> AsyncIterator[httpx2.Response]:
        """A run whose answer is read as it comes."""
        body = {"input": given, **fields}
        async with self.http.stream("POST", "/api/workflows/runs", json=body) as response:
            yield response

    async def events(self, given: Any = None, **fields: Any) -> list[ServerEvent]:
        """The server-sent events of a run."""
        response = await self.run(given, **fields)
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8", response.text
        return events_of(response.content)

    async def task(self, id: str) -> dict[str, Any]:
        """A task as it is now."""
        task: dict[str, Any] = (await self.http.get(f"/api/tasks/{id}")).json()
        return task

    async def until(self, id: str, *states: str) -> dict[str, Any]:
        """A task once it is in one of these states."""
        for _ in range(1000):
            if (task := await self.task(id))["status"] in states:
                return task
            await asyncio.sleep(0.01)
        raise AssertionError(f"the task is still {task['status']}")


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


@asynccontextmanager
async def serving(
    form: dict[str, Any], scripts: ScriptedAdapter | None = None, settings: Settings | None = None
) -> AsyncIterator[Served]:
    """A server of a compose file whose models are scripted."""
    scripts = scripts or ScriptedAdapter({})
    async with runner(form, scripts) as opened:
        app = create_app([*workflow_models(opened), scripts], settings or Settings(), WorkflowRuns(opened))
        server = _Server(uvicorn.Config(app, log_config=None, access_log=False, ws="none", timeout_graceful_shutdown=1))
        limits = httpx2.Limits(max_connections=None)
        with listen("127.0.0.1", 0) as sockets:
            serving = asyncio.create_task(server.serve(sockets))
            url = url_of("127.0.0.1", sockets)
            async with httpx2.AsyncClient(base_url=url, timeout=30, limits=limits) as http:
                yield Served(http, scripts, server)
            server.should_exit = True
            await serving


def events_of(content: bytes) -> list[ServerEvent]:
    """The events of a whole body."""
    decoder = EventDecoder()
    return [*decoder.feed(content), *decoder.finish()]


def last_of(events: list[ServerEvent]) -> dict[str, Any]:
    """The data of the last event."""
    data: dict[str, Any] = json.loads(events[-1].data)
    return data
