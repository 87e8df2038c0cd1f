"""A server like vLLM on a real loopback socket, whose answers are the test's own, to the byte."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from modelcompose.adapters.vllm.adapter import UpstreamAdapter
from modelcompose.adapters.vllm.settings import UpstreamSettings

NAME = "org/model"


class Hang:
    """Wait until the client leaves."""


class Drop:
    """End the connection at once."""


Step = bytes | float | asyncio.Event | Hang | Drop
"""Bytes to send as they are, seconds or something to wait for, or one of the above."""


@dataclass
class Asked:
    """One request that came in, and when (`time.perf_counter`) its client left before the answer was complete."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    left: float | None = None
    is_over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Script = Callable[[Asked], Iterable[Step]]


def whole(body: Any, status: int = 200, kind: str = "application/json", **headers: str) -> list[Step]:
    """A response in one piece."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return [_head(status, kind, {"content-length": str(len(data)), **headers}) + data]


def stream(*steps: Step, kind: str = "text/event-stream") -> list[Step]:
    """A response in chunks; what is no chunk is done between them."""
    chunks = [b"%x\r\n%b\r\n" % (len(step), step) if isinstance(step, bytes) else step for step in steps]
    return [_head(200, kind, {"transfer-encoding": "chunked"}), *chunks, b"0\r\n\r\n"]


def cut(steps: list[Step], *last: Step) -> list[Step]:
    """A response in chunks without its end, `last` in its place."""
    return [*steps[:-1], *last]


def _head(status: int, kind: str, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"content-type: {kind}", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines).replace("_", "-") + "\r\n\r\n").encode()


def event(item: Any) -> bytes:
    """One server-sent event."""
    data = item if isinstance(item, str) else json.dumps(item, separators=(",", ":"))
    return f"data: {data}\n\n".encode()


DONE = event("[DONE]")


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, model: str = NAME, **more: Any) -> bytes:
    """A chunk of a chat stream as vLLM writes it."""
    choice = {"index": 0, "delta": delta or {}, "logprobs": None, "finish_reason": finish}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model}
    return event({**head, "choices": [choice], **more})


def usage(prompt: int, completion: int) -> bytes:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": NAME, "choices": []}
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return event({**head, "usage": counts})


def says(*texts: str) -> list[bytes]:
    """The events of a whole chat stream."""
    deltas = [chunk({"role": "assistant", "content": ""}), *(chunk({"content": text}) for text in texts)]
    return [*deltas, chunk(finish="stop"), usage(3, len(texts)), DONE]


COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": NAME,
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    "prompt_logprobs": None,
}


def hello(asked: Asked) -> Iterable[Step]:
    """Answers everybody."""
    return stream(*says("Hel", "lo")) if asked.json.get("stream") else whole(COMPLETION)


@dataclass
class ScriptedUpstream:
    """The server: `script` answers what is posted; `health` and `models` are what it says of itself."""

    script: Script = hello
    health: int = 200
    models: Any = field(default_factory=lambda: listed(NAME))
    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    was_asked: asyncio.Event = field(default_factory=asyncio.Event)
    connections: int = 0
    looks: int = 0
    tls: ssl.SSLContext | None = None
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"{'http' if self.tls is None else 'https'}://127.0.0.1:{self.port}/v1"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse connections, and drop those that there are."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                asked = await _read(reader)
                gone = asyncio.create_task(reader.read(1))
                answering = asyncio.create_task(self._answer(asked, writer))
                await asyncio.wait({gone, answering}, return_when=asyncio.FIRST_COMPLETED)
                if not answering.done() or answering.exception() is not None:
                    asked.left = time.perf_counter()
                asked.is_over.set()
                gone.cancel()
                answering.cancel()
                await asyncio.gather(gone, answering, return_exceptions=True)
                if writer.is_closing() or asked.left is not None:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()

    async def _answer(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        for step in self._steps(asked):
            match step:
                case bytes():
                    writer.write(step)
                    await writer.drain()
                case asyncio.Event():
                    await step.wait()
                case Hang():
                    await asyncio.Event().wait()
                case Drop():
                    writer.close()
                    return
                case _:
                    await asyncio.sleep(step)

    def _steps(self, asked: Asked) -> Iterable[Step]:
        if asked.path == "/health":
            self.looks += 1
            return whole(b"", self.health)
        if asked.method == "GET":
            return whole(self.models) if not isinstance(self.models, list) else self.models
        self.asked.append(asked)
        self.was_asked.set()
        return self.script(asked)


def listed(*names: str, **more: Any) -> dict[str, Any]:
    """The answer of `/v1/models`."""
    card = {"object": "model", "created": 1_600_000_000, "owned_by": "vllm", "max_model_len": 4096, **more}
    return {"object": "list", "data": [{"id": name, **card} for name in names]}


async def _read(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    return Asked(method, path, headers, await reader.readexactly(int(headers.get("content-length", "0"))))


@asynccontextmanager
async def upstream(script: Script | list[Step] = hello, **more: Any) -> AsyncIterator[ScriptedUpstream]:
    """A running server; a list of steps is what it answers to everything."""
    server = ScriptedUpstream(script=(lambda asked: script) if isinstance(script, list) else script, **more)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def reached(*servers: ScriptedUpstream, **more: Any) -> AsyncIterator[UpstreamAdapter]:
    """An adapter over these servers that has looked at them."""
    settings = UpstreamSettings(base_urls=tuple(server.url for server in servers), **more)
    async with UpstreamAdapter(settings) as adapter:
        await adapter.pool.known()
        yield adapter
