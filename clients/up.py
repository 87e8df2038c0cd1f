"""`model-compose up`: opens the port, starts the engines, serves until told to stop, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from .. import __version__
from ..adapters.transformers.adapter import TransformersAdapter
from ..adapters.transformers.settings import ModelSettings
from .announce import announcement
from .console import Console, configure_logging, open_console
from .listen import is_loopback, listen, url_of

if TYPE_CHECKING:
    import socket

    import uvicorn

    from ..adapters.base import ModelCard

SECONDS_FOR_STREAMS = 2.0
SECONDS_FOR_LAST_WORDS = 4
SECONDS_KEPT_ALIVE = 75
SECONDS_BETWEEN_LOOKS = 0.1
EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 0}
NO_MODEL_LEFT = 2


class UpOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What to serve, where and to whom; see the options of `model-compose up`."""

    models: tuple[ModelSettings, ...]
    host: str
    port: int
    api_key: str | None
    log_level: str
    stop_with_stdin: bool


def run(options: UpOptions) -> int:
    """Serve until Ctrl-C (exit code 130), SIGTERM or the end of standard input (0), or until every model failed (2).

    Raises ConfigError if the address cannot be had.
    """
    began = time.monotonic()
    console = open_console()
    configure_logging(console, options.log_level)
    with listen(options.host, options.port) as sockets:
        try:
            return asyncio.run(_serve(options, sockets, console, began))
        except KeyboardInterrupt:  # the second Ctrl-C
            return EXIT_CODES[signal.SIGINT]


async def _serve(options: UpOptions, sockets: list[socket.socket], console: Console, began: float) -> int:
    stop = _told_to_stop(console, with_stdin=options.stop_with_stdin)
    _greet(options, sockets, console)
    async with AsyncExitStack() as opened:
        adapters = [await opened.enter_async_context(TransformersAdapter(each)) for each in options.models]
        # In a thread, because the engines start in this loop while fastapi is being imported.
        server = await asyncio.to_thread(_http_server, adapters, options)
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(server.serve(sockets))
            loading = tasks.create_task(_load(adapters, console))
            first: list[asyncio.Future[Any]] = [stop, loading]
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if not stop.done() and not _announce(loading.result(), options, sockets, console, began):
                stop.set_result(NO_MODEL_LEFT)
            exit_code = await stop
            loading.cancel()
            server.should_exit = True
            await asyncio.wait({serving}, timeout=SECONDS_FOR_STREAMS)
            # What still streams ends with an error event, because its model is gone.
            await opened.aclose()
    return exit_code


def _told_to_stop(console: Console, *, with_stdin: bool) -> asyncio.Future[int]:
    """Done, with the exit code, when the user or another program wants the server to end."""
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[int] = loop.create_future()

    def tell(exit_code: int) -> None:
        if not stop.done():
            console.say("Stopping ...")
            stop.set_result(exit_code)

    def on_signal(number: int, _frame: object) -> None:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        loop.call_soon_threadsafe(tell, EXIT_CODES[signal.Signals(number)])

    def read_to_the_end() -> None:
        while sys.stdin.read(4096):
            pass
        loop.call_soon_threadsafe(tell, 0)

    for number in EXIT_CODES:
        signal.signal(number, on_signal)
    if with_stdin:
        threading.Thread(target=read_to_the_end, daemon=True).start()
    return stop


def _greet(options: UpOptions, sockets: Sequence[socket.socket], console: Console) -> None:
    console.say(f"model-compose {__version__} is loading " + ", ".join(model.name for model in options.models) + " ...")
    if not is_loopback(sockets) and options.api_key is None:
        console.say(
            f"Everyone who reaches {options.host} can use this server; --api-key asks them for a key.", "yellow"
        )


def _http_server(adapters: Sequence[TransformersAdapter], options: UpOptions) -> uvicorn.Server:
    import uvicorn

    from ..server.app import create_app
    from ..server.settings import Settings

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Generator[None]:
            yield  # they are taken care of here

    app = create_app(adapters, Settings(api_keys=(options.api_key,) if options.api_key else ()))
    config = uvicorn.Config(
        app,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=SECONDS_KEPT_ALIVE,
        timeout_graceful_shutdown=SECONDS_FOR_LAST_WORDS,
    )
    return Server(config)


async def _load(adapters: Sequence[TransformersAdapter], console: Console) -> list[ModelCard]:
    """Show how far the models are until all of them are ready or have failed."""
    with console.loading() as loading:
        while True:
            cards = [card for adapter in adapters for card in adapter.cards()]
            loading.update(cards)
            if all(card.state.phase != "loading" for card in cards):
                return cards
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)


def _announce(
    cards: Sequence[ModelCard], options: UpOptions, sockets: Sequence[socket.socket], console: Console, began: float
) -> bool:
    """Say what is served; whether there is anything. Why a model is not, its adapter has logged."""
    if all(card.state.phase == "failed" for card in cards):
        console.say("model-compose: no model could be loaded, so there is nothing to serve", "red")
        return False
    url = url_of(options.host, sockets)
    for text, style in announcement(url, cards, time.monotonic() - began, has_key=options.api_key is not None):
        console.say(text, style)
    return True
