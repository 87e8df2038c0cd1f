"""Commands under their guard: output, exit codes, and that nothing is left of them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from children import gone_within, is_there, server_command, started_in, surroundings, workers_in
from served import a_free_port

from modelcompose.adapters.errors import ConfigError
from modelcompose.adapters.processes.log import Log
from modelcompose.adapters.processes.process import run, running

NAPS = "sleep 1000 & sleep 1000"


@pytest.mark.parametrize(
    ("command", "status", "last"),
    [
        ("echo one; echo two >&2; exit 3", 3, "two"),
        (("printf", "%s", "$HOME"), 0, "$HOME"),
        ("kill -9 $$", 137, ""),
        (("/no/such/program", "x"), 127, "/no/such/program: No such file or directory"),
        ("printf 'a\\rb\\r50%% '", 0, "50%"),
    ],
)
async def test_output_and_exit_code(command: str | tuple[str, ...], status: int, last: str, tmp_path: Path) -> None:
    log = Log(tmp_path / "a" / "log")
    assert await run(command, surroundings(tmp_path), log) == status
    assert log.last == last
    written = log.path.read_text()
    assert last in written
    assert written.startswith("--- ")
    assert log.path.stat().st_mode & 0o077 == 0


async def test_what_a_command_leaves_running_ends_with_it(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    assert await run("(setsid sleep 1000 & echo $!; sleep 1000 & echo $!)", surroundings(tmp_path), log) == 0
    assert not any(is_there(int(pid)) for pid in log.tail)


async def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no folder .*nowhere"):
        await run("true", surroundings(tmp_path / "nowhere"), Log(tmp_path / "log"))


async def test_leaving_ends_what_ignores_being_asked_too(tmp_path: Path) -> None:
    command = server_command(tmp_path, a_free_port(), "stubborn", "workers")
    async with running(command, surroundings(tmp_path), Log(tmp_path / "log"), patience=0.3):
        while not (tmp_path / "marks").exists() or not started_in(tmp_path):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        pids = [*started_in(tmp_path), *workers_in(tmp_path)]
        assert all(map(is_there, pids))
    assert not any(map(is_there, pids))


async def test_cancelling_leaves_nothing(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    task = asyncio.create_task(run(f"echo $$; {NAPS}", surroundings(tmp_path), log))
    while not log.last:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert not is_there(int(log.last))


async def test_what_a_killed_guard_leaves_is_killed(tmp_path: Path) -> None:
    command = server_command(tmp_path, a_free_port(), "workers")
    async with running(command, surroundings(tmp_path), Log(tmp_path / "log")) as process:
        while not (tmp_path / "marks").exists() or not started_in(tmp_path):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        (guard,) = [each for each in psutil.Process().children() if "guard.py" in " ".join(each.cmdline())]
        guard.kill()
        assert await process.wait() == 128 + signal.SIGKILL
    in_the_group, _ = workers_in(tmp_path)
    assert gone_within(1, *started_in(tmp_path), in_the_group)
    for pid in workers_in(tmp_path):
        if is_there(pid):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_the_program_that_started_it(end: signal.Signals, tmp_path: Path) -> None:
    program = f"""
import asyncio
from pathlib import Path
from children import server_command, surroundings
from modelcompose.adapters.processes.log import Log
from modelcompose.adapters.processes.process import run
from served import a_free_port
folder = Path({str(tmp_path)!r})
command = server_command(folder, a_free_port(), "workers")
asyncio.run(run(command, surroundings(folder), Log(folder / "log"), patience=0.3))
"""
    path = os.pathsep.join(each for each in sys.path if each)
    process = subprocess.Popen([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": path})
    while not (tmp_path / "marks").exists() or not started_in(tmp_path):
        assert process.poll() is None
        time.sleep(0.02)
    pids = [*started_in(tmp_path), *workers_in(tmp_path)]
    assert all(map(is_there, pids))
    process.send_signal(end)
    process.wait(20)
    assert gone_within(5, *pids)
