"""vLLM that is installed and started here, with a package in its place that has its routes and no model."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections import Counter
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx2
import pytest
from children import is_there
from fake_vllm import make_environment, write_wheel

from modelcompose.adapters.base import GenerationRequest, ModelState, Sampling
from modelcompose.adapters.errors import ComposeError, ConfigError, ModelUnavailable
from modelcompose.adapters.events import TextDelta
from modelcompose.adapters.processes.environment import find_python
from modelcompose.adapters.processes.places import place_of
from modelcompose.adapters.vllm.adapter import UpstreamAdapter
from modelcompose.adapters.vllm.managed import ManagedSettings, command_of, managed_vllm
from modelcompose.adapters.vllm.settings import UpstreamSettings

NOT_THERE = ("--no-index", "no-such-package-here")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_wheel(tmp_path_factory.mktemp("wheel")))


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory: pytest.TempPathFactory, wheel: str) -> Path:
    """Where environments are; they are there, because to make a whole one takes seconds."""
    folder = tmp_path_factory.mktemp("data")
    python = asyncio.run(find_python(None))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_DATA_HOME", str(folder))
        for packages in (("--no-index", wheel), NOT_THERE):
            make_environment(place_of("environments", "vllm", python, packages) / "venv", python)
    return folder


@pytest.fixture(autouse=True)
def in_data_folder(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(data_folder))


def settings(folder: Path, wheel: str, **more: Any) -> ManagedSettings:
    upstream = UpstreamSettings(model="org/tiny", interval=0.2)
    return ManagedSettings(
        **{"source": "org/tiny", "upstream": upstream, "folder": str(folder), "packages": ("--no-index", wheel), **more}
    )


async def until(adapter: UpstreamAdapter, phase: str, detail: str = "") -> ModelState:
    async with asyncio.timeout(50):
        while True:
            (card,) = adapter.cards()
            if card.state.phase == phase and re.search(detail, card.state.detail):
                return card.state
            assert card.state.phase != "failed", card.state
            await asyncio.sleep(0.02)


async def about(adapter: UpstreamAdapter, number: int = 0) -> dict[str, Any]:
    """What a server says of itself."""
    async with httpx2.AsyncClient(trust_env=False) as client:
        answer: dict[str, Any] = (await client.get(f"{adapter.pool.replicas[number].url}/models")).json()
        return answer


async def answer(
    adapter: UpstreamAdapter, tokens: int = 5, content: str = "Hi", begun: list[str] | None = None
) -> list[str]:
    """The pieces of an answer, each of which is the process id of the server; the first is put into `begun` too."""
    request = GenerationRequest(
        model="org/tiny", messages=({"role": "user", "content": content},), sampling=Sampling(max_tokens=tokens)
    )
    pieces: list[str] = []
    async with aclosing(adapter.generate(request)) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                pieces += event.text.split()
                if begun is not None and len(pieces) == 1:
                    begun += pieces
    return pieces


def test_options_become_words() -> None:
    args = {"max_model_len": 4096, "--lora-modules": ["a=b", "c=d"], "enforce-eager": True, "no": False, "x": None}
    given = ManagedSettings(
        source="/m",
        upstream=UpstreamSettings(model="tiny"),
        folder="/",
        args={**args, "config": {"a": 0.8}, "host": "h"},
    )
    assert command_of("/v/bin/python", given, 8001) == (
        *("/v/bin/python", "-I", "-m", "vllm.entrypoints.openai.api_server", "--model", "/m"),
        *("--served-model-name", "tiny", "--host", "h", "--port", "8001", "--max-model-len", "4096"),
        *("--lora-modules", "a=b", "c=d", "--enforce-eager", "--config", '{"a": 0.8}'),
    )


async def test_it_is_installed_started_asked_and_ended(tmp_path: Path, wheel: str) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('the folder of the compose file is on the import path')")
    args = {"max-model-len": 77, "config": {"a": 1}, "enforce-eager": True}
    async with managed_vllm(settings(tmp_path, wheel, args=args, env={"GATE": str(tmp_path)})) as adapter:
        with pytest.raises(ModelUnavailable) as refused:
            await answer(adapter)
        assert refused.value.retry_after
        await until(adapter, "loading", "^installing")
        state = await until(adapter, "loading", "^starting: Loading safetensors")
        assert state.progress == 0.4
        (tmp_path / "loaded").touch()
        (tmp_path / "go").touch()
        await until(adapter, "ready")
        assert adapter.cards()[0].context_length == 77
        said = await about(adapter)
        assert said["cwd"] == str(tmp_path)
        assert str(tmp_path) not in said["path"]
        assert said["argv"][-5:] == ["--max-model-len", "77", "--config", '{"a": 1}', "--enforce-eager"]
        assert await answer(adapter) == [str(said["pid"])] * 5
    assert not is_there(said["pid"])


async def test_two_replicas_share_the_requests_and_one_that_dies_comes_back(tmp_path: Path, wheel: str) -> None:
    (tmp_path / "loaded").touch()
    async with managed_vllm(settings(tmp_path, wheel, replicas=2, env={"GATE": str(tmp_path)})) as adapter:
        await until(adapter, "ready", "2 of 2")
        pids = [(await about(adapter, number))["pid"] for number in range(2)]
        begun: list[str] = []
        streams = [asyncio.create_task(answer(adapter, 9, f"Hello {number}", begun)) for number in range(16)]
        while len(begun) < 16:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        doomed, others = (begun.count(str(pid)) for pid in pids)
        assert min(doomed, others) >= 4
        os.kill(pids[0], signal.SIGKILL)
        while sum(each.done() for each in streams) < doomed:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        (tmp_path / "go").touch()
        outcomes = await asyncio.gather(*streams, return_exceptions=True)
        failed = [each for each in outcomes if isinstance(each, ComposeError)]
        assert len(failed) == doomed
        whole = [each for each in outcomes if isinstance(each, list)]
        assert Counter(piece for each in whole for piece in each) == {str(pids[1]): 9 * others}
        assert len(await answer(adapter)) == 5
        await until(adapter, "ready", "2 of 2")
        again = {(await about(adapter, number))["pid"] for number in range(2)}
        assert pids[1] in again
        assert pids[0] not in again
    assert not any(map(is_there, again))


async def test_a_start_that_fails_is_told_with_the_root_cause(tmp_path: Path, wheel: str) -> None:
    async with managed_vllm(settings(tmp_path, wheel, source="org/broken")) as adapter:
        async with asyncio.timeout(50):
            while (state := adapter.cards()[0].state).phase == "loading":  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    assert state.phase == "failed"
    assert state.detail.startswith("the start command ended with exit status 1: ")
    assert state.detail.endswith("ValueError: no weights in org/broken")


async def test_an_installation_that_fails_is_told_with_pips_own_words(tmp_path: Path) -> None:
    async with managed_vllm(settings(tmp_path, NOT_THERE[-1])) as adapter:
        async with asyncio.timeout(50):
            while (state := adapter.cards()[0].state).phase == "loading":  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        with pytest.raises(ModelUnavailable, match="no-such-package-here"):
            await answer(adapter)
    assert state.detail == (
        "installing ended with exit status 1: ERROR: No matching distribution found for no-such-package-here"
    )


async def test_a_folder_that_is_not_there_is_an_error_of_the_file(tmp_path: Path, wheel: str) -> None:
    with pytest.raises(ConfigError, match="there is no folder '/no/such/model' with a model in it"):
        async with managed_vllm(settings(tmp_path, wheel, source="/no/such/model")):
            pass


async def test_a_python_that_is_not_there_is_an_error_of_the_file(tmp_path: Path, wheel: str) -> None:
    with pytest.raises(ConfigError, match=r"there is no Python 3\.2 here"):
        async with managed_vllm(settings(tmp_path, wheel, python="3.2")):
            pass
