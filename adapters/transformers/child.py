"""The server's side of one engine process: starting it, talking with it, and its end. Imports nothing heavy."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import zmq

from ..errors import InvalidRequest
from .messages import FromEngine, Launch, ToEngine
from .settings import ModelSettings

STOPPING_SECONDS = 3.0
LOG_LINE_LIMIT = 1 << 20
IPC_PATH_LIMIT = 100

ENVIRONMENT = {
    # So long OpenMP's threads wait for each other in busy loops. For ever, as is its way, slows a step down tenfold on
    # cores that the server and other programs use too; not at all makes each layer wait for a thread to wake. On two
    # cores a step of 350 million weights takes 0.9 (1 answer) to 0.7 (64) of that time with this many rounds, and 1.3
    # of it beside a program that keeps one core busy.
    "GOMP_SPINCOUNT": "5000",
    # How many products of one shape are kept ready, by oneDNN and by PyTorch's layer over it: there are about 300 (see
    # `linear.rounded`), which take 0.4 gigabytes for a model of 350 million weights. With 128 it is no less.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "512",
    "LRU_CACHE_CAPACITY": "512",
    "TOKENIZERS_PARALLELISM": "false",
}

Receive = Callable[[FromEngine], None]

logger = logging.getLogger(__name__)


class Child:
    """An engine process that runs, and the line to it."""

    def __init__(self, process: asyncio.subprocess.Process, line: Line, address: str) -> None:
        self._process = process
        self._line = line
        self.address = address

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: ToEngine) -> None:
        self._line.send(message)

    async def wait(self) -> int:
        """The process's exit status, once it has one and its last messages were received."""
        status = await self._process.wait()
        await asyncio.sleep(0.05)
        self._line.drain()
        return status


class Line:
    """The server's end of the line to an engine: calls `receive` in the event loop with each message that comes."""

    def __init__(self, socket: zmq.Socket[bytes], receive: Receive) -> None:
        self._socket = socket
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[FromEngine] = msgspec.msgpack.Decoder(FromEngine)

    def __enter__(self) -> Line:
        self._loop.add_reader(self._socket.FD, self.drain)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.remove_reader(self._socket.FD)
        self._socket.close(linger=0)

    def send(self, message: ToEngine) -> None:
        """Send without waiting; what is meant for an engine that is gone is dropped.

        Raises InvalidRequest for what MessagePack has no form for.
        """
        try:
            encoded = self._encoder.encode(message)
        except (OverflowError, RecursionError) as error:
            raise InvalidRequest(f"a value in this request is too large for the model's process: {error}") from None
        if self._socket.closed:
            return
        with contextlib.suppress(zmq.Again):
            self._socket.send(encoded, zmq.NOBLOCK)
        # ZeroMQ's file descriptor tells of changes only, and sending may have swallowed one.
        self._loop.call_soon(self.drain)

    def drain(self) -> None:
        """Receive what is there."""
        while not self._socket.closed and int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            self._receive(self._decoder.decode(self._socket.recv(zmq.NOBLOCK)))


@asynccontextmanager
async def engine_process(
    settings: ModelSettings, receive: Receive, *, memory_patience: float = 0.0
) -> AsyncIterator[Child]:
    """A new engine process for a model, gone when the context ends; `receive` gets what it says.

    If too little memory is free it waits for more, `memory_patience` seconds at most.
    """
    with tempfile.TemporaryDirectory(prefix="model-compose-") as folder, zmq.Context() as context:
        socket = context.socket(zmq.PAIR)
        socket.setsockopt(zmq.SNDHWM, 0)
        socket.setsockopt(zmq.RCVHWM, 0)
        launch = msgspec.structs.replace(_listen(socket, settings, Path(folder)), memory_patience=memory_patience)
        with Line(socket, receive) as line:
            process = await _start(launch)
            log = asyncio.create_task(_pass_log_on(process.stderr, settings.name))
            try:
                yield Child(process, line, launch.address)
            finally:
                await _stop(process)
                await _ended(log)


def _listen(socket: zmq.Socket[bytes], settings: ModelSettings, folder: Path) -> Launch:
    """Listen where only this user can connect: in a private folder, else on the loopback with a key as the secret."""
    path = str(folder / "engine")
    if zmq.has("ipc") and len(path) < IPC_PATH_LIMIT:
        socket.bind(f"ipc://{path}")
        return Launch(settings, f"ipc://{path}")
    server_key, secret_key = zmq.curve_keypair()
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.CURVE_SECRETKEY, secret_key)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    return Launch(settings, f"tcp://127.0.0.1:{port}", server_key)


async def _start(launch: Launch) -> asyncio.subprocess.Process:
    """Start the process apart from the terminal's Ctrl-C, able to import what this one can."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        f"{__package__}.process",
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=ENVIRONMENT | os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        limit=LOG_LINE_LIMIT,
        start_new_session=True,
    )
    assert process.stdin is not None
    process.stdin.write(msgspec.json.encode(launch) + b"\n")
    return process


async def _stop(process: asyncio.subprocess.Process) -> None:
    """End the process: by the end of its input, which it heeds even while it computes, else by force."""
    assert process.stdin is not None
    process.stdin.close()
    for end in (process.terminate, process.kill):
        try:
            await asyncio.wait_for(process.wait(), STOPPING_SECONDS)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                end()
        else:
            return
    await process.wait()


async def _ended(log: asyncio.Task[None]) -> None:
    """Wait for the rest of the log; something that the engine started may hold it open for ever."""
    await asyncio.wait({log}, timeout=1)
    log.cancel()
    await asyncio.wait({log})


async def _pass_log_on(stderr: asyncio.StreamReader | None, name: str) -> None:
    """Put the engine's log records, and whatever else it prints, into this process's log."""
    assert stderr is not None
    while True:
        try:
            line = await stderr.readline()
        except ValueError:  # longer than the limit; the reader has dropped it
            continue
        if not line:
            return
        level, text = _log_record(line)
        logger.log(level, "%s: %s", name, text)


def _log_record(line: bytes) -> tuple[int, str]:
    """Level and text of a line that the engine's log wrote, or that something else printed."""
    try:
        match json.loads(line):
            case [int(level), str(), str(text)]:
                return level, text
    except (ValueError, RecursionError):
        pass
    return logging.WARNING, line.decode(errors="replace").rstrip()
