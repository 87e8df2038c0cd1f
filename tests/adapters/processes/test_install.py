"""Commands that are run once per change of their text."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from children import recipe, surroundings

from modelcompose.adapters.errors import ModelUnavailable
from modelcompose.adapters.processes.install import Installation, Recipe
from modelcompose.adapters.processes.log import Log
from modelcompose.adapters.processes.process import Command


async def carry_out(folder: Path, install: tuple[Command, ...], build: tuple[Command, ...] = ()) -> list[str]:
    """The lines that the commands have written so far, after one more try."""
    await Installation(recipe(folder, install=install, build=build)).carry_out(lambda doing: None)
    done = folder / "done"
    return done.read_text().split() if done.exists() else []


async def test_a_command_is_run_once_and_again_when_its_text_or_one_before_it_changes(tmp_path: Path) -> None:
    one, two, other = "echo 1 >> done", "echo 2 >> done", ("sh", "-c", "echo 3 >> done")
    assert await carry_out(tmp_path, (one,), (two,)) == ["1", "2"]
    assert await carry_out(tmp_path, (one,), (two,)) == ["1", "2"]
    assert await carry_out(tmp_path, (one,), (two, other)) == ["1", "2", "2", "3"]
    assert await carry_out(tmp_path, (other,), (two, other)) == ["1", "2", "2", "3", "3", "2", "3"]


async def test_a_command_that_failed_is_run_again(tmp_path: Path) -> None:
    command = "echo x >> done; test -e here"
    with pytest.raises(ModelUnavailable, match=r"^small: installing ended with exit status 1: 'echo x >> done"):
        await carry_out(tmp_path, (command,))
    (tmp_path / "here").touch()
    assert await carry_out(tmp_path, (command,)) == ["x", "x"]


@pytest.mark.parametrize(
    ("command", "what"),
    [
        ('eval "$(pyenv init -)" && pyenv activate vllm', "pyenv is not installed"),
        ("frobnicate --all", "there is no program 'frobnicate' here"),
        ("echo 'pyenv: no such command `virtualenv'\"'\"; exit 1", "pyenv lacks its pyenv-virtualenv plugin"),
        ("echo 'OSError: [Errno 28] No space left on device'; exit 1", "the disk is full"),
        (
            "echo 'ERROR: No matching distribution found for vlm'; echo; echo '[notice] get a new pip'; exit 1",
            "ERROR: No matching distribution found for vlm",
        ),
    ],
)
async def test_what_to_do_is_said(command: str, what: str, tmp_path: Path) -> None:
    bare = recipe(tmp_path, install=(command,))
    without_pyenv = surroundings(tmp_path, PATH="/usr/bin:/bin")
    once = Installation(Recipe(name=bare.name, place=bare.place, steps=bare.steps, surroundings=without_pyenv))
    with pytest.raises(ModelUnavailable) as refused:
        await once.carry_out(lambda doing: None)
    assert what in refused.value.message


async def test_the_full_disk_of_the_log_is_no_reason_to_fail(caplog: pytest.LogCaptureFixture) -> None:
    log = Log(Path("/dev/full"))
    log.begin("x")
    log.feed(b"one\ntwo\n")
    log.close()
    assert log.tail == ["one", "two"]
    assert caplog.text.count("No space left on device") == 1


async def test_two_at_a_time_wait_for_each_other(tmp_path: Path) -> None:
    doing: list[str] = []
    command = "echo x >> done; sleep 0.3"
    await asyncio.gather(
        *(Installation(recipe(tmp_path, install=(command,))).carry_out(doing.append) for _ in range(2))
    )
    assert (tmp_path / "done").read_text() == "x\n"
    assert "another process is installing this; waiting for it" in doing


async def test_an_environment_is_made_first_and_its_programs_come_first(tmp_path: Path) -> None:
    steps: tuple[tuple[str, tuple[Command, ...]], ...] = (("installing", ("command -v python >> done",)),)
    whole = Recipe(
        name="small",
        place=tmp_path / "place",
        steps=steps,
        surroundings=surroundings(tmp_path),
        venv=tmp_path / "venv",
        python=sys.executable,
    )
    fake = tmp_path / "venv" / "bin" / "python"
    doing: list[str] = []
    once = Installation(whole)
    # A real one takes many seconds; `python -m venv` itself is Python's.
    fake.parent.mkdir(parents=True)
    fake.symlink_to(sys.executable)
    await once.carry_out(doing.append)
    assert (tmp_path / "done").read_text().strip() == str(fake)
    assert once.surroundings.env["VIRTUAL_ENV"] == str(tmp_path / "venv")
    assert doing == ["installing"]
