"""`model-compose chat`: a conversation in the terminal, streamed through the openai SDK."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import msgspec
import openai

from ..adapters.errors import ComposeError, ModelNotFound, ModelUnavailable
from .compose_files import ComposeOptions, read_if_there
from .console import Console, explained, open_console
from .conversation import Conversation, explain
from .own_server import OwnServer, own_server
from .reach import served_models, wait_until_ready
from .running import servers_here
from .sources import BUNDLED
from .talk import talk

DEFAULT_URL = "http://127.0.0.1:8080/v1"


class ChatOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Whom to talk to and how; see the options of `model-compose chat`."""

    model: str | None
    url: str | None
    system: str | None
    temperature: float | None
    max_tokens: int | None
    api_key: str | None


def run(options: ChatOptions) -> int:
    """Chat until the input ends; the exit code is 0, 1 if a server or an answer could not be had, 130 after Ctrl-C."""
    console = open_console()
    try:
        with (
            _server(options, console) as (url, model),
            openai.OpenAI(base_url=url, api_key=options.api_key or "none") as client,
        ):
            conversation = Conversation(client, model, options.system, options.temperature, options.max_tokens)
            if sys.stdin.isatty():
                talk(conversation, url, options.api_key)
            else:
                answer_lines(conversation, sys.stdin)
    except ComposeError as error:
        console.say(explained(error), "red")
        return 1
    except openai.OpenAIError as error:
        console.say(f"model-compose: {explain(error)}", "red")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def answer_lines(conversation: Conversation, lines: Iterable[str]) -> None:
    """Each line is a turn, and its answer's text is printed as it is. Raises openai.OpenAIError."""
    for line in lines:
        if not line.strip():
            continue
        conversation.say(line.rstrip("\n"))
        for piece in conversation.answer():
            if not piece.is_reasoning:
                print(piece.text, end="", flush=True)
        print(flush=True)


@contextmanager
def _server(options: ChatOptions, console: Console) -> Iterator[tuple[str, str]]:
    """The URL of a server and the name of a model there that is ready: a server that runs, or else one of our own."""
    with ExitStack() as opened:
        url = (options.url or _url_here()).rstrip("/")
        models = served_models(url, options.api_key)
        wanted = options.model
        own: OwnServer | None = None
        if options.url is None and (models is None or wanted not in (None, *models)):
            arguments, wanted = _own_model(wanted)
            own = opened.enter_context(own_server(arguments, options.api_key))
            url = own.url
            models = own.wait_for_answer(options.api_key)
        if models is None:
            raise ModelUnavailable(f"no server answers at {url}; without --url, chat starts one of its own")
        model = _choose(models, wanted, url)
        with console.loading() as loading:
            wait_until_ready(url, model, loading, own.check if own else _nothing_to_check)
        yield url, model


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
