"""Asking a server many times at once, and noting when the pieces of the answers come."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, NamedTuple

import httpx2

from ..adapters.sse import EventDecoder
from ..adapters.upstream import said
from .bench_report import Answer

SECONDS_TO_CONNECT = 10.0
_REFUSED = (400, 401, 403, 404, 413, 422)
_TEXTS = ("content", "reasoning_content", "reasoning")


class Load(NamedTuple):
    """What to ask at `url` (which ends in `/v1`): the same body `requests` times, at most `concurrency` at a time."""

    url: str
    headers: dict[str, str]
    body: dict[str, Any]
    requests: int
    concurrency: int


async def ask(load: Load, note: Callable[[Answer], None]) -> None:
    """Ask for all of the answers, and `note` each as soon as it is whole or has failed."""
    left = iter(range(load.requests))

    async def one_after_another(client: httpx2.AsyncClient) -> None:
        for _ in left:
            note(await answer(client, load))

    timeout = httpx2.Timeout(SECONDS_TO_CONNECT, read=None, pool=None)
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=load.concurrency)
    client = httpx2.AsyncClient(timeout=timeout, limits=limits, headers=load.headers)
    async with client, asyncio.TaskGroup() as tasks:
        for _ in range(min(load.concurrency, load.requests)):
            tasks.create_task(one_after_another(client))


async def answer(client: httpx2.AsyncClient, load: Load) -> Answer:
    """One streamed answer; what goes wrong is its `error`."""
    found = Answer(sent=time.perf_counter())
    try:
        async with client.stream("POST", f"{load.url}/chat/completions", json=load.body) as response:
            if response.is_success:
                await _read(response, found)
            else:
                found.is_refused = response.status_code in _REFUSED
                found.error = said((await response.aread()).decode(errors="replace")) or response.reason_phrase
    except httpx2.HTTPError as error:
        found.error = f"the connection broke: {error or type(error).__name__}"
    found.ended = time.perf_counter()
    return found


async def _read(response: httpx2.Response, found: Answer) -> None:
    decoder = EventDecoder()
    async with aclosing(response.aiter_bytes()) as pieces:
        async for data in pieces:
            now = time.perf_counter()
            for event in decoder.feed(data):
                if event.data == "[DONE]":
                    return
                _take(json.loads(event.data), now, found)
    found.error = found.error or "the answer was broken off"


def _take(chunk: dict[str, Any], now: float, found: Answer) -> None:
    if error := chunk.get("error"):
        found.error = str(error.get("message", error) if isinstance(error, dict) else error)
    if usage := chunk.get("usage"):
        found.tokens, found.prompt_tokens = usage.get("completion_tokens"), usage.get("prompt_tokens")
    for choice in chunk.get("choices", ()):
        delta = choice.get("delta") or {}
        if any(delta.get(name) for name in _TEXTS) or delta.get("tool_calls"):
            found.pieces.append(now)
