"""`model-compose validate` and the options that say which compose file is meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import call
from loading import CHAT

from modelcompose.adapters.errors import ConfigError
from modelcompose.clients.compose_files import ComposeOptions, files_in, read, variables
from modelcompose.clients.validate import run

TWO = """
workflows:
  - {id: support, title: Support, default: true, component: llm}
  - id: shout
    component: shell
    input: {x: "${input.words as text | hey @(what to shout)}"}
components:
  - {id: llm, type: model, task: chat-completion, model: HuggingFaceTB/SmolLM3-3B}
  - {id: shell, type: shell, command: "echo ${input.x}"}
"""


def test_a_good_file_is_summed_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yml").write_text(TWO, encoding="utf-8")
    assert run(ComposeOptions(files=(tmp_path / "a.yml",))) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out == (
        "ok\n"
        "\n"
        "Models\n"
        "  support  Support  (default)\n"
        "      system_prompt: text\n"
        "      user_prompt: text, required\n"
        "  shout\n"
        "      words: text, default hey  what to shout\n"
        "Components\n"
        "  llm  chat-completion  HuggingFaceTB/SmolLM3-3B\n"
        "  shell  shell\n"
    )


def test_a_model_of_other_servers_is_named_by_their_urls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "component: {type: model, task: chat-completion, driver: vllm, base_url: [http://a:1/v1, http://b:2/v1]}"
    (tmp_path / "a.yml").write_text(text, encoding="utf-8")
    assert run(ComposeOptions(files=(tmp_path / "a.yml",))) == 0
    assert "  default  chat-completion  http://a:1/v1 http://b:2/v1\n" in capsys.readouterr().out


def test_a_model_that_the_file_has_not_is_said_to_be_for_the_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = TWO.replace("HuggingFaceTB/SmolLM3-3B", "{name: big}")
    (tmp_path / "a.yml").write_text(text, encoding="utf-8")
    assert run(ComposeOptions(files=(tmp_path / "a.yml",))) == 0
    assert "  llm  chat-completion  big  (not in this file: up --model big=...)\n" in capsys.readouterr().out


def test_a_bad_file_is_told_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.yml"
    file.write_text(TWO.replace("support", "shout").replace("component: shell", "component: shel"), encoding="utf-8")
    assert run(ComposeOptions(files=(file,))) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == (
        f"{file}:4:9: workflows[1].id: there is another workflow 'shout', on line 3\n"
        f"{file}:5:16: workflows[1].component: there is no component 'shel'; did you mean 'shell'?\n"
        "2 problems\n"
    )


def test_the_command_with_its_options(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text(CHAT + "workflow: {id: '${env.NAME}', title: '${env.TITLE}'}", encoding="utf-8")
    (tmp_path / "b.yml").write_text("workflow: {description: '${env.TEXT}'}", encoding="utf-8")
    (tmp_path / "vars").write_text("TITLE=from a file\nTEXT=x", encoding="utf-8")
    files = ("-f", str(tmp_path / "a.yml"), "--file", str(tmp_path / "b.yml"))
    good = call("validate", *files, "-e", "NAME=talk", "--env-file", str(tmp_path / "vars"))
    assert (good.returncode, good.stderr) == (0, "")
    assert "  talk  from a file\n" in good.stdout
    bad = call("validate", *files, "-e", "NAME=talk")
    assert (bad.returncode, bad.stdout) == (2, "")
    assert "the environment variable 'TITLE' is not set" in bad.stderr
    assert "2 problems" in bad.stderr
    wrong = call("validate", *files, "-e", "=x")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "model-compose: -e takes NAME=VALUE, or the name of a variable that is set, not '=x'\n"


def test_the_files_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert files_in(tmp_path) == ()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"there is no model-compose\.yml in .*; name a file with -f"):
        read(ComposeOptions())
    (tmp_path / "model-compose.yaml").write_text(CHAT, encoding="utf-8")
    assert files_in(tmp_path) == (tmp_path / "model-compose.yaml",)
    (tmp_path / "model-compose.yml").write_text(CHAT, encoding="utf-8")
    (tmp_path / "model-compose.override.yml").write_text("controller: {port: 5}", encoding="utf-8")
    assert files_in(tmp_path) == (tmp_path / "model-compose.yml", tmp_path / "model-compose.override.yml")
    assert read(ComposeOptions()).file.controller.port == 5


def test_variables_are_pairs_or_taken_from_the_environment() -> None:
    assert variables(("A=b=c", "B=", "C"), {"C": "d"}) == {"A": "b=c", "B": "", "C": "d"}
    with pytest.raises(ConfigError, match="not 'D'"):
        variables(("D",), {})
