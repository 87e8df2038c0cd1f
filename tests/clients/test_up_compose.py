"""`model-compose up` with a compose file, as a process."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx2
import openai
import psutil
import pytest
from commands import call
from scripted_upstream import NAME, upstream
from served import Served, a_free_port, serving

FILE = """
controller:
  base_path: /flows
components:
  - id: bot
    default: true
    type: model
    task: chat-completion
    model: ./tiny
    params: {max_output_length: 4, do_sample: false}
    output: {generated: "${output}"}
  - id: writer
    type: model
    task: text-generation
    model: ./tiny
    params: {max_output_length: 4}
  - id: shell
    type: shell
    command: [printf, "%s", "${input.word}${env.MARK | .}"]
    output: ${output.stdout}
workflows:
  - {id: assistant, title: An assistant, default: true, component: bot}
  - {id: story, component: writer}
  - {id: say, component: shell}
"""
SHELL = """
component: {type: shell, command: [printf, "%s", "${input.word} ${env.MARK | none}"], output: "${output.stdout}"}
workflows:
  - {id: say, default: true}
  - {id: repeat, component: default}
"""


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("composed")
    shutil.copytree(tiny_folder, folder / "tiny")
    (folder / "model-compose.yml").write_text(FILE, encoding="utf-8")
    with serving(folder, a_free_port(), "--model", "./tiny") as server:
        early = server.wait_for_answer()
        assert early.status_code == 503
        assert httpx2.get(f"{server.url}/flows/workflows").status_code == 200
        server.wait_until_ready()
        yield server


def run(server: Served, given: Any = None, **fields: Any) -> httpx2.Response:
    return httpx2.post(f"{server.url}/flows/workflows/runs", json={"input": given, **fields}, timeout=30)


def test_workflows_are_models_beside_the_plain_ones(composed: Served) -> None:
    assert [model.id for model in composed.client().models.list()] == ["assistant", "story", "say", "tiny"]


def test_a_model_that_several_want_is_loaded_once(composed: Served) -> None:
    assert len(psutil.Process(composed.process.pid).children(recursive=True)) == 1


def test_the_default_workflow_runs(composed: Served) -> None:
    response = run(composed, {"user-prompt": "Hello"})
    assert response.status_code == 200, response.text
    assert list(response.json()["output"]) == ["generated"]
    missing = run(composed)
    assert (missing.status_code, missing.json()["error"]["param"]) == (400, "user_prompt")


def test_any_workflow_answers_as_a_model(composed: Served) -> None:
    said = composed.client().chat.completions.create(model="say", messages=[{"role": "user", "content": "hi"}])
    assert said.choices[0].message.content == "hi."
    streamed = composed.client().chat.completions.create(
        model="assistant", messages=[{"role": "user", "content": "Hello"}], stream=True
    )
    assert list(streamed)[-1].choices[0].finish_reason in {"length", "stop"}


def test_it_says_what_it_serves(composed: Served) -> None:
    assert "is loading tiny for model-compose.yml" in composed.output
    assert "  assistant  workflow  An assistant" in composed.output


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("component: {type: shell, comand: x}", "component.comand: unknown key; did you mean 'command'?"),
        ("", "is empty"),
    ],
)
def test_a_wrong_file_is_told_at_once(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "model-compose.yml").write_text(text, encoding="utf-8")
    for command in (("up", "-d"), ("run",)):
        ended = call(*command, cwd=tmp_path)
        assert ended.returncode == 2
        assert ended.stderr.startswith("model-compose.yml:"), ended.stderr
        assert words in ended.stderr
        assert "Traceback" not in ended.stderr


def test_a_model_that_nothing_here_has_is_told_at_once(tmp_path: Path) -> None:
    text = """
components:
  - {id: llm, type: model, task: chat-completion, model: {name: bundeld}, default: true}
  - {id: small, type: model, task: chat-completion, model: bundled, preload: false}
"""
    (tmp_path / "model-compose.yml").write_text(text, encoding="utf-8")
    words = (
        "component 'llm' asks the model 'bundeld', which this server will not have unless --model bundeld=... adds it"
    )
    for command, hint in ((("up", "-d"), "; did you mean 'bundled'?\n"), (("run", "-i", '{"user_prompt": "Hi"}'), "")):
        ended = call(*command, cwd=tmp_path)
        assert ended.returncode == 2, ended.stderr
        assert words + hint in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-f", "nowhere.yml"), "nowhere.yml: no such file"),
        (("-f", "nowhere"), "there is neither a file 'nowhere' nor a workflow of that name in the library"),
        (("-e", "A=1"), "-e and --env-file are for a compose file, and there is none in"),
        (("--workflow", "a"), "--workflow is for a compose file, and there is none in"),
        (("-f", "translate", "--no-file"), "--no-file leaves no use for -f, -e and --env-file"),
        (("-f", "translate", "--model", "translate=org/model"), "a workflow and a model are both called 'translate'"),
        (("-f", "translate", "--workflow", "say"), "there is no workflow 'say'; this file has: translate"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    ended = call("up", "--port", "0", *arguments, cwd=tmp_path)
    assert ended.returncode == 2
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr


def test_several_files_variables_and_a_part_of_them(tmp_path: Path) -> None:
    (tmp_path / "base.yml").write_text(SHELL, encoding="utf-8")
    (tmp_path / "more.yml").write_text("controller: {base_path: /}", encoding="utf-8")
    (tmp_path / "vars").write_text("MARK=file", encoding="utf-8")
    options = ("-f", "base.yml", "-f", "more.yml", "--env-file", "vars", "-e", "MARK=given", "--workflow", "repeat")
    with serving(tmp_path, a_free_port(), *options) as server:
        server.wait_until_ready()
        answer = httpx2.post(f"{server.url}/workflows/runs", json={"input": {"word": "a"}, "output_only": True})
        assert answer.json() == "a given"
        assert [model.id for model in server.client().models.list()] == ["repeat"]


def test_a_file_can_be_left_alone(tmp_path: Path, tiny_folder: Path) -> None:
    (tmp_path / "model-compose.yml").write_text("broken", encoding="utf-8")
    with serving(tmp_path, a_free_port(), "--no-file", "--model", str(tiny_folder)) as server:
        assert server.wait_for_answer().status_code == 503
        assert httpx2.get(f"{server.url}/api/workflows").status_code == 404


async def test_models_at_servers_elsewhere_may_come_later(tmp_path: Path) -> None:
    async with upstream() as far, AsyncExitStack() as opened:
        await far.stop()
        text = (
            f"component: {{type: model, task: chat-completion, driver: vllm, base_url: '{far.url}', model: {NAME}}}\n"
        )
        (tmp_path / "model-compose.yml").write_text(text, encoding="utf-8")
        server = opened.enter_context(serving(tmp_path, a_free_port()))
        early = await asyncio.to_thread(server.wait_for_answer)
        assert early.status_code == 503
        await far.start()
        await asyncio.to_thread(server.wait_until_ready)
        client = await opened.enter_async_context(openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none"))
        for model in (NAME, "default"):
            said = await client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hi"}])
            assert said.choices[0].message.content == "Hello"
