"""The command line itself."""

from __future__ import annotations

import pytest
from commands import call
from served import run_command

from modelcompose import __version__


def test_the_version() -> None:
    assert run_command("--version").stdout == f"model-compose {__version__}\n"


@pytest.mark.parametrize("arguments", [("--help",), ("-h",), ("up", "--help"), ("chat", "--help")])
def test_help_is_there_for_everything(arguments: tuple[str, ...]) -> None:
    shown = call(*arguments)
    assert shown.returncode == 0
    assert "Usage:" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("up", "--model", "./nowhere"), "model-compose: there is no folder './nowhere'"),
        (("up", "--model", "a=b/c", "--model", "a=d/e"), "model-compose: two models are called 'a'"),
        (("up", "--host", "192.0.2.1"), "model-compose: this machine has no address '192.0.2.1'"),
        (("up", "--port", "99999"), "--port"),
        (("up", "--precision", "float8"), "'float8' is not one of"),
        (("up", "--keep-alive", "soon"), "'soon' is not a time"),
        (("up", "--kv-cache-memory", "much"), "'much' is not a size"),
        (("down-under",), "No such command 'down-under'"),
    ],
)
def test_what_cannot_work_is_told_at_once_with_exit_code_2(arguments: tuple[str, ...], words: str) -> None:
    ended = call(*arguments)
    assert ended.returncode == 2
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr
