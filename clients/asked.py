"""The server that a command asks a model of: the one that is named, one that runs, or one started for the occasion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from ..adapters.errors import ModelNotFound, ModelUnavailable
from .compose_files import ComposeOptions, read_if_there
from .console import Console
from .own_server import OwnServer, own_server
from .reach import served_models, wait_until_ready
from .running import servers_here
from .sources import BUNDLED

DEFAULT_URL = "http://127.0.0.1:8080/v1"


@contextmanager
def asked_server(
    url: str | None, model: str | None, api_key: str | None, console: Console
) -> Iterator[tuple[str, str]]:
    """The URL of a server and the name of a model there that is ready; raises ComposeError.

    Without `url` it is a server that runs, or else one of our own; without `model` the server's first.
    """
    with ExitStack() as opened:
        asked = (url or _url_here()).rstrip("/")
        models = served_models(asked, api_key)
        wanted = model
        own: OwnServer | None = None
        if url is None and (models is None or wanted not in (None, *models)):
            arguments, wanted = _own_model(wanted)
            own = opened.enter_context(own_server(arguments, api_key))
            asked = own.url
            models = own.wait_for_answer(api_key)
        if models is None:
            raise ModelUnavailable(f"no server answers at {asked}; without --url, one is started for the occasion")
        found = _choose(models, wanted, asked)
        with console.loading() as loading:
            wait_until_ready(asked, found, loading, own.check if own else _nothing_to_check)
        yield asked, found


def _url_here() -> str:
    """The URL of the server of this folder, or else of one that was started anywhere with the usual port."""
    here = servers_here(ComposeOptions())
    return f"{here[0].url}/v1" if here else DEFAULT_URL


def _own_model(wanted: str | None) -> tuple[list[str], str | None]:
    """The arguments that make `up` serve one model, and its name if it is known before.

    It is a workflow of this folder's compose file if that has it, or if none is named.
    """
    compose = read_if_there(ComposeOptions())
    if compose is not None:
        from ..workflows.graph import model_name, workflow_of

        named = {model_name(each): each for each in compose.file.workflows}
        if wanted is None or wanted in named:
            workflow = workflow_of(compose.file, None) if wanted is None else named[wanted]
            return ["--workflow", workflow.id], model_name(workflow)
    return ["--no-file", "--model", wanted or BUNDLED], None


def _nothing_to_check() -> None:
    """A server that someone else started is not ours to watch."""


def _choose(models: Sequence[str], wanted: str | None, url: str) -> str:
    if not models:
        raise ModelNotFound(f"the server at {url} has no models")
    if wanted is not None and wanted not in models:
        raise ModelNotFound(f"no model '{wanted}' at {url}; it has: {', '.join(models)}")
    return wanted or models[0]
