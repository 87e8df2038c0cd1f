"""The server as a process: what it loads, how it starts and stops, and what it survives."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import openai
import psutil
import pytest
from served import a_free_port, run_command, serving

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam
    from served import Served

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello!"}]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_the_server_process_has_not_loaded_torch(served: Served) -> None:
    def maps(pid: int) -> str:
        return Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")

    assert "libtorch" not in maps(served.process.pid)
    assert any("libtorch" in maps(engine.pid) for engine in served.engines())


def test_a_killed_engine_fails_its_stream_with_an_error_and_the_next_request_works(served: Served) -> None:
    client = served.client()
    starts = served.count("engine_starts")
    stream = client.completions.create(
        model="bundled", prompt="Once upon a time", max_tokens=2000, stream=True, extra_body={"ignore_eos": True}
    )
    next(stream)
    for engine in served.engines():
        engine.kill()
    with pytest.raises(openai.APIError) as caught:
        list(stream)
    assert caught.value.code == "engine_died"
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none") as patient:
        answer = patient.chat.completions.create(model="bundled", messages=HELLO, max_tokens=2)
    assert answer.choices[0].finish_reason == "length"
    assert served.count("engine_starts") == starts + 1


def test_health_answers_while_the_model_still_loads_and_sigterm_leaves_nothing(
    tiny_folder: Path, tmp_path: Path
) -> None:
    with serving(tmp_path, a_free_port(), "--model", str(tiny_folder)) as server:
        early = server.wait_for_answer()
        assert early.status_code == 503
        assert early.json()["models"][0]["state"] == "loading"
        with pytest.raises(openai.APIStatusError) as caught:
            server.client().chat.completions.create(model="tiny", messages=HELLO)
        assert (caught.value.status_code, caught.value.code) == (503, "server_is_overloaded")
        assert int(caught.value.response.headers["retry-after"]) >= 1
        server.wait_until_ready()
        stream = server.client().completions.create(
            model="tiny", prompt="a", max_tokens=200, stream=True, extra_body={"ignore_eos": True}
        )
        next(stream)
        started = server.engines()
        assert started
        assert server.stop(signal.SIGTERM) == 0
        assert not any(process.is_running() for process in started)
        assert "Traceback" not in server.output


def test_several_models_a_key_and_ctrl_c(tiny_folder: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    options = ("--model", f"org/tiny={tiny_folder}", "--model", str(empty), "--api-key", "secret")
    with serving(tmp_path, a_free_port(), *options) as server:
        server.wait_until_ready()
        while server.state("empty") == "loading":
            time.sleep(0.05)
        client = server.client("secret")
        assert [model.id for model in client.models.list()] == ["org/tiny", "empty"]
        assert client.models.retrieve("org/tiny").id == "org/tiny"
        assert httpx2.get(f"{server.url}/v1/models/org/tiny", headers={"authorization": "Bearer secret"}).is_success
        assert client.chat.completions.create(model="org/tiny", messages=HELLO, max_tokens=2).usage is not None
        with pytest.raises(openai.InternalServerError):
            client.chat.completions.create(model="empty", messages=HELLO)
        with pytest.raises(openai.AuthenticationError):
            server.client("wrong").models.list()
        assert server.stop(signal.SIGINT) == 130
        assert server.output.count("empty cannot be served") == 1
        assert "secret" not in server.output
        assert "Traceback" not in server.output


def test_a_server_whose_only_model_cannot_load_says_why_and_ends(tmp_path: Path) -> None:
    (tmp_path / "no-model").mkdir()
    ended = run_command("up", "--port", "0", "--model", str(tmp_path / "no-model"))
    assert ended.returncode == 2
    assert ended.stderr.count("no-model cannot be served: ") == 1
    assert ended.stderr.endswith("model-compose: no model could be loaded, so there is nothing to serve\n")
    assert "Traceback" not in ended.stderr


def test_a_taken_port_is_told_before_anything_is_loaded(served: Served) -> None:
    ended = run_command("up", "--port", str(served.port))
    assert ended.returncode == 2
    assert ended.stderr == (
        f"model-compose: port {served.port} is taken by another program; choose another one: --port {served.port + 1}\n"
    )


def test_it_said_what_it_serves_and_a_line_to_try(served: Served) -> None:
    assert f"{served.url}/v1" in served.output
    assert "bundled" in served.output
    assert f"curl -N {served.url}/v1/chat/completions" in served.output


def test_one_engine_a_model_and_no_other_process(served: Served) -> None:
    served.wait_until_ready()
    assert len(psutil.Process(served.process.pid).children(recursive=True)) == 1
