"""Asking a server to run a workflow, and what it tells meanwhile."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx2
import msgspec

from ..adapters.errors import ComposeError, InvalidRequest, ModelNotFound, ModelUnavailable, Unauthorized
from ..adapters.runs import JobNews, JsonPiece, TextPiece, WorkflowCard
from ..adapters.sse import EventDecoder, ServerEvent

SECONDS_TO_CONNECT = 10.0
_NOT_FOUND = 404
_WRONG_KEY = (401, 403)


class RunServer(NamedTuple):
    """Where workflows can be run: `url` without `/v1`, and the prefix of the runs API."""

    url: str
    base_path: str
    api_key: str | None

    @property
    def api(self) -> str:
        return f"{self.url}{self.base_path}"

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}


class Output(NamedTuple):
    """The whole output; the last thing that is told."""

    value: Any


Told = JobNews | TextPiece | JsonPiece | Output


def workflow_card(server: RunServer, id: str | None) -> WorkflowCard:
    """The workflow of that id, or the default one; raises ComposeError."""
    with _connected(server):
        response = httpx2.get(f"{server.api}/workflows", headers=server.headers, timeout=SECONDS_TO_CONNECT)
    _check(response.status_code, response.content, server)
    cards = msgspec.json.decode(response.content, type=list[WorkflowCard])
    found = [card for card in cards if (card.default if id is None else card.workflow_id == id)]
    if not found:
        named = "there is no default workflow" if id is None else f"there is no workflow '{id}'"
        there = ", ".join(card.workflow_id for card in cards)
        raise ModelNotFound(f"{named}; the server at {server.url} has: {there or 'none'}")
    return found[0]


def answers(server: RunServer, workflow: str, given: Any) -> Generator[Told]:
    """What the server tells of a run, up to its output. Closing the iterator ends the run.

    Raises InvalidRequest if the input is wrong, and another ComposeError if the run fails.
    """
    body = {"workflow_id": workflow, "input": given, "stream": True}
    timeout = httpx2.Timeout(SECONDS_TO_CONNECT, read=None)
    request = httpx2.stream("POST", f"{server.api}/workflows/runs", json=body, headers=server.headers, timeout=timeout)
    with _connected(server), request as response:
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            content = response.read()
            _check(response.status_code, content, server)
            yield Output(json.loads(content)["output"])
            return
        yield from _told(_events(response))


def _events(response: httpx2.Response) -> Iterator[ServerEvent]:
    decoder = EventDecoder()
    for data in response.iter_bytes():
        yield from decoder.feed(data)


def _told(events: Iterator[ServerEvent]) -> Iterator[Told]:
    is_json = False
    for event in events:
        match event.name:
            case "job":
                yield msgspec.json.decode(event.data, type=JobNews)
            case "output":
                is_json = json.loads(event.data)["form"] == "json"
            case "failed":
                raise _error(json.loads(event.data)["error"])
            case "completed":
                yield Output(json.loads(event.data)["output"])
                return
            case "field":
                continue  # what belongs into an object is shown with all of it
            case _:
                yield JsonPiece(json.loads(event.data)) if is_json else TextPiece(event.data)
    raise ModelUnavailable("the connection to the server broke before the run was over")


def _check(status: int, content: bytes, server: RunServer) -> None:
    """Raises what the server's answer says, if that is an error."""
    if status in _WRONG_KEY:
        raise Unauthorized(f"the server at {server.url} wants a key, or another one: --api-key KEY")
    if status < 400:
        return
    try:
        error = json.loads(content)["error"]
    except (ValueError, KeyError, TypeError):
        error = {"message": f"the server at {server.url} answered {status}", "type": "server_error"}
    if status == _NOT_FOUND and error.get("code") is None:
        raise ModelNotFound(f"the server at {server.url} serves no workflows")
    raise _error(error)


def _error(error: dict[str, Any]) -> ComposeError:
    """A server's error; of the client's own making if it says so."""
    job = error.get("job")
    message = f"job '{job}': {error['message']}" if job not in (None, "default") else str(error["message"])
    is_ours = error.get("type") == "invalid_request_error"
    return InvalidRequest(message) if is_ours else ComposeError(message)


@contextmanager
def _connected(server: RunServer) -> Iterator[None]:
    """Put into words what goes wrong with the connection."""
    try:
        yield
    except httpx2.TransportError as error:
        raise ModelUnavailable(f"the connection to the server at {server.url} broke: {error}") from None
