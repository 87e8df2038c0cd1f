"""The Web UI's process: `up` starts it, tells where it is, and ends it. Its troubles stay its own."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ...adapters.errors import ConfigError
from ...adapters.processes.log import Log
from ...adapters.processes.process import Surroundings, running, said_of
from ..console import Console
from ..listen import listen, url_of
from ..running import state_folder
from .place import WebUIPlace

READY = "The Web UI is ready."
SECONDS_BETWEEN_LOOKS = 0.1
SECONDS_TO_END = 1.0

# Nothing leaves this machine: no telemetry, no look for a newer version, and no proxy between the page and the server.
QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "NO_PROXY": "*",
    "PYTHONUNBUFFERED": "1",
}


class Served(NamedTuple):
    """The server that the Web UI is a client of: `url` without `/v1`, and the prefix of the runs API, if it has one."""

    url: str
    base_path: str


async def web_ui(place: WebUIPlace, served: Served, console: Console) -> None:
    """Run the Web UI until this is cancelled; if it cannot be had or ends by itself, say why and return."""
    try:
        (host, port), url = find_place(place)
        await _run(host, port, served, url, console)
    except (ConfigError, OSError) as error:
        console.say(f"There is no Web UI: {error}", "yellow")


def find_place(place: WebUIPlace) -> tuple[WebUIPlace, str]:
    """The place with a port that is free at this moment, and its URL; raises ConfigError if it cannot be had."""
    with listen(place.host, place.port, option="--webui-port") as sockets:
        return place._replace(port=sockets[0].getsockname()[1]), url_of(place.host, sockets)


async def _run(host: str, port: int, served: Served, url: str, console: Console) -> None:
    words = (sys.executable, "-P", "-m", __package__, served.url, served.base_path, host, str(port))
    log = Log(state_folder() / "logs" / f"webui-{port}.log")
    async with running(words, Surroundings(environment(os.environ), Path.cwd()), log, SECONDS_TO_END) as process:
        ended = asyncio.create_task(process.wait())
        is_ready = False
        while not ended.done():
            if not is_ready and READY in log.tail:
                is_ready = True
                console.say(f"Web UI: {url}", "bold green")
            await asyncio.wait({ended}, timeout=None if is_ready else SECONDS_BETWEEN_LOOKS)
        why = f": {log.blame}" if log.blame not in {"", READY} else ""
        console.say(f"The Web UI {said_of(ended.result())}{why}; all of it is in {log.path}", "yellow")


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` without keys, and without what would send Gradio elsewhere."""
    kept = {name: value for name, value in environ.items() if not name.startswith("GRADIO_") or name in _HARMLESS}
    kept.pop("MODEL_COMPOSE_API_KEY", None)
    return {**kept, **QUIET, "no_proxy": "*"}


_HARMLESS = {"GRADIO_ROOT_PATH", "GRADIO_TEMP_DIR"}
