"""What it costs to have this server between a client and a vLLM server, beside other ways to stand there.

    python benchmarks/proxy.py [--litellm COMMAND] [--httpx2] [--streams 1,16,64] [--starts 6] [--rounds 5] [--awake]

A stub upstream sends 128 chunks, as fast as it can or one every 20 ms, or a whole answer. It is asked directly, through
this server, through a bare relay on Starlette with the HTTP client of this server (and with `--httpx2` one with that),
and through the LiteLLM proxy if its command is given. Everything runs on this machine and shares its cores, so that
what counts are the ratios: rounds go around all ways in turn, everything is started anew `--starts` times, and of each
way the medians are shown, with that of its ratios to the bare relay in the same round.

With one client the three processes wait for each other most of the time, and on a virtual machine it takes longer to
wake a core that halts than to hand on a chunk: who works more and so sleeps less seems quicker. `--awake` (Linux) keeps
each core from halting by a process that runs only while nobody else wants to.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import selectors
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

CHUNKS = 128
SECONDS_BETWEEN = 0.02
MODEL = "m"


# The stub upstream ----------------------------------------------------------------------------------------------------


def chunk(delta: str) -> bytes:
    head = b'{"id":"chatcmpl-0123456789abcdef","object":"chat.completion.chunk","created":1700000000,"model":"m",'
    event = b'data: %b"choices":[{"index":0,"delta":%b,"logprobs":null,"finish_reason":null}]}\n\n' % (
        head,
        delta.encode(),
    )
    return b"%x\r\n%b\r\n" % (len(event), event)


FIRST, PIECE = chunk('{"role":"assistant","content":""}'), chunk('{"content":" token"}')
LAST = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"


def whole(body: Any) -> bytes:
    data = json.dumps(body).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(data), data)


MESSAGE = {"index": 0, "message": {"role": "assistant", "content": "token " * 32}, "finish_reason": "stop"}
COUNTS = {"prompt_tokens": 9, "completion_tokens": 32, "total_tokens": 41}
HEAD = {"id": "chatcmpl-0123456789abcdef", "object": "chat.completion", "created": 1700000000, "model": MODEL}
ANSWER = whole({**HEAD, "choices": [MESSAGE], "usage": COUNTS})
LIST = whole({"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "x"}]})


class Stub(asyncio.Protocol):
    """Answers as the request's `max_tokens` says: 1 a whole answer, 2 a fast stream, 3 a slow one."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.data = b""

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, end, body = self.data.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
        if not end or len(body) < length:
            return
        self.data = b""
        if head.startswith(b"GET"):
            self.transport.write(LIST if b"/models" in head else whole({}))
        elif (asked := json.loads(body)["max_tokens"]) == 1:
            self.transport.write(ANSWER)
        else:
            self.sending = asyncio.ensure_future(self.stream(0 if asked == 2 else SECONDS_BETWEEN))

    async def stream(self, pause: float) -> None:
        self.transport.write(STREAM + FIRST)
        for _ in range(CHUNKS - 1):
            await asyncio.sleep(pause)
            self.transport.write(PIECE)
        self.transport.write(LAST)

    def connection_lost(self, exc: Exception | None) -> None:
        if hasattr(self, "sending"):
            self.sending.cancel()


async def serve_stub(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Stub, "127.0.0.1", port, backlog=512)
    await server.serve_forever()


# Ways to stand in front of it -----------------------------------------------------------------------------------------


async def serve(app: Any, port: int, **more: Any) -> None:
    import uvicorn

    config = uvicorn.Config(app, port=port, log_config=None, access_log=False, server_header=False, **more)
    await uvicorn.Server(config).serve()


