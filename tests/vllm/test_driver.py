"""`driver: vllm`: two servers that are started here, used as one model; and the same reached as remote ones."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from real_vllm import NAME, PACKAGE, api_servers, gone, is_ready, processes, running, wait, wait_until_ready
from served import Served, a_free_port, serving

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

HI: Any = [{"role": "user", "content": "Hi"}]
LONG: Any = {"ignore_eos": True}

FILE = """
component:
  id: tiny
  type: model
  task: chat-completion
  driver: vllm
  model: {model}
  messages: ${{input.messages}}
  params: {{max_output_length: 9000}}
  replicas: 2
  manage:
    packages: {package}
    args:
      max-model-len: 4096
      enforce-eager: true
      dtype: float32
      enable-auto-tool-choice: true
      tool-call-parser: hermes
workflow: {{id: answer}}
"""

TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Paris", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("driver")
    text = FILE.format(model=model, package=PACKAGE)
    (folder / "model-compose.yml").write_text(text, encoding="utf-8")
    with serving(folder, a_free_port()) as server:
        wait_until_ready(server)
        wait(lambda: len(answering(server)) == 2, server=server)
        yield server


@pytest.fixture(scope="module")
def client(server: Served) -> openai.OpenAI:
    return server.client().with_options(timeout=120)


def answering(server: Served) -> list[int]:
    """The ports of the replicas that answer."""
    return [port for port in api_servers(server) if answers(port)]


def answers(port: int) -> bool:
    try:
        return httpx2.get(f"http://127.0.0.1:{port}/health", timeout=5).status_code == 200
    except httpx2.TransportError:
        return False


def test_it_says_what_it_does_while_it_starts_and_lists_the_model(server: Served, client: openai.OpenAI) -> None:
    assert re.search(rf"tiny: installing: .*pip install .*{PACKAGE}\n", server.output)
    assert re.search(r"tiny: starting: .*\n", server.output)
    listed = {model.id: model.model_dump() for model in client.models.list()}
    assert listed[NAME]["max_model_len"] == 4096
    assert listed[NAME]["owned_by"] == "vllm"
    assert server.state(NAME) == "ready"


def test_a_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=NAME, messages=HI, max_tokens=8, extra_body=LONG)
    assert answer.model == NAME
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8


def test_a_stream(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model=NAME,
            messages=HI,
            max_tokens=20,
            stream=True,
            stream_options={"include_usage": True},
            extra_body=LONG,
        )
    )
    assert len(chunks) > 10
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 20
    assert {chunk.model for chunk in chunks} == {NAME}


def test_completions_with_logprobs_and_echo(client: openai.OpenAI) -> None:
    """As lm-eval asks for them: the prompt as token ids, and nothing but its logprobs wanted."""
    answer = client.completions.create(
        model=NAME, prompt=[40, 41, 42, 43], max_tokens=1, echo=True, logprobs=2, temperature=0
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    first, *rest = logprobs.model_dump()["token_logprobs"]
    assert first is None
    assert len(rest) == 4
    assert all(value <= 0 for value in rest)


def test_a_tool_that_is_named(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=NAME,
        messages=HI,
        max_tokens=1500,
        tools=[TOOL],
        tool_choice={"type": "function", "function": {"name": "weather"}},
    )
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments)["city"] in {"Paris", "Rome"}


def test_structured_outputs(client: openai.OpenAI) -> None:
    for extra in ({"structured_outputs": {"choice": ["yes", "no"]}}, {"structured_outputs": {"regex": "yes|no"}}):
        answer = client.chat.completions.create(model=NAME, messages=HI, max_tokens=20, extra_body=extra)
        assert answer.choices[0].message.content in {"yes", "no"}


def test_several_choices(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=NAME, messages=HI, max_tokens=5, n=2, seed=1)
    assert [choice.index for choice in answer.choices] == [0, 1]
    chunks = client.chat.completions.create(model=NAME, messages=HI, max_tokens=5, n=2, stream=True, extra_body=LONG)
    assert {choice.index for chunk in chunks for choice in chunk.choices} == {0, 1}


def test_a_workflow_over_it(client: openai.OpenAI) -> None:
    chunks = client.chat.completions.create(model="answer", messages=HI, max_tokens=10, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_a_limit_of_the_file_is_cut_to_what_fits_and_a_clients_is_refused(client: openai.OpenAI) -> None:
    with client.chat.completions.create(model="answer", messages=HI, stream=True) as stream:
        assert next(iter(stream)).choices
    with pytest.raises(openai.BadRequestError, match="4096"):
        client.chat.completions.create(model="answer", messages=HI, max_tokens=8000)


def test_an_error_of_vllms_is_handed_on(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="4096") as refused:
        client.chat.completions.create(model=NAME, messages=HI, max_tokens=9000)
    assert refused.value.type


@pytest.mark.parametrize("name", [NAME, "answer"])
def test_a_client_that_leaves_frees_vllm_within_a_second(name: str, server: Served, client: openai.OpenAI) -> None:
    """Relayed, and through a workflow."""
    stream = client.chat.completions.create(model=name, messages=HI, max_tokens=4000, stream=True, extra_body=LONG)
    for _ in range(3):
        next(stream)
    ports = list(api_servers(server))
    wait(lambda: sum(map(running, ports)) == 1, 10)
    stream.close()
    left = time.monotonic()
    wait(lambda: sum(map(running, ports)) == 0, 5)
    assert time.monotonic() - left < 1


def test_the_same_servers_as_remote_ones(server: Served, tmp_path: Path) -> None:
    urls = [f"http://127.0.0.1:{port}/v1" for port in api_servers(server)]
    named = {"id": "far", "type": "model", "task": "chat-completion", "driver": "vllm", "base_url": urls}
    (tmp_path / "model-compose.yml").write_text(json.dumps({"component": named}), encoding="utf-8")
    with serving(tmp_path, a_free_port()) as far:
        wait_until_ready(far)
        client = far.client()
        listed = {model.id: model.model_dump() for model in client.models.list()}
        assert listed[NAME]["max_model_len"] == 4096
        answer = client.chat.completions.create(model=NAME, messages=HI, max_tokens=5)
        assert answer.choices[0].message.content
        assert far.stop() == 0
    assert is_ready(server)


def test_one_of_two_is_killed_under_sixteen_streams_and_comes_back(server: Served, client: openai.OpenAI) -> None:
    ports = api_servers(server)
    assert len(ports) == 2
    counts: dict[int, int] = {}

    def read(number: int) -> int | Exception:
        messages: Any = [{"role": "user", "content": f"Story {number}"}]
        try:
            stream = client.chat.completions.create(
                model=NAME, messages=messages, max_tokens=1200, stream=True, extra_body=LONG
            )
            return sum(len(chunk.choices) for chunk in stream)
        except openai.APIError as error:
            return error

    with ThreadPoolExecutor(16) as threads:
        reading = [threads.submit(read, number) for number in range(16)]
        wait(lambda: sum(map(running, ports)) == 16, 60)
        counts = {port: running(port) for port in ports}
        assert min(counts.values()) >= 4
        doomed = min(counts, key=lambda port: counts[port])
        ports[doomed].kill()
        outcomes = [each.result() for each in reading]
    failed = [each for each in outcomes if isinstance(each, Exception)]
    assert len(failed) == counts[doomed], outcomes
    assert all(str(each) for each in failed)
    answer = client.chat.completions.create(model=NAME, messages=HI, max_tokens=5)
    assert answer.choices[0].message.content
    wait(lambda: len(answering(server)) == 2, server=server)
    assert ports[doomed].pid not in [process.pid for process in api_servers(server).values()]
    assert "was ended by SIGKILL; it is started again" in server.output


def test_sigterm_leaves_no_vllm(server: Served) -> None:
    started = processes(server)
    assert any("VLLM" in process.name() for process in started), [process.name() for process in started]
    assert server.stop(signal.SIGTERM) == 0
    assert gone(started)
    assert "Traceback" not in server.output
