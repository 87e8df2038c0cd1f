"""Servers that a compose file describes, from their installation to their end."""

from __future__ import annotations

import asyncio
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from children import be_quick, is_there, server_command, started_in
from composing import asks, events_of, one, runner
from served import a_free_port

from modelcompose.adapters.base import ModelState
from modelcompose.adapters.errors import ModelUnavailable, UpstreamError
from modelcompose.workflows.load import load
from modelcompose.workflows.model import workflow_models
from modelcompose.workflows.runner import Runner


@pytest.fixture(autouse=True)
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where what is installed is noted, by servers that are looked at often."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    be_quick(monkeypatch)
    return tmp_path / "data"


def server(folder: Path, *options: str, action: dict[str, Any] | None = None, **manage: Any) -> dict[str, Any]:
    port = a_free_port()
    manage = {"start": [server_command(folder, port, *options)], **manage}
    actions = [{"path": "/say", "body": {"text": "${input.prompt}"}, **(action or {})}]
    return {"id": "small", "type": "http-server", "port": port, "manage": manage, "timeout": 30, "actions": actions}


async def ready(opened: Runner) -> None:
    async with asyncio.timeout(30):
        while (state := opened.state_of("small")).phase == "loading":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert state == ModelState("ready")


async def test_it_is_installed_and_started_once_asked_while_it_is_there_and_ended(tmp_path: Path) -> None:
    manage = {"install": ["echo installed >> log"], "build": ["echo built >> log"], "clean": ["echo cleaned >> log"]}
    form = one(server(tmp_path, "slow=0.3", action={"output": "${response.said.text}"}, **manage))
    for _ in range(2):
        async with runner(form, folder=tmp_path) as opened:
            (model,) = workflow_models(opened)
            assert model.cards()[0].state.phase == "loading"
            with pytest.raises(ModelUnavailable, match="small is not ready yet") as refused:
                async with opened.run(given={"prompt": "Hi"}) as run:
                    await run.value()
            assert refused.value.retry_after == 2
            with pytest.raises(ModelUnavailable, match="small is not ready yet"):
                await events_of(model, asks("Hi"))
            await ready(opened)
            assert model.cards()[0].state.phase == "ready"
            async with opened.run(given={"prompt": "Hi"}) as run:
                assert await run.value() == "Hi"
        assert not any(map(is_there, started_in(tmp_path)))
    assert (tmp_path / "log").read_text().split() == ["installed", "built", "cleaned", "cleaned"]


async def test_a_server_that_cannot_start_fails_its_workflow_with_the_reason(tmp_path: Path) -> None:
    async with runner(one(server(tmp_path, "broken")), folder=tmp_path) as opened:
        (model,) = workflow_models(opened)
        while (state := model.cards()[0].state).phase == "loading":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert state.phase == "failed"
    assert state.detail == "the start command ended with exit status 1: ValueError: these weights are broken"


async def test_a_server_that_dies_fails_the_request_it_works_on_and_comes_back(tmp_path: Path) -> None:
    component = server(tmp_path, action={"path": "${input.path}"})
    async with runner(one(component), folder=tmp_path) as opened:
        await ready(opened)
        with pytest.raises(UpstreamError, match="component 'small'"):
            async with opened.run(given={"prompt": "Hi", "path": "/die"}) as run:
                await run.value()
        while opened.state_of("small").phase == "ready":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        with pytest.raises(ModelUnavailable, match="small is not back yet") as refused:
            async with opened.run(given={"prompt": "Hi", "path": "/say"}) as run:
                await run.value()
        assert refused.value.retry_after
        await ready(opened)
        async with opened.run(given={"prompt": "Hi", "path": "/say"}) as run:
            assert (await run.value())["said"] == {"text": "Hi"}
        assert len(started_in(tmp_path)) == 2


