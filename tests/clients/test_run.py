"""`model-compose run`: on a server of its own, and on one that runs."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from commands import call
from composing import chat, echoing, one
from runs_server import Served, serving
from scripted import ScriptedAdapter, Step, says
from served import COMMAND, ENVIRONMENT, STATE, a_free_port, run_command
from served import serving as serving_folder

from modelcompose.adapters.errors import ConfigError, ModelUnavailable
from modelcompose.adapters.events import TextDelta
from modelcompose.clients.run import read_input
from modelcompose.clients.running import RunningServer, noted
from modelcompose.server.settings import Settings

FILE = """
components:
  - {id: say, type: shell, command: [printf, "%s", "${input.word}"], output: "${output.stdout}"}
  - {id: count, type: shell, command: "seq ${input.n}", output: {lines: "${output.stdout}"}}
  - {id: fail, type: shell, command: "echo no such luck >&2; exit 3", output: "${output.stdout}"}
  - {id: unused, type: model, task: chat-completion, model: ./not-there}
workflows:
  - {id: say, component: say, default: true}
  - {id: count, component: count}
  - id: fail
    jobs: [{id: first, component: say, input: {word: x}}, {id: second, component: fail, depends_on: [first]}]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a compose file whose server does not run."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "model-compose.yml").write_text(FILE, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def its_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the same file but for the model that is not there, and its server runs."""
    folder = tmp_path_factory.mktemp("running")
    text = "".join(line for line in FILE.splitlines(keepends=True) if "not-there" not in line)
    (folder / "model-compose.yml").write_text(text, encoding="utf-8")
    with serving_folder(folder, a_free_port()) as server:
        server.wait_until_ready()
        yield folder


# A server of its own