async def serve_ours(port: int, upstream: int) -> None:
    """As `model-compose up` does, without the line in the log for each request, as the others have none."""
    import uvicorn

    from modelcompose.adapters.vllm.adapter import UpstreamAdapter
    from modelcompose.adapters.vllm.settings import UpstreamSettings
    from modelcompose.clients.listen import listen
    from modelcompose.server.app import create_app
    from modelcompose.server.serving import collect_less, config_of
    from modelcompose.server.settings import Settings

    async with UpstreamAdapter(UpstreamSettings(base_urls=(f"http://127.0.0.1:{upstream}/v1",))) as adapter:
        await adapter.ready()
        config = config_of(create_app([adapter], Settings()))
        collect_less()
        with listen("127.0.0.1", port) as sockets:
            await uvicorn.Server(config).serve(sockets)


async def serve_bare(port: int, upstream: int) -> None:
    """A bare relay with the same HTTP client as this server."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response, StreamingResponse
    from starlette.routing import Route

    from modelcompose.adapters.vllm.endpoint import Endpoint

    endpoint = Endpoint(f"http://127.0.0.1:{upstream}/v1")

    async def relay(request: Request) -> Response:
        answer = await endpoint.ask(endpoint.post("chat/completions", await request.body()))
        kind = answer.headers[b"content-type"].decode()
        if not kind.startswith("text/event-stream"):
            data = await answer.read()
            while piece := await answer.read():
                data += piece
            answer.leave()
            return Response(data, answer.status, media_type=kind)

        async def pieces() -> AsyncIterator[bytes]:
            try:
                while piece := await answer.read():
                    yield piece
            finally:
                answer.leave()

        return StreamingResponse(pieces(), answer.status, media_type=kind)

    await serve(
        Starlette(routes=[Route("/v1/chat/completions", relay, methods=["POST"])]), port, ws="none", proxy_headers=False
    )


async def serve_httpx2(port: int, upstream: int) -> None:
    """A bare relay with httpx2."""
    import httpx2
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask
    from starlette.requests import Request
    from starlette.responses import Response, StreamingResponse
    from starlette.routing import Route

    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    client = httpx2.AsyncClient(
        base_url=f"http://127.0.0.1:{upstream}/v1/", limits=limits, timeout=None, trust_env=False
    )

    async def relay(request: Request) -> Response:
        body = await request.body()
        asked = client.build_request(
            "POST", "chat/completions", content=body, headers={"content-type": "application/json"}
        )
        answer = await client.send(asked, stream=True)
        kind = answer.headers["content-type"]
        if not kind.startswith("text/event-stream"):
            return Response(await answer.aread(), answer.status_code, media_type=kind)
        return StreamingResponse(
            answer.aiter_raw(), answer.status_code, media_type=kind, background=BackgroundTask(answer.aclose)
        )

    await serve(
        Starlette(routes=[Route("/v1/chat/completions", relay, methods=["POST"])]), port, ws="none", proxy_headers=False
    )


DIRECT, BARE, HTTPX2, OURS, LITELLM_NAME = NAMES = (
    "direct",
    "bare relay",
    "bare relay, httpx2",
    "model-compose",
    "LiteLLM proxy",
)
UNSAFE = "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY"
LITELLM = """
model_list:
  - model_name: m
    litellm_params: {{model: hosted_vllm/m, api_base: "http://127.0.0.1:{port}/v1", api_key: none}}
