"""`model-compose run`: runs a workflow on the server of this folder, or on one started for the occasion."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..adapters.errors import ComposeError, ConfigError
from .compose_files import ComposeOptions, read
from .console import Console, Unseen, explained, open_console
from .exit_codes import FAILED, INTERRUPTED, exit_code_of
from .own_server import own_server
from .reach import wait_until_ready
from .run_answer import RunServer, answers, workflow_card
from .run_output import Display
from .running import servers_here

if TYPE_CHECKING:
    from ..workflows.load import Compose


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What to run, on what, and where the output goes; see the options of `model-compose run`."""

    workflow: str | None = None
    input: str | None = None
    output: Path | None = None
    compose: ComposeOptions = ComposeOptions()
    api_key: str | None = None


def run(options: RunOptions) -> int:
    """Run a workflow and show its output; exit code 0, 1 if the run fails, 2 if the input or the file is wrong.

    After Ctrl-C, which ends the run, it is 130.
    """
    console = open_console()
    try:
        given = read_input(options.input)
        with _server(options, given, console) as (server, workflow):
            display = Display(console, options.output)
            with closing(answers(server, workflow, given)) as told:
                for each in told:
                    display.show(each)
    except ComposeError as error:
        console.say(explained(error), "red")
        return exit_code_of(error)
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def read_input(spelled: str | None) -> Any:
    """The value of `--input`: JSON, `@FILE` with JSON in it, or `-` for JSON on standard input; raises ConfigError."""
    if spelled is None:
        return {}
    where, text = "--input", spelled
    if spelled == "-":
        where, text = "standard input", sys.stdin.read()
    elif spelled.startswith("@"):
        where = spelled[1:]
        try:
            text = Path(where).read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{where} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{where} is not UTF-8 text") from None
    return _parsed(text, where)


def _parsed(text: str, where: str) -> Any:
    """The value of a JSON text that can be sent as JSON; raises ConfigError."""
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise ConfigError(f'{where} is not valid JSON ({place}: {error.msg}); write {{"name": "value"}}') from None
    except RecursionError:
        raise ConfigError(f"{where} is nested too deeply") from None
    except ValueError:
        raise ConfigError(f"{where} holds what JSON has no words for: NaN, infinity, or half a character") from None
    return value


@contextmanager
def _server(options: RunOptions, given: Any, console: Console) -> Iterator[tuple[RunServer, str]]:
    """A server that has the workflow ready, and the workflow's id."""
    there = [each for each in servers_here(options.compose) if each.base_path is not None]
    # A server that runs has its variables; for others there has to be another one.
    if there and not (options.compose.env or options.compose.env_files):
        server = RunServer(there[0].url, there[0].base_path or "", options.api_key)
        yield server, _ready(server, options.workflow, console, lambda: None)
        return
    compose = read(options.compose)
    # What is wrong is told before a model has been loaded for minutes.
    workflow = _checked(compose, options.workflow, given)
    controller = compose.file.controller
    key = next(iter(controller.api_keys), None)
    with own_server(_arguments(options.compose, workflow), None) as own:
        own.wait_for_answer(key)
        server = RunServer(own.url.removesuffix("/v1"), controller.base_path, key)
        yield server, _ready(server, workflow, console, own.check)


def _ready(server: RunServer, workflow: str | None, console: Console, still_runs: Callable[[], None]) -> str:
    """The id of a workflow of the server, once its models are loaded; raises ComposeError."""
    card = workflow_card(server, workflow)
    with console.loading() if sys.stderr.isatty() else nullcontext(Unseen()) as loading:
        wait_until_ready(f"{server.url}/v1", card.model, loading, still_runs)
    return card.workflow_id


def _checked(compose: Compose, workflow: str | None, given: Any) -> str:
    """The id of the workflow that is meant.

    Raises ModelNotFound, ConfigError if there is no model that it asks, or InvalidRequest if an input is missing.
    """
    from ..workflows.given import accepted
    from ..workflows.graph import workflow_of
    from ..workflows.inputs import inputs_of
    from ..workflows.named_models import check_named_models
    from ..workflows.needed import needed_by

    found = workflow_of(compose.file, workflow)
    check_named_models(needed_by(found.id, compose))
    accepted(found.id, inputs_of(found, compose.file), given)
    return found.id


def _arguments(options: ComposeOptions, workflow: str) -> list[str]:
    """The arguments of `up` that make it serve the same files."""
    pairs = [("--file", options.files), ("--env", options.env), ("--env-file", options.env_files)]
    return [
        *(word for name, values in pairs for value in values for word in (name, str(value))),
        "--workflow",
        workflow,
    ]
