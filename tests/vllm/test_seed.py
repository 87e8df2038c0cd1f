"""The document's compose file with the real vLLM; only the installed package and the model are others."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import served
from real_vllm import PACKAGE, VLLM, api_servers, gone, is_ready, processes, wait, wait_until_ready
from seeds_documents import SEEDS
from served import Served, a_free_port, serving

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

GIVEN = {"prompt": "Explain the benefits of local AI models", "temperature": 0.7}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[Served]:
    (seed,) = [each for each in SEEDS if each.name.startswith("vllm")]
    folder = tmp_path_factory.mktemp("seed")
    text = seed.file.read_text(encoding="utf-8")
    text, packages = re.subn(r"pip install vllm\b", f"pip install {PACKAGE}", text)
    text, models = re.subn(r"--model \S+", f"--model {model}", text)
    assert (packages, models) == (1, 1)
    (folder / "model-compose.yml").write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patched:
        for name, value in as_activated(text).items():
            patched.setitem(served.ENVIRONMENT, name, value)
        with serving(folder, a_free_port()) as server:
            wait_until_ready(server)
            yield server


def as_activated(text: str) -> dict[str, str]:
    """The variables of a shell in which the user has activated vLLM's environment."""
    assert "pyenv" not in text
    return {"VIRTUAL_ENV": str(VLLM), "PATH": f"{VLLM / 'bin'}{os.pathsep}{os.environ['PATH']}"}


def run(server: Served) -> Iterator[tuple[str, str]]:
    """The events of a run: name and data."""
    url = f"{server.url}/api/workflows/runs"
    with httpx2.stream("POST", url, json={"input": GIVEN}, timeout=120) as response:
        assert response.status_code == 200, response.read()
        name = ""
        for line in response.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield name, line.removeprefix("data: ")
            elif not line:
                name = ""


def test_a_run_streams_what_vllm_says(server: Served) -> None:
    assert "installing" in server.output
    events = list(run(server))
    name, data = events[-1]
    assert name == "completed"
    assert json.loads(data)["status"] == "completed"
    assert len(events) > 2


def test_vllm_is_killed_in_the_middle_of_a_stream_and_comes_back(server: Served) -> None:
    (process,) = api_servers(server).values()
    engines = [each for each in processes(server) if "VLLM" in each.name()]
    assert engines
    events = run(server)
    next(events)
    process.kill()
    name, data = list(events)[-1]
    assert name == "failed"
    assert json.loads(data)["error"]["message"]
    wait(lambda: not is_ready(server), 10)
    refused = httpx2.post(f"{server.url}/api/workflows/runs", json={"input": GIVEN}, timeout=30)
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    assert "is not back yet" in refused.text
    wait_until_ready(server)
    assert list(run(server))[-1][0] == "completed"
    assert gone(engines)


def test_sigkill_of_our_server_leaves_no_vllm(server: Served) -> None:
    started = processes(server)
    assert len(started) >= 3
    server.process.send_signal(signal.SIGKILL)
    server.process.wait(10)
    wait(lambda: gone(started), 20)