"""


def run_async(main: Callable[..., Any], *arguments: int) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(*arguments))


@dataclass
class Way:
    """A way to the stub: its port, and the process whose CPU time it costs, if there is one."""

    name: str
    port: int
    process: psutil.Process | None = None

    def cpu_seconds(self) -> float:
        if self.process is None:
            return 0.0
        times = [each.cpu_times() for each in (self.process, *self.process.children(recursive=True))]
        return sum(each.user + each.system for each in times)


@contextlib.contextmanager
def ways(litellm: Path | None, *, httpx2: bool) -> Iterator[list[Way]]:
    """All of them, each a process of its own, ready to answer."""
    with contextlib.ExitStack() as opened:
        stub = a_free_port()
        opened.enter_context(running(serve_stub, stub))
        wait_for(stub)
        found = [Way(DIRECT, stub)]
        relays = {BARE: serve_bare, **({HTTPX2: serve_httpx2} if httpx2 else {}), OURS: serve_ours}
        for name, main in relays.items():
            port = a_free_port()
            pid = opened.enter_context(running(main, port, stub))
            found.append(Way(name, port, psutil.Process(pid)))
        if litellm is not None:
            port = a_free_port()
            pid = opened.enter_context(running_litellm(litellm, port, stub))
            found.append(Way(LITELLM_NAME, port, psutil.Process(pid)))
        for way in found:
            wait_for(way.port)
        yield found


@contextlib.contextmanager
def running(main: Callable[..., Any], *arguments: int) -> Iterator[int]:
    process = multiprocessing.get_context("spawn").Process(target=run_async, args=(main, *arguments), daemon=True)
    process.start()
    assert process.pid is not None
    try:
        yield process.pid
    finally:
        process.terminate()
        process.join()


@contextlib.contextmanager
def running_litellm(command: Path, port: int, stub: int) -> Iterator[int]:
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(LITELLM.format(port=stub), encoding="utf-8")
        line = [
            str(command),
            "--config",
            str(config),
            "--port",
            str(port),
            "--host",
            "127.0.0.1",
            "--telemetry",
            "False",
        ]
        environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", UNSAFE: "true"}
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen(line, cwd=folder, env=environment, stdout=log, stderr=log)
            try:
                yield process.pid
            finally:
                process.terminate()
                process.wait()


def a_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            list(ask(port, "whole", 1, 1))
        except (OSError, RuntimeError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


# The load -------------------------------------------------------------------------------------------------------------

LOADS = {"whole": 1, "fast": 2, "slow": 3}


@dataclass
class Result:
    """`first` is the median time to the first piece of an answer; `cost` the process's CPU time, both in seconds."""

    first: float
    pieces: int
    requests: int
    seconds: float
    cost: float

    @property
    def rate(self) -> float:
        return self.pieces / self.seconds


@dataclass
class Client:
    """One client, which sends one request after the other on one connection."""

    connection: socket.socket
    left: int
    asked: float = 0.0
    data: bytearray = field(default_factory=bytearray)
    first: float | None = None


def request(load: str) -> bytes:
    message = {"role": "user", "content": "word " * 50}
    body = json.dumps({"model": MODEL, "messages": [message], "max_tokens": LOADS[load], "stream": load != "whole"})
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json"
    return f"{head}\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()


def ask(port: int, load: str, clients: int, each: int) -> Iterator[tuple[float, int]]:
    """Send `each` requests from each of so many clients; every answer's time to its first piece, and its pieces."""
    data = request(load)
    mark = b'"message"' if load == "whole" else b"data: {"
    with selectors.DefaultSelector() as selector:
        for _ in range(clients):
            client = Client(socket.create_connection(("127.0.0.1", port)), each)
            client.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.asked = time.perf_counter()
            client.connection.sendall(data)
            selector.register(client.connection, selectors.EVENT_READ, client)
        while selector.get_map():
            for key, _ in selector.select():
                client = key.data
                received = client.connection.recv(1 << 18)
                client.data += received
                if client.first is None and mark in client.data:
                    client.first = time.perf_counter() - client.asked
                if not received:
                    raise RuntimeError("an answer broke off")
                if is_complete(client.data):
                    if client.first is None or not client.data.startswith(b"HTTP/1.1 200"):
                        raise RuntimeError(bytes(client.data[:500]))
                    yield client.first, client.data.count(mark)
                    client.left -= 1
                    client.data.clear()
                    client.first = None
                    if client.left:
                        client.asked = time.perf_counter()
                        client.connection.sendall(data)
                    else:
                        selector.unregister(client.connection)
                        client.connection.close()


