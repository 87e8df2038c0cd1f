"""What the commands say, on a terminal and into a file."""

from __future__ import annotations

import io
import logging

import pytest
from rich.console import Console as RichConsole

from modelcompose.adapters.base import ModelCard, ModelState
from modelcompose.clients.console import PlainLines, Terminal, configure_logging, open_console


def card(state: ModelState, name: str = "m") -> ModelCard:
    return ModelCard(id=name, created=0, state=state)


def terminal(width: int = 80) -> tuple[Terminal, io.StringIO]:
    screen = io.StringIO()
    return Terminal(RichConsole(file=screen, force_terminal=True, width=width, highlight=False)), screen


@pytest.fixture
def plain(capsys: pytest.CaptureFixture[str]) -> PlainLines:
    capsys.readouterr()
    return PlainLines()


def test_into_a_file_each_step_of_loading_is_one_line(plain: PlainLines, capsys: pytest.CaptureFixture[str]) -> None:
    with plain.loading() as loading:
        for state in (
            ModelState("loading"),
            ModelState("loading", "weights", 0.1),
            ModelState("loading", "weights", 0.2),
            ModelState("loading", "weights", 0.5),
            ModelState("ready", "on cpu"),
            ModelState("ready", "on cpu"),
        ):
            loading.update([card(state)])
    assert capsys.readouterr().err.splitlines() == [
        "m: loading",
        "m: weights 10%",
        "m: weights 50%",
        "m: ready (on cpu)",
    ]


def test_two_models_do_not_hide_each_others_lines(plain: PlainLines, capsys: pytest.CaptureFixture[str]) -> None:
    with plain.loading() as loading:
        for _ in range(2):
            loading.update([card(ModelState("loading"), "a"), card(ModelState("ready"), "b")])
    assert capsys.readouterr().err.splitlines() == ["a: loading", "b: ready"]


def test_on_a_terminal_loading_is_a_bar_that_goes_away() -> None:
    console, screen = terminal()
    with console.loading() as loading:
        loading.update([card(ModelState("loading", "weights", 0.5))])
        loading.update([card(ModelState("ready"))])
    assert "m" in screen.getvalue()
    assert "\x1b[2K" in screen.getvalue()


def test_a_long_line_is_not_broken_on_a_terminal() -> None:
    console, screen = terminal(width=20)
    console.say("x" * 100)
    assert "x" * 100 in screen.getvalue()


def test_square_brackets_are_not_markup() -> None:
    console, screen = terminal()
    console.say("[bold]a[/bold] :smile: [/oops]", "red")
    assert "[bold]a[/bold] :smile: [/oops]" in screen.getvalue()


def test_without_a_terminal_lines_are_plain() -> None:
    assert isinstance(open_console(), PlainLines)


@pytest.fixture
def logging_as_it_was() -> object:
    root, ours = logging.getLogger(), logging.getLogger("modelcompose")
    before = root.handlers[:], root.level, ours.level
    yield
    root.handlers[:], level, our_level = before[0], before[1], before[2]
    root.setLevel(level)
    ours.setLevel(our_level)
    logging.captureWarnings(capture=False)


@pytest.mark.usefixtures("logging_as_it_was")
def test_the_log_goes_among_the_other_lines_and_shows_where_it_is_serious() -> None:
    console, screen = terminal()
    configure_logging(console, "info")
    logging.getLogger("modelcompose.server").info("a request")
    logging.getLogger("modelcompose.server").debug("a detail")
    logging.getLogger("somebody.else").info("chatter")
    logging.getLogger("somebody.else").warning("a problem")
    said = screen.getvalue()
    assert "a request" in said
    assert "a problem" in said
    assert "a detail" not in said
    assert "chatter" not in said
    assert "\x1b[33m" in said
