"""How much streaming costs the server, beside a bare Starlette app that relays chunks made beforehand.

    python benchmarks/streaming.py [--streams 64] [--tokens 400] [--step-ms 2]

Both serve the same pretended engine, which gives every running stream one token a step, over a real socket. What counts
is the CPU time a chunk costs the server process: the rate is bounded by the steps when the machine is fast enough.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import multiprocessing.connection
import resource
import selectors
import socket
import threading
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

_END = b"0\r\n\r\n"
_BODY = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}]}


@dataclass
class Load:
    """How many streams at a time, tokens a stream, and seconds a step of the pretended engine."""

    streams: int
    tokens: int
    step: float


@dataclass
class Result:
    chunks: int
    seconds: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        return self.chunks / self.seconds

    @property
    def cost(self) -> float:
        """Microseconds of the server's CPU time for a chunk."""
        return self.cpu_seconds / self.chunks * 1e6


class Engine:
    """Gives every running stream `item` once a step, `tokens` times, then None; begins when all streams are there."""

    def __init__(self, load: Load, item: object) -> None:
        self._load = load
        self._item = item
        self._queues: list[asyncio.Queue[object]] = []

    async def stream(self) -> AsyncIterator[Any]:
        queue: asyncio.Queue[object] = asyncio.Queue()
        self._queues.append(queue)
        if len(self._queues) == self._load.streams:
            self._running = asyncio.create_task(self._run())
        while (item := await queue.get()) is not None:
            yield item

    async def _run(self) -> None:
        queues, self._queues = self._queues, []
        for _ in range(self._load.tokens):
            for queue in queues:
                queue.put_nowait(self._item)
            await asyncio.sleep(self._load.step)
        for queue in queues:
            queue.put_nowait(None)


def relay(load: Load) -> Any:
    """A bare Starlette app: chunks of the same size, made beforehand."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import StreamingResponse
    from starlette.routing import Route

    from modelcompose.adapters.events import TextDelta
    from modelcompose.server.encode import ChatEncoder, Frame

    frame = Frame(id="chatcmpl-" + "0" * 24, created=1_700_000_000, model="m", fingerprint="fp_0123456789")
    engine = Engine(load, ChatEncoder(frame).chunk(TextDelta(" token")))

    async def stream(request: Request) -> StreamingResponse:
        await request.json()
        return StreamingResponse(engine.stream(), media_type="text/event-stream")

    return Starlette(routes=[Route("/v1/chat/completions", stream, methods=["POST"])])


def ours(load: Load) -> Any:
    """The server of this project."""
    from modelcompose.adapters.base import GenerationRequest, ModelCard
    from modelcompose.adapters.events import Event, Finish, TextDelta, Usage
    from modelcompose.server.app import create_app
    from modelcompose.server.settings import Settings

    engine = Engine(load, TextDelta(" token"))

    class Pretended:
        def cards(self) -> Sequence[ModelCard]:
            return [ModelCard(id="m", created=0)]

        async def generate(self, request: GenerationRequest) -> AsyncIterator[Event]:
            async for event in engine.stream():
                yield event
            yield Finish("stop")
            yield Usage(1, load.tokens)

    return create_app([Pretended()], Settings())


def serve(make: Any, load: Load, sock: socket.socket, pipe: multiprocessing.connection.Connection) -> None:
    """The server process: answers every message on `pipe` with the CPU seconds it has used so far."""
    import uvicorn

    def report() -> None:
        while pipe.recv():
            usage = resource.getrusage(resource.RUSAGE_SELF)
            pipe.send(usage.ru_utime + usage.ru_stime)
        server.should_exit = True

    server = uvicorn.Server(uvicorn.Config(make(load), log_level="warning", access_log=False))
    threading.Thread(target=report, daemon=True).start()
    server.run(sockets=[sock])


def measure(make: Any, load: Load) -> Result:
    """Start a server of its own, warm it up with one round, and measure the next."""
    # With its protocol's number, or asyncio would let small pieces wait for acknowledgements.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    pipe, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(make, load, listener, theirs))
    server.start()
    try:
        read_all(listener.getsockname(), load.streams)
        pipe.send(True)
        before, started = pipe.recv(), time.perf_counter()
        chunks = read_all(listener.getsockname(), load.streams)
        seconds = time.perf_counter() - started
        pipe.send(True)
        return Result(chunks, seconds, pipe.recv() - before)
    finally:
        pipe.send(False)
        server.join()
        listener.close()


def read_all(address: tuple[str, int], streams: int) -> int:
    """Open the streams, read them to their ends, and count their chunks."""
    body = json.dumps(_BODY).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    chunks = 0
    with selectors.DefaultSelector() as selector:
        for _ in range(streams):
            sock = socket.create_connection(address)
            sock.sendall(head + body)
            selector.register(sock, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                sock = key.fileobj  # type: ignore[assignment]
                data = sock.recv(1 << 16)
                chunks += data.count(b"data: {")
                if not data or data.endswith(_END):
                    selector.unregister(sock)
                    sock.close()
    return chunks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--step-ms", type=float, default=2.0)
    args = parser.parse_args()
    load = Load(args.streams, args.tokens, args.step_ms / 1000)
    bare, full = measure(relay, load), measure(ours, load)
    print(f"{'':22}{'chunks/s':>12}{'CPU us/chunk':>14}")
    for name, result in (("bare Starlette relay", bare), ("model-compose", full)):
        print(f"{name:22}{result.rate:12,.0f}{result.cost:14.1f}")
    print(f"{'ratio of rates':22}{full.rate / bare.rate:12.2f}")


if __name__ == "__main__":
    main()
