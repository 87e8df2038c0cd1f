"""`model-compose up`: opens the port, starts the engines, serves until told to stop, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import AsyncExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from .. import __version__
from ..adapters.errors import ConfigError
from .announce import announcement, greeting
from .console import Console, configure_logging, open_console
from .listen import is_loopback, listen, url_of
from .offer import Offer, open_offer
from .plan import Plan, UpOptions, plan_of
from .running import RunningServer, noted, project_of, server_with
from .webui.process import Served, find_place, web_ui

if TYPE_CHECKING:
    import socket

    import uvicorn

    from ..adapters.base import Adapter, ModelCard

SECONDS_FOR_STREAMS = 2.0
SECONDS_BETWEEN_LOOKS = 0.1
SECONDS_BEFORE_WEB_UI = 5.0
EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 0}
NO_MODEL_LEFT = 2


def run(options: UpOptions) -> int:
    """Serve until Ctrl-C (exit code 130), SIGTERM or the end of standard input (0), or until every model failed (2).

    Raises ConfigError for a wrong compose file, and if the address cannot be had.
    """
    began = time.monotonic()
    console = open_console()
    configure_logging(console, options.log_level)
    plan = plan_of(options)
    if (there := server_with(plan.port, options.compose)) is not None:
        raise ConfigError(f"{there.url} is served already (process {there.pid}); 'model-compose down' stops it")
    with listen(plan.host, plan.port) as sockets:
        plan, webui = _find_web_ui(plan)
        note = nullcontext() if options.stop_with_stdin else noted(_note(options, plan, sockets, webui))
        try:
            with note:
                return asyncio.run(_serve(options, plan, sockets, console, began))
        except KeyboardInterrupt:  # the second Ctrl-C
            return EXIT_CODES[signal.SIGINT]


def _find_web_ui(plan: Plan) -> tuple[Plan, str | None]:
    """The plan with the port that the Web UI will have, and its URL; None if there is to be none, or cannot be."""
    if plan.webui is None:
        return plan, None
    try:
        place, url = find_place(plan.webui)
    except (ConfigError, OSError):
        return plan, None  # why is said when it would start
    return replace(plan, webui=place), url


def _note(options: UpOptions, plan: Plan, sockets: Sequence[socket.socket], webui: str | None) -> RunningServer:
    folder, files = project_of(() if plan.compose is None else plan.compose.paths)
    return RunningServer(
        pid=os.getpid(),
        started=psutil.Process().create_time(),
        url=url_of(plan.host, sockets),
        folder=folder,
        working_dir=str(Path.cwd()),
        files=files,
        base_path=None if plan.compose is None else plan.base_path,
        workflows=plan.workflows,
        log=None if options.log is None else str(options.log),
        webui=webui,
    )


async def _serve(options: UpOptions, plan: Plan, sockets: list[socket.socket], console: Console, began: float) -> int:
    stop = _told_to_stop(console, with_stdin=options.stop_with_stdin)
    async with AsyncExitStack() as opened:
        offer = await open_offer(plan.models, plan.compose, plan.common, opened)
        _greet(plan, offer, sockets, console)
        # In a thread, because the engines start in this loop while fastapi is being imported.
        server = await asyncio.to_thread(_http_server, offer, plan)
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(server.serve(sockets))
            loading = tasks.create_task(_load(offer, console))
            page = tasks.create_task(_web_ui(plan, sockets, console, loading))
            first: list[asyncio.Future[Any]] = [stop, loading]
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if not stop.done() and not _announce(offer, plan, sockets, console, began):
                stop.set_result(NO_MODEL_LEFT)
            exit_code = await stop
            loading.cancel()
            page.cancel()
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


def _greet(plan: Plan, offer: Offer, sockets: Sequence[socket.socket], console: Console) -> None:
    files = () if plan.compose is None else plan.compose.paths
    console.say(greeting(__version__, files, [card.id for adapter in offer.local for card in adapter.cards()]))
    if not is_loopback(sockets) and not plan.api_keys:
        console.say(f"Everyone who reaches {plan.host} can use this server; --api-key asks them for a key.", "yellow")


def _http_server(offer: Offer, plan: Plan) -> uvicorn.Server:
    import uvicorn

    from ..server.app import create_app
    from ..server.serving import collect_less, config_of
    from ..server.settings import Settings

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Generator[None]:
            yield  # they are taken care of here

    app = create_app(offer.models, Settings(api_keys=plan.api_keys, base_path=plan.base_path), offer.runs)
    collect_less()
    return Server(config_of(app))


async def _web_ui(plan: Plan, sockets: Sequence[socket.socket], console: Console, loading: asyncio.Task[None]) -> None:
    """Run the Web UI if there is to be one, from when the models are there or take long."""
    if plan.webui is not None:
        await asyncio.wait({loading}, timeout=SECONDS_BEFORE_WEB_UI)
        await web_ui(plan.webui, Served(url_of(plan.host, sockets), plan.base_path), console)


async def _load(offer: Offer, console: Console) -> None:
    """Show how far the models are until all of them are ready or have failed."""
    with console.loading() as loading:
        while True:
            cards = [card for adapter in offer.local for card in adapter.cards()]
            loading.update(cards)
            if all(card.state.phase != "loading" for card in cards):
                return
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)


def _may_come_back(adapter: Adapter) -> bool:
    """Whether its models are at servers elsewhere, which come and go as they like."""
    from ..adapters.vllm.adapter import UpstreamAdapter

    return isinstance(adapter, UpstreamAdapter) and bool(adapter.pool.replicas)


def _announce(offer: Offer, plan: Plan, sockets: Sequence[socket.socket], console: Console, began: float) -> bool:
    """Say what is served; whether there is anything. Why a model is not, its adapter has logged."""
    cards: list[ModelCard] = [card for adapter in offer.models for card in adapter.cards()]
    url = url_of(plan.host, sockets)
    if all(card.state.phase == "failed" for card in cards):
        if not any(map(_may_come_back, offer.models)):
            console.say("model-compose: no model could be loaded, so there is nothing to serve", "red")
            return False
        console.say(f"{url}/v1 is there; its models will be as soon as their servers answer.", "yellow")
        return True
    lines = announcement(url, cards, time.monotonic() - began, has_key=bool(plan.api_keys), runs=offer.runs)
    for text, style in lines:
        console.say(text, style)
    return True
