"""Commands on this machine as components.

What a reference in a command line renders to is handed over in an environment variable, so that a value never becomes
part of the shell's syntax, whatever is in it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from ...adapters.errors import ComposeError, ConfigError, InvalidRequest
from ..references import Template, as_text, references_in, render_deep, resolve
from ..schema import ShellAction, ShellComponent
from .call import Call, missing
from .process import Finished, run_process

VARIABLE = "MODEL_COMPOSE_VALUE_{}"
"""The name of the environment variable with a reference's value."""


class Shell:
    """Runs one command a call."""

    def __init__(self, settings: ShellComponent, folder: Path) -> None:
        self._settings = settings
        self._folder = folder / (settings.working_dir or "")

    @asynccontextmanager
    async def call(self, action: ShellAction, call: Call) -> AsyncIterator[dict[str, Any]]:
        """`stdout`, `stderr` and `exit_code` of the command.

        Raises ComposeError if it fails and the action's output does not look at the exit code.
        """
        arguments, values = command_of(action, call.scope)
        environment = render_deep({**self._settings.env, **action.env}, call.scope)
        given = {name: as_text(value) for name, value in environment.items() if value is not None}
        timeout = action.timeout or self._settings.timeout
        folder = self._folder / as_text(render_deep(action.working_dir, call.scope))
        name = self._settings.id
        try:
            finished = await run_process(arguments, {**os.environ, **given, **values}, folder, timeout)
        except TimeoutError as error:
            raise ComposeError(f"component '{name}': the command ran for more than {timeout:g} s") from error
        except (OSError, ValueError) as error:
            raise ConfigError(f"component '{name}' cannot run its command: {error}") from error
        if finished.exit_code != 0 and not _looks_at_exit_code(action.output):
            raise ComposeError(f"component '{name}': {_blame(finished)}")
        yield {"stdout": finished.stdout, "stderr": finished.stderr, "exit_code": finished.exit_code}


def command_of(action: ShellAction, scope: Mapping[str, Any]) -> tuple[list[str], dict[str, str]]:
    """The words to run and the environment variables they need.

    A text is for the shell, as is a list of one text; so is what a lone reference renders to. Other lists are words.
    """
    command = action.command[0] if _is_line(action.command) else action.command
    if isinstance(command, Template) and command.only is None:
        line, values = _quoted(command, scope)
        return ["/bin/sh", "-c", line], values
    rendered = render_deep(command, scope)
    if not rendered:
        raise InvalidRequest(missing(action, [], "there is no command"), param="command")
    if isinstance(rendered, list):
        return [as_text(word) for word in rendered], {}
    return ["/bin/sh", "-c", as_text(rendered)], {}


def _is_line(command: Any) -> bool:
    return isinstance(command, list) and len(command) == 1 and isinstance(command[0], str | Template)


def _quoted(command: Template, scope: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """The command line with a variable in the place of each reference, one word each, and the variables' values."""
    line, quote = "", ""
    values: dict[str, str] = {}
    for part in command.parts:
        if isinstance(part, str):
            line += part
            quote = _quote_after(part, quote)
            continue
        name = VARIABLE.format(len(values))
        values[name] = as_text(resolve(part, scope))
        variable = "${" + name + "}"
        line += variable if quote == '"' else f'{quote}"{variable}"{quote}'
    return line, values


def _quote_after(text: str, quote: str) -> str:
    """The quote that is open after `text`, if `quote` was open before it."""
    is_escaped = False
    for character in text:
        if is_escaped:
            is_escaped = False
        elif character == "\\" and quote != "'":
            is_escaped = True
        elif character == quote:
            quote = ""
        elif not quote and character in "'\"":
            quote = character
    return quote


def _looks_at_exit_code(output: Any) -> bool:
    """Whether an action's output shows if the command failed."""
    if output is None:
        return True
    return any(
        reference.root in ("result", "output", "response") and reference.steps[:1] in ((), ("exit_code",))
        for reference in references_in(output)
    )


def _blame(finished: Finished) -> str:
    lines: Sequence[str] = finished.stderr.strip().splitlines()[-5:]
    why = f": {' '.join(lines)[-500:]}" if lines else ""
    how = f"signal {_signal_name(-finished.exit_code)}" if finished.exit_code < 0 else f"exit code {finished.exit_code}"
    return f"the command failed with {how}{why}"


def _signal_name(number: int) -> str:
    with suppress(ValueError):
        return signal.Signals(number).name
    return str(number)