def is_complete(data: bytearray) -> bool:
    head, end, body = data.partition(b"\r\n\r\n")
    if b"chunked" in head:
        return body.endswith(b"0\r\n\r\n")
    length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
    return bool(end) and bool(length) and len(body) >= int(length)


def measure(way: Way, load: str, clients: int, each: int) -> Result:
    before, started = way.cpu_seconds(), time.perf_counter()
    answers = list(ask(way.port, load, clients, each))
    seconds = time.perf_counter() - started
    first = statistics.median(first for first, _ in answers)
    return Result(first, sum(pieces for _, pieces in answers), len(answers), seconds, way.cpu_seconds() - before)


HOW_MANY = {"whole": 3000, "fast": 192, "slow": 64}
"""Answers in one measurement, about."""

SECONDS_TO_TIDY = 0.1
"""For whoever was measured to close its connections, before the next one is."""


Point = tuple[str, int]
"""A load, and how many clients."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--litellm", type=Path, help="the command of an installed LiteLLM proxy")
    parser.add_argument("--httpx2", action="store_true", help="a bare relay with httpx2 too")
    parser.add_argument("--streams", default="1,16,64")
    parser.add_argument("--loads", default="whole,fast,slow")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--starts", type=int, default=1)
    parser.add_argument("--awake", action="store_true", help="keep the cores from halting")
    args = parser.parse_args()
    points = [(load, int(each)) for load in args.loads.split(",") for each in args.streams.split(",")]
    results: dict[Point, list[dict[str, Result]]] = {point: [] for point in points}
    with cores_awake() if args.awake else contextlib.nullcontext():
        for _ in range(args.starts):
            with ways(args.litellm, httpx2=args.httpx2) as found:
                for point in points:
                    one_round(found, point, 0)
                    results[point] += [one_round(found, point, number) for number in range(args.rounds)]
    for point in points:
        show(point, results[point])


def one_round(found: Sequence[Way], point: Point, number: int) -> dict[str, Result]:
    """One measurement of every way, by its name; every other round from the last to the first."""
    load, clients = point
    each = min(300, max(1, (HOW_MANY[load] if load != "slow" or clients > 1 else 1) // clients))
    results = {}
    for way in found if number % 2 else reversed(found):
        time.sleep(SECONDS_TO_TIDY)
        results[way.name] = measure(way, load, clients, each if way.name != LITELLM_NAME else max(1, each // 5))
    return results


def keep_awake(core: int) -> None:
    os.sched_setaffinity(0, {core})
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    while True:
        pass


@contextlib.contextmanager
def cores_awake() -> Iterator[None]:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=keep_awake, args=(core,), daemon=True) for core in os.sched_getaffinity(0)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()


def show(point: Point, rounds: Sequence[dict[str, Result]]) -> None:
    load, clients = point
    what = {"whole": "whole answers", "fast": "128 chunks at once", "slow": "128 chunks, 20 ms apart"}[load]
    unit = "requests/s" if load == "whole" else "chunks/s"
    print(f"\n{what}, {clients} at a time")
    print(f"{'':22}{unit:>12}{'to first, ms':>14}{'added, ms':>11}{'CPU us each':>13}{'beside bare':>13}")
    for name in NAMES:
        if name not in rounds[0]:
            continue
        rate = statistics.median(each[name].rate for each in rounds)
        first = statistics.median(each[name].first for each in rounds) * 1e3
        added = statistics.median(each[name].first - each[DIRECT].first for each in rounds) * 1e3
        cost = statistics.median(each[name].cost / each[name].pieces for each in rounds) * 1e6
        ratio = statistics.median(each[name].rate / each[BARE].rate for each in rounds)
        more = f"{added:11.2f}{cost:13.1f}{ratio:13.2f}" if name != DIRECT else ""
        print(f"{name:22}{rate:12,.0f}{first:14.2f}{more}", flush=True)


if __name__ == "__main__":
    main()
