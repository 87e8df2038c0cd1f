"""The server's HTTP API as the page uses it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx2
import msgspec

from ...adapters.runs import FieldPiece, InputCard, JobCard, JobNews, JsonPiece, TextPiece, WorkflowCard
from ...adapters.sse import EventDecoder, ServerEvent
from .glance import Model

SECONDS_TO_ANSWER = 10.0


class Refused(Exception):
    """The server says no, or does not answer; the text is for people."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status

    @property
    def wants_key(self) -> bool:
        return self.status in {401, 403}


class Schema(msgspec.Struct, frozen=True):
    """A workflow, what it reads, and its jobs."""

    workflow: WorkflowCard
    input: tuple[InputCard, ...]
    jobs: tuple[JobCard, ...] = ()


class Began(msgspec.Struct, frozen=True):
    """A run has begun, and can be ended by its task's id."""

    task: str


class Ended(msgspec.Struct, frozen=True):
    """A run is over: with its output, or with an error and perhaps the job that failed."""

    output: Any = None
    error: str = ""
    job: str | None = None


Told = Began | JobNews | TextPiece | JsonPiece | FieldPiece | Ended


class Server:
    """The server at `url` (without `/v1`); every call takes the key that the person at the page has given."""

    def __init__(self, url: str, base_path: str) -> None:
        self.url = url
        self.runs = f"{url}{base_path}"
        self._client = httpx2.AsyncClient(
            timeout=httpx2.Timeout(SECONDS_TO_ANSWER, read=None), trust_env=False, limits=httpx2.Limits()
        )

    async def models(self, key: str) -> list[str]:
        """The names of all models, workflows among them."""
        body = await self._get(f"{self.url}/v1/models", key)
        return [str(each["id"]) for each in body["data"]]

    async def workflows(self, key: str) -> list[WorkflowCard]:
        """The workflows, none if the server has none."""
        try:
            return msgspec.convert(await self._get(f"{self.runs}/workflows", key), list[WorkflowCard])
        except Refused as error:
            if error.status == 404:
                return []
            raise

    async def schema(self, workflow: str, key: str) -> Schema:
        """What a workflow reads, and its jobs."""
        return msgspec.convert(await self._get(f"{self.runs}/workflows/{workflow}/schema", key), Schema)

    async def states(self, key: str) -> list[Model]:
        """What the models do, and how much they can hold."""
        body = await self._get(f"{self.url}/health", "", also=(503,))
        listed = await self._get(f"{self.url}/v1/models", key)
        cards = {each["id"]: each for each in listed["data"]}
        found = msgspec.convert(body["models"], list[Model])
        return [_with_card(model, cards.get(model.id, {})) for model in found]

    async def metrics(self) -> str:
        """The counters, in Prometheus' format."""
        response = await self._request("GET", f"{self.url}/metrics", "")
        return response.text

    async def switch(self, model: str, act: str, key: str) -> None:
        """Load or unload a model."""
        response = await self._request("POST", f"{self.url}/models/{act}", key, {"model": model})
        _check(response.status_code, response.content)

    async def chat(self, body: dict[str, Any], key: str) -> AsyncGenerator[dict[str, Any]]:
        """The chunks of an answer. Closing the iterator ends the generation."""
        usage = {"include_usage": True, "continuous_usage_stats": True}
        asked = {**body, "stream": True, "stream_options": usage}
        async with (
            self._stream(f"{self.url}/v1/chat/completions", asked, key) as response,
            aclosing(_events(response)) as events,
        ):
            async for event in events:
                if event.data != "[DONE]":
                    yield json.loads(event.data)

    async def run(self, workflow: str, given: dict[str, Any], key: str) -> AsyncGenerator[Told]:
        """What the server tells of a run, `Ended` last. Closing the iterator ends the run."""
        body = {"workflow_id": workflow, "input": given, "stream": True}
        async with self._stream(f"{self.runs}/workflows/runs", body, key, is_whole_error=True) as response:
            yield Began(response.headers.get("x-task-id", ""))
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                yield _ended(json.loads(await response.aread()))
                return
            is_json = False
            async with aclosing(_events(response)) as events:
                async for event in events:
                    if event.name == "output":
                        is_json = json.loads(event.data)["form"] == "json"
                    else:
                        yield _told(event, is_json)
                    if event.name in {"completed", "failed"}:
                        return
        yield Ended(error="the connection to the server broke before the run was over")

    async def cancel(self, task: str, key: str) -> None:
        """End a run."""
        await self._request("POST", f"{self.runs}/tasks/{task}/cancel", key)

    @asynccontextmanager
    async def _stream(
        self, url: str, body: dict[str, Any], key: str, *, is_whole_error: bool = False
    ) -> AsyncIterator[httpx2.Response]:
        try:
            async with self._client.stream("POST", url, json=body, headers=_headers(key)) as response:
                is_told = is_whole_error and b'"task_id"' in await _start(response)
                if response.status_code >= 400 and not is_told:
                    _check(response.status_code, await response.aread())
                yield response
        except httpx2.TransportError as error:
            raise Refused(f"The connection to the server at {self.url} broke: {error}") from None

    async def _get(self, url: str, key: str, also: Sequence[int] = ()) -> Any:
        response = await self._request("GET", url, key)
        if response.status_code not in also:
            _check(response.status_code, response.content)
        return response.json()

    async def _request(self, method: str, url: str, key: str, body: object = None) -> httpx2.Response:
        try:
            return await self._client.request(
                method, url, headers=_headers(key), timeout=SECONDS_TO_ANSWER, json=body or None
            )
        except httpx2.TransportError as error:
            why = f": {error}" if str(error) else ""
            raise Refused(f"The server at {self.url} does not answer{why}") from None


def _with_card(model: Model, card: dict[str, Any]) -> Model:
    """A model with what `/v1/models` says of it."""
    is_ours = card.get("owned_by") in {None, "model-compose"}
    return msgspec.structs.replace(model, context=card.get("max_model_len"), is_ours=is_ours)


async def _start(response: httpx2.Response) -> bytes:
    """The body of an error."""
    return await response.aread() if response.status_code >= 400 else b""


def _headers(key: str) -> dict[bytes, bytes]:
    return {b"authorization": f"Bearer {key}".encode()} if key else {}  # also a wrong key with letters of all kinds


async def _events(response: httpx2.Response) -> AsyncGenerator[ServerEvent]:
    decoder = EventDecoder()
    async for data in response.aiter_bytes():
        for event in decoder.feed(data):
            yield event


def _told(event: ServerEvent, is_json: bool) -> Told:
    match event.name:
        case "job":
            return msgspec.json.decode(event.data, type=JobNews)
        case "field":
            return msgspec.json.decode(event.data, type=FieldPiece)
        case "completed" | "failed":
            return _ended(json.loads(event.data))
        case _:
            return JsonPiece(json.loads(event.data)) if is_json else TextPiece(event.data)


def _ended(task: dict[str, Any]) -> Ended:
    error = task.get("error")
    if error is None:
        return Ended(task.get("output"))
    return Ended(error=str(error.get("message")), job=error.get("job"))


def _check(status: int, content: bytes) -> None:
    """Raises Refused, in the server's words, if its answer is an error."""
    if status < 400:
        return
    try:
        message = str(json.loads(content)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = f"the server answered with status {status}"
    raise Refused(message, status)
