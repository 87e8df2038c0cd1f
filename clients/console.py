"""What the commands say to people, on standard error: coloured and moving on a terminal, plain lines anywhere else."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol

from ..adapters.base import ModelCard, ModelState
from ..adapters.errors import ComposeError
from ..workflows.tree import ConfigErrors

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.progress import Progress, TaskID

OUR_LOGGER = "modelcompose"
# New lines and tabs are harmless.
_CONTROL = dict.fromkeys({*range(0x20), *range(0x7F, 0xA0)} - {0x09, 0x0A})
_LEVEL_STYLES = {logging.WARNING: "yellow", logging.ERROR: "red", logging.CRITICAL: "red"}


class Loading(Protocol):
    """Shows how far models are; `update` gets all of them, as often as one likes."""

    def update(self, cards: Sequence[ModelCard]) -> None: ...


class Console(Protocol):
    """Where a command's words go; `style` is one of rich's and shows on a terminal only."""

    def say(self, text: str = "", style: str = "") -> None: ...

    def loading(self) -> AbstractContextManager[Loading]: ...

    def log_handler(self) -> logging.Handler: ...


def open_console() -> Console:
    """The console that fits standard error as it is now."""
    return Terminal() if sys.stderr.isatty() else PlainLines()


def configure_logging(console: Console, level: str) -> None:
    """Our own log from `level` up, and everyone else's warnings, go to the console among its other lines."""
    logging.basicConfig(level=logging.WARNING, handlers=[console.log_handler()], force=True)
    logging.captureWarnings(capture=True)
    logging.getLogger(OUR_LOGGER).setLevel(level.upper())


def describe(state: ModelState) -> str:
    """A model's state in a few words: its detail, or the name of its phase where it has none."""
    if state.phase == "loading":
        return state.detail or "loading"
    return f"{state.phase} ({state.detail})" if state.detail else state.phase


def explained(error: ComposeError) -> str:
    """An error as a command says it; those of a compose file name that instead of the program."""
    return error.message if isinstance(error, ConfigErrors) else f"model-compose: {error.message}"


def harmless(text: str) -> str:
    """A model's text without what would move the cursor or change the terminal's settings."""
    return text.translate(_CONTROL)


class Unseen:
    """Shows no one how far models are."""

    def update(self, cards: Sequence[ModelCard]) -> None:
        """Nobody looks."""


class PlainLines:
    """One line for each thing that happens, for log files and pipes."""

    def say(self, text: str = "", style: str = "") -> None:
        print(text, file=sys.stderr, flush=True)

    @contextmanager
    def loading(self) -> Iterator[Loading]:
        yield _LoadingLines(self)

    def log_handler(self) -> logging.Handler:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        return handler


class _LoadingLines:
    """A line when what a model does changes, and at every quarter of its progress."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said: dict[str, tuple[str, int]] = {}

    def update(self, cards: Sequence[ModelCard]) -> None:
        for card in cards:
            progress = card.state.progress if card.state.phase == "loading" else None
            news = (describe(card.state), int(4 * (progress or 0)))
            if self._said.get(card.id) != news:
                self._said[card.id] = news
                self._console.say(f"{card.id}: {news[0]}" + (f" {progress:.0%}" if progress else ""))


class Terminal:
    """Colours, and one moving line for each model that loads."""

    def __init__(self, rich: RichConsole | None = None) -> None:
        from rich.console import Console as RichConsole

        self._rich = rich or RichConsole(stderr=True, highlight=False)

    def say(self, text: str = "", style: str = "") -> None:
        # soft_wrap: a long curl line stays one line, or it could not be copied.
        self._rich.print(text, style=style, markup=False, emoji=False, soft_wrap=True)

    @contextmanager
    def loading(self) -> Iterator[Loading]:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn

        columns = (
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.fields[name]}", style="bold", markup=False),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.description}", markup=False),
        )
        with Progress(*columns, console=self._rich, transient=True) as progress:
            yield _LoadingBars(progress)

    def log_handler(self) -> logging.Handler:
        return _TerminalLog(self)


class _LoadingBars:
    """One bar for each model; it pulses as long as nobody knows how far the model is."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def update(self, cards: Sequence[ModelCard]) -> None:
        for card in cards:
            if card.id not in self._tasks:
                self._tasks[card.id] = self._progress.add_task("", total=None, name=card.id)
            done = 1.0 if card.state.phase in {"ready", "failed"} else card.state.progress
            self._progress.update(
                self._tasks[card.id],
                description=describe(card.state),
                total=None if done is None else 1.0,
                completed=done or 0.0,
            )


class _TerminalLog(logging.Handler):
    """Log records as lines between the others: the time, and the level only where it is not the usual one."""

    def __init__(self, console: Terminal) -> None:
        super().__init__()
        self._console = console
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))

    def emit(self, record: logging.LogRecord) -> None:
        self._console.say(self.format(record), _LEVEL_STYLES.get(record.levelno, "dim"))