@pytest.mark.parametrize("working_dir", [None, "."])
async def test_its_environment_is_its_own(
    working_dir: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/ours")
    monkeypatch.setenv("MODEL_COMPOSE_API_KEY", "secret")
    component = server(tmp_path, env={"A": "1"}, working_dir=working_dir)
    async with runner(one(component), folder=tmp_path) as opened:
        await ready(opened)
        async with opened.run(given={"prompt": "Hi"}) as run:
            seen = await run.value()
    assert seen["cwd"] == str(tmp_path)
    env = seen["env"]
    assert (env["A"], env["PORT"]) == ("1", str(component["port"]))
    assert env.keys() & {"PYTHONPATH", "MODEL_COMPOSE_API_KEY"} == set()
    assert sys.prefix not in env.get("VIRTUAL_ENV", "")
    assert (str(tmp_path) in seen["path"]) is (working_dir is not None)


async def test_a_module_of_the_folder_needs_a_working_dir_and_the_error_says_so(tmp_path: Path) -> None:
    (tmp_path / "weights.py").touch()
    (tmp_path / "main.py").write_text("import weights")
    async with runner(one(server(tmp_path, start=[f"{sys.executable} main.py"])), folder=tmp_path) as opened:
        while (state := opened.state_of("small")).phase == "loading":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert "found no Python module 'weights'" in state.detail
    assert "`working_dir: .`" in state.detail


async def test_a_port_that_is_taken_by_the_second_of_two_components(tmp_path: Path) -> None:
    first = server(tmp_path)
    async with runner(one(first), folder=tmp_path) as opened:
        await ready(opened)
        async with runner(one(first), folder=tmp_path) as second:
            while (state := second.state_of("small")).phase == "loading":  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert f"port {first['port']} is taken by python" in state.detail


PYENV = """#!/bin/sh
case "$1" in
  init) echo 'pyenv() { case "$1" in activate) test -d "$ENVS/$2" && export PATH="$ENVS/$2:$PATH";;
    virtualenv) mkdir -p "$ENVS/$3" && cp "$ENVS/python" "$ENVS/$3/";; esac; }';;
esac
"""

SEED = """
component:
  id: small
  type: http-server
  manage:
    install:
      - bash
      - -c
      - |
        eval "$(pyenv init -)" &&
        (pyenv activate vllm 2>/dev/null || pyenv virtualenv $(python --version | cut -d' ' -f2) vllm) &&
        pyenv activate vllm &&
        echo pip install vllm >> installed
    start:
      - bash
      - -c
      - |
        eval "$(pyenv init -)" &&
        pyenv activate vllm &&
        python SCRIPT \\
          PORT
  port: PORT
  action:
    path: /v1/chat/completions
    body: {text: "${input.prompt}"}
    output: ${response.said.text}
workflow:
  output: ${output}
"""


async def test_pyenv_as_the_seed_uses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a pyenv that does what the two commands need of it."""
    port = a_free_port()
    (*_, script, _) = server_command(tmp_path, port)
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "pyenv").write_text(PYENV)
    (programs / "python").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("ENVS", str(programs))
    path = tmp_path / "model-compose.yml"
    path.write_text(SEED.replace("SCRIPT", script).replace("PORT", str(port)))
    for _ in range(2):
        async with Runner(load([path], env={})) as opened:
            await ready(opened)
            async with opened.run(given={"prompt": "Hi"}) as run:
                assert await run.value() == "Hi"
    assert (tmp_path / "installed").read_text() == "pip install vllm\n"


async def test_without_pyenv_the_error_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    path = tmp_path / "model-compose.yml"
    path.write_text(SEED.replace("SCRIPT", "x").replace("PORT", str(a_free_port())))
    async with Runner(load([path], env={})) as opened:
        while (state := opened.state_of("small")).phase == "loading":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert state.phase == "failed"
    assert "pyenv is not installed" in state.detail


async def test_pip_without_an_environment_gets_one_that_is_this_components(
    tmp_path: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    monkeypatch.delenv("CONDA_PREFIX", raising=False)
    install = [
        "echo pip install nothing",
        "python -m pip install --no-index nothing-here || true",
        "command -v pip > pip",
    ]
    async with runner(one(server(tmp_path, install=install)), folder=tmp_path) as opened:
        await ready(opened)
    found = Path((tmp_path / "pip").read_text().strip())
    assert found.is_relative_to(data_folder / "model-compose" / "servers")
    assert (found.parent / "python").exists()


async def test_it_is_only_talked_to_without_a_start_command(tmp_path: Path) -> None:
    async with runner(one(server(tmp_path, start=[])), folder=tmp_path) as opened:
        assert opened.state_of("small") == ModelState("ready")
        assert opened.servers[0].cards() == []
        with pytest.raises(UpstreamError, match="component 'small'"):
            async with opened.run(given={"prompt": "Hi"}) as run:
                await run.value()
