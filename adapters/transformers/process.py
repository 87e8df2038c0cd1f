"""The engine process: one model, its engine, and the loop between the server's messages and the engine's steps.

Started as `python -m modelcompose.adapters.transformers.process` by `child.py`. It ends when its standard input does,
with exit status 0 in good order, 1 after an unexpected error and 3 where the model cannot be loaded.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

import msgspec
import psutil
import zmq

from ..base import ModelState
from ..errors import ComposeError, ModelUnavailable, OutOfMemory
from .hub import ModelFiles, Report, local_folder
from .messages import Cancel, FromEngine, Launch, State, Step, Submit, ToEngine
from .settings import ModelSettings

if TYPE_CHECKING:
    from .engine import Engine

T = TypeVar("T")

LOAD_FAILED = 3

SECONDS_BETWEEN_LOOKS = 0.5
"""How often it is seen whether enough memory is free."""

SECONDS_TO_REST = 5.0
"""How long nothing is to be done before memory is given back that the next steps could use again."""

logger = logging.getLogger(__name__)


class Line:
    """The engine's end of the line to its server."""

    def __init__(self, launch: Launch) -> None:
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PAIR)
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        if launch.server_key is not None:
            public_key, secret_key = zmq.curve_keypair()
            self._socket.setsockopt(zmq.CURVE_SERVERKEY, launch.server_key)
            self._socket.setsockopt(zmq.CURVE_PUBLICKEY, public_key)
            self._socket.setsockopt(zmq.CURVE_SECRETKEY, secret_key)
        self._socket.connect(launch.address)
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[ToEngine] = msgspec.msgpack.Decoder(ToEngine)

    def send(self, message: FromEngine) -> None:
        self._socket.send(self._encoder.encode(message))

    def close(self) -> None:
        """Let what was sent go out, then hang up."""
        self._socket.close(linger=2000)
        zmq.Context.instance().term()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until a message is there, or for so many seconds; whether one is."""
        return bool(self._socket.poll(None if seconds is None else int(1000 * seconds)))

    def receive(self) -> list[ToEngine]:
        """All messages that are there."""
        messages = []
        while int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            messages.append(self._decoder.decode(self._socket.recv()))
        return messages


def main() -> int:
    gc.disable()  # until the model is loaded: nearly all that is made by then stays, and looking is a fifth of the time
    launch = msgspec.json.decode(sys.stdin.buffer.readline(), type=Launch)
    threading.Thread(target=_end_with_the_server, args=[launch.address], daemon=True).start()
    _log_to_stderr()
    with closing(Line(launch)) as line:
        engine = _load(launch, line)
        if engine is None:
            return LOAD_FAILED
        try:
            serve(engine, line)
        except Exception:
            logger.exception("the engine of %s stops after an unexpected error", launch.settings.name)
            return 1


def serve(engine: Engine, line: Line) -> NoReturn:
    """Messages in, steps out, for ever; asleep while there is nothing to do."""
    while True:
        if engine.is_idle and not line.wait(SECONDS_TO_REST):
            engine.rest()
            line.wait()
        for message in line.receive():
            match message:
                case Submit():
                    engine.add(message.id, message.request)
                case Cancel():
                    engine.cancel(message.id)
        line.send(Step(engine.step(), engine.counters))


def _load(launch: Launch, line: Line) -> Engine | None:
    """The engine, ready to serve; None, and the server told why, if there can be none."""
    settings = launch.settings

    def report(state: ModelState) -> None:
        line.send(State(msgspec.structs.replace(state, detail=without_place(state.detail, settings.source))))

    try:
        if local_folder(settings.source) is not None:
            ModelFiles(settings, report)  # says at once what `load` would say after PyTorch's seconds
        report(ModelState("loading", "starting PyTorch"))
        from .imports import without_compiler

        with without_compiler():
            engine = _engine(settings, report, launch.memory_patience)
    except ComposeError as error:
        failure = error
    except Exception as error:
        logger.exception("%s could not be loaded", settings.name)
        failure = ModelUnavailable(f"{settings.name} could not be loaded: {type(error).__name__}; the log says more")
    else:
        # A model and its libraries are a million objects, and each full collection would look at them all.
        gc.collect()
        gc.freeze()
        gc.enable()
        line.send(State(ModelState("ready"), context_length=engine.context_length))
        return engine
    logger.info("%s", failure.message)
    failure.message = without_place(failure.message, settings.source)
    line.send(State(ModelState("failed", failure.message), failure=failure.report()))
    return None


def without_place(text: str, source: str) -> str:
    """The text with a model's folder called by its last name, for clients are not told where things lie."""
    places = {source, str(Path(source).expanduser()), str(Path(source).expanduser().resolve())}
    name = Path(source).expanduser().resolve().name
    for place in sorted((place for place in places if os.sep in place), key=len, reverse=True):
        if Path(place).is_absolute() or place.startswith((".", "~")):
            text = text.replace(place, name)
    return text


def _engine(settings: ModelSettings, report: Report, patience: float) -> Engine:
    import torch

    from .engine import Engine
    from .load import load
    from .memory import keep_freed_memory

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(_cores())
    loaded = when_it_fits(lambda: load(settings, report), report, patience)
    engine = Engine(loaded, settings)
    keep_freed_memory()
    return engine


def when_it_fits(load: Callable[[], T], report: Report, patience: float) -> T:
    """What `load` gives, tried again for so many seconds if it raises OutOfMemory; `report` is told of that."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return load()
        except OutOfMemory as error:
            if time.monotonic() > deadline:
                raise
            report(ModelState("loading", f"waiting for memory: {error.message}", lacks_memory=True))
            time.sleep(SECONDS_BETWEEN_LOOKS)


def _cores() -> int:
    """The physical cores this process may use; where there are many, one is left to the server."""
    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    usable = min(physical, len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else physical
    return usable - 1 if usable > 4 else usable


def _end_with_the_server(address: str) -> None:
    """Standard input ends when the server closes it or is gone, however it went; then nothing here is of use.

    A server that was killed cannot remove the folder of its socket.
    """
    while os.read(0, 1):
        pass
    if address.startswith("ipc://"):
        shutil.rmtree(Path(address.removeprefix("ipc://")).parent, ignore_errors=True)
    os._exit(0)


class _JsonLines(logging.Formatter):
    """A record as one line of JSON, `[level, logger, text]`, tracebacks and all."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps([record.levelno, record.name, super().format(record)])


def _log_to_stderr() -> None:
    """Log records go to the server as JSON lines; what else is printed goes there as it is."""
    os.dup2(2, 1)
    log = logging.StreamHandler()
    log.setFormatter(_JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[log])
    logging.getLogger("modelcompose").setLevel(logging.INFO)


if __name__ == "__main__":
    sys.exit(main())
