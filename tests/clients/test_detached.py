"""`up -d`, `ps`, `logs`, `run` and `down`: a server that nobody watches."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from commands import call
from served import COMMAND, ENVIRONMENT, a_free_port, run_command

FILE = """
controller: {{port: {port}}}
component: {{type: shell, command: [printf, "%s", "${{input.word}}"], output: "${{output.stdout}}"}}
workflow: {{id: say, title: Says it}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder whose server runs in the background."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "model-compose.yml").write_text(FILE.format(port=a_free_port()), encoding="utf-8")
    started = run_command("up", "-d", cwd=folder)
    assert started.returncode == 0, started.stderr
    assert re.search(r"Ready: http://127.0.0.1:\d+/v1 \(process \d+\)", started.stderr)
    yield folder
    stopped = call("down", cwd=folder)
    assert stopped.returncode == 0


def process_of(folder: Path) -> int:
    """The number that `ps` tells."""
    return int(call("ps", cwd=folder).stdout.splitlines()[1].split()[1])


def test_ps_shows_it_here_and_from_elsewhere(folder: Path, tmp_path: Path) -> None:
    heading, row = call("ps", cwd=folder).stdout.splitlines()
    assert heading.split() == ["URL", "PROCESS", "UP", "FOLDER", "MODEL", "STATE"]
    assert re.fullmatch(rf"http://127.0.0.1:\d+  \d+ +\d+[smhd]   *{re.escape(str(folder))}  say    ready", row)
    assert call("ps", "-f", str(folder / "model-compose.yml"), cwd=tmp_path).stdout.split()[7] == row.split()[1]
    assert str(folder) in call("ps", "--all", cwd=tmp_path).stdout
    elsewhere = call("ps", cwd=tmp_path)
    assert elsewhere.stdout == ""
    assert "No server of this folder is running" in elsewhere.stderr


def test_run_uses_it_and_its_log_shows_that(folder: Path) -> None:
    ended = call("run", "--input", '{"word": "hello"}', cwd=folder)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("hello\n", "", 0)
    assert "POST /api/workflows/runs 200 model=say" in call("logs", "-n", "1", cwd=folder).stdout


def test_chat_uses_it_too(folder: Path) -> None:
    ended = call("chat", stdin="hello\nagain\n", cwd=folder)
    assert (ended.stdout, ended.returncode) == ("hello\nagain\n", 0), ended.stderr


def test_a_second_one_is_not_started(folder: Path) -> None:
    again = run_command("up", "-d", cwd=folder)
    assert again.returncode == 0
    assert "is served already" in again.stderr
    watched = call("up", cwd=folder)
    assert watched.returncode == 2
    assert "is served already" in watched.stderr


def test_logs_are_followed_until_the_server_ends(tmp_path: Path) -> None:
    (tmp_path / "model-compose.yml").write_text(FILE.format(port=a_free_port()), encoding="utf-8")
    assert run_command("up", "-d", cwd=tmp_path).returncode == 0
    process = psutil.Process(process_of(tmp_path))
    with subprocess.Popen(
        [*COMMAND, "logs", "-f"], cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    ) as follower:
        assert follower.stdout is not None
        assert "is starting for model-compose.yml" in follower.stdout.readline()
        assert call("run", "--input", '{"word": "x"}', cwd=tmp_path).returncode == 0
        stopped = call("down", cwd=tmp_path)
        assert re.match(r"Stopped http://127.0.0.1:\d+ \(process \d+\)\.", stopped.stderr)
        said = follower.stdout.read()
    assert "POST /api/workflows/runs 200" in said
    assert said.endswith("Stopping ...\n")
    assert not process.is_running()
    assert "No server" in call("ps", cwd=tmp_path).stderr
    assert "Stopping ..." in call("logs", cwd=tmp_path).stdout
    assert call("down", cwd=tmp_path).returncode == 0


def test_where_its_web_ui_is_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(ENVIRONMENT, "MODEL_COMPOSE_NO_WEBUI")
    (tmp_path / "model-compose.yml").write_text(FILE.format(port=a_free_port()), encoding="utf-8")
    port = a_free_port()
    started = run_command("up", "-d", "--webui-port", str(port), cwd=tmp_path)
    assert f"\nWeb UI: http://127.0.0.1:{port} (in a few seconds)\n" in started.stderr
    call("down", cwd=tmp_path)
    with socket.create_server(("127.0.0.1", port)):
        started = run_command("up", "-d", "--webui-port", str(port), cwd=tmp_path)
        assert "There is no Web UI; 'model-compose logs' says why." in started.stderr
    call("down", cwd=tmp_path)


def test_what_keeps_it_from_starting_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (tmp_path / "model-compose.yml").write_text(FILE.format(port=port), encoding="utf-8")
        ended = run_command("up", "-d", cwd=tmp_path)
    assert ended.returncode == 2
    assert f"port {port} is taken by another program" in ended.stderr


def test_a_model_that_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ended = run_command("up", "-d", "--model", "./empty", "--port", str(a_free_port()), cwd=tmp_path)
    assert ended.returncode == 2
    assert "empty cannot be served" in ended.stderr
    assert "No server" in call("ps", cwd=tmp_path).stderr


def test_a_server_that_was_killed_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "model-compose.yml").write_text(FILE.format(port=a_free_port()), encoding="utf-8")
    assert run_command("up", "-d", cwd=tmp_path).returncode == 0
    process = psutil.Process(process_of(tmp_path))
    process.kill()
    deadline = time.monotonic() + 10
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert "No server" in call("ps", cwd=tmp_path).stderr
    assert "No server" in call("down", cwd=tmp_path).stderr


def test_logs_of_nothing_and_of_a_server_at_a_terminal(tmp_path: Path) -> None:
    nothing = call("logs", cwd=tmp_path)
    assert nothing.returncode == 2
    assert "no server of this folder was started with 'model-compose up -d'" in nothing.stderr