def test_a_text_is_printed_as_it_is_and_nothing_else(folder: Path) -> None:
    ended = run_command("run", "--input", '{"word": "a 🙂 [b]\\n"}', cwd=folder)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("a 🙂 [b]\n", "", 0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "workflow 'say' needs the input 'word'"),
        (("nothing",), "there is no workflow 'nothing'; this file has: say, count, fail"),
        (("--input", "{'word': 1}"), "--input is not valid JSON (line 1, column 2"),
        (("--input", "@nowhere.json"), "nowhere.json cannot be read: No such file or directory"),
        (("-f", "nowhere.yml"), "nowhere.yml: no such file"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_started(folder: Path, arguments: tuple[str, ...], words: str) -> None:
    ended = call("run", *arguments, cwd=folder)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert words in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_without_an_input_it_is_empty() -> None:
    assert read_input(None) == {}
    with pytest.raises(ConfigError):
        read_input("")


@pytest.mark.parametrize("text", ['{"a": NaN}', '{"a": 1e400}', '{"a": "\\ud83d"}', "[" * 5000 + "]" * 5000])
def test_what_cannot_be_sent_as_json_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--input (holds what JSON has no words for|is nested too deeply)"):
        read_input(text)


def test_chat_talks_to_a_workflow_of_the_folder_with_a_server_of_its_own(folder: Path) -> None:
    ended = call("chat", "say", stdin="hello\n", cwd=folder)
    assert (ended.stdout, ended.returncode) == ("hello\n", 0), ended.stderr


# The server that runs


def test_anything_but_text_is_indented_json_and_a_file_gets_it_whole(its_folder: Path, tmp_path: Path) -> None:
    ended = call("run", "count", "-i", "-", "-o", str(tmp_path / "out.json"), stdin='{"n": 2}', cwd=its_folder)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("", "", 0)
    assert (tmp_path / "out.json").read_text(encoding="utf-8") == '{\n  "lines": "1\\n2\\n"\n}\n'


def test_the_input_may_be_in_a_file(its_folder: Path, tmp_path: Path) -> None:
    (its_folder / "input.json").write_text('{"word": "aus der Datei: ä"}', encoding="utf-8")
    ended = call("run", "--input", "@input.json", "-o", str(tmp_path / "out.txt"), cwd=its_folder)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("", "", 0)
    assert (tmp_path / "out.txt").read_text(encoding="utf-8") == "aus der Datei: ä"


def test_a_run_that_fails_exits_with_1_and_names_the_job(its_folder: Path) -> None:
    ended = call("run", "fail", cwd=its_folder)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("model-compose: job 'second': ")
    assert "no such luck" in ended.stderr


@asynccontextmanager
async def server_of(
    folder: Path, form: dict[str, Any], scripts: ScriptedAdapter, monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> AsyncIterator[Served]:
    """A scripted server that `run` finds in this folder."""
    monkeypatch.setenv("XDG_STATE_HOME", STATE.name)
    async with serving(form, scripts, Settings(**settings)) as server:
        note = RunningServer(
            pid=os.getpid(),
            started=psutil.Process().create_time(),
            url=str(server.http.base_url).rstrip("/"),
            folder=str(folder),
            working_dir=str(folder),
            base_path="/api",
        )
        with noted(note):
            yield server


async def started(folder: Path, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *COMMAND, "run", *arguments, cwd=folder, env=ENVIRONMENT, stdout=-1, stderr=-1, stdin=asyncio.subprocess.DEVNULL
    )


async def ended(folder: Path, *arguments: str) -> tuple[int, str, str]:
    told = await asyncio.to_thread(call, "run", *arguments, cwd=folder)
    return told.returncode, told.stdout, told.stderr


TEXT = one(chat(), id="w")
PROMPT = ("--input", '{"prompt": "x"}')


async def test_a_text_comes_while_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = asyncio.Event()
    scripts = ScriptedAdapter({"m": [TextDelta("early"), go_on, *says("\nlate")]})
    async with server_of(tmp_path, TEXT, scripts, monkeypatch):
        process = await started(tmp_path, *PROMPT)
        assert process.stdout is not None
        assert await process.stdout.readexactly(5) == b"early"
        go_on.set()
        out, _ = await process.communicate()
    assert (process.returncode, out) == (0, b"\nlate\n")


async def test_ctrl_c_ends_the_run_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forever: list[Step] = [TextDelta("a"), asyncio.Event()]
    scripts = ScriptedAdapter({"m": forever})
    async with server_of(tmp_path, TEXT, scripts, monkeypatch):
        process = await started(tmp_path, *PROMPT)
        assert process.stdout is not None
        await process.stdout.readexactly(1)
        process.send_signal(signal.SIGINT)
        _, error = await process.communicate()
        assert (process.returncode, error) == (130, b"")
        for _ in range(500):
            if scripts.closed_early:
                break
            await asyncio.sleep(0.01)
    assert scripts.closed_early == 1


async def test_a_declared_stream_of_json_is_a_line_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    form = one(chat(output="${output as stream/json}"), id="w")
    async with server_of(tmp_path, form, ScriptedAdapter({"m": says("ä\n", "b")}), monkeypatch):
        assert await ended(tmp_path, *PROMPT) == (0, '"ä\\n"\n"b"\n', "")


async def test_errors_of_a_server_have_the_same_exit_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = ScriptedAdapter({"m": [TextDelta("half "), ModelUnavailable("it broke")]})
    async with server_of(tmp_path, TEXT, scripts, monkeypatch):
        assert await ended(tmp_path, *PROMPT) == (1, "half ", "model-compose: it broke\n")
        assert await ended(tmp_path) == (2, "", "model-compose: workflow 'w' needs the input 'prompt'\n")
        code, _, error = await ended(tmp_path, "nothing")
        assert (code, "there is no workflow 'nothing'" in error) == (2, True)


async def test_a_server_with_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with server_of(tmp_path, TEXT, ScriptedAdapter({"m": echoing}), monkeypatch, api_keys=("secret",)):
        code, _, error = await ended(tmp_path, *PROMPT)
        assert (code, "wants a key" in error) == (2, True)
        assert await ended(tmp_path, *PROMPT, "--api-key", "secret") == (0, "You said: x\n", "")


async def test_output_in_a_file_is_written_only_when_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts = ScriptedAdapter({"m": [TextDelta("half "), ModelUnavailable("it broke")]})
    async with server_of(tmp_path, TEXT, scripts, monkeypatch):
        assert (await ended(tmp_path, *PROMPT, "-o", "out"))[0] == 1
    assert not (tmp_path / "out").exists()
