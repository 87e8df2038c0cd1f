"""Every command line of the seeds, letter for letter but for the port: one server for each of their three examples.

The hub that the examples' models come from is one on loopback, with a tiny model under SmolLM3's name; vLLM's server is
a scripted one.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
from fake_hub import FakeHub
from seeds_documents import EXAMPLES, SEEDS, Seed, run_elsewhere
from served import ENVIRONMENT, Served, a_free_port
from tiny_models import smollm3
from upstream import Upstream, deltas, streams, upstream

pytestmark = [
    pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here"),
    pytest.mark.timeout(120),
]

HUB_ID = "HuggingFaceTB/SmolLM3-3B"
CONTEXT_LENGTH = 96
DONE = b"data: [DONE]\n\n"


class Example(NamedTuple):
    """An example's server, the folder that a reader's terminal is in at first, and what a reader's shell knows."""

    served: Served
    folder: Path
    environment: dict[str, str]
    vllm: Upstream

    def shell(self, *lines: str) -> subprocess.CompletedProcess[str]:
        """Run lines of a document in one shell, with the port of this server."""
        script = "\n".join(lines).replace("localhost:8080", f"localhost:{self.served.port}")
        return subprocess.run(
            ["sh", "-c", script],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def block_with(seed: Seed, words: str) -> str:
    """The one shell block that begins with these words."""
    (text,) = [block.text for block in seed.commands if block.text.startswith(words)]
    return text


@contextmanager
def threaded_upstream() -> Iterator[Upstream]:
    """vLLM's server, in a thread; it says `Privacy!`."""
    started: list[Upstream] = []
    is_there, is_over = threading.Event(), threading.Event()

    async def serve() -> None:
        async with upstream(streams(*deltas("Pri", "vacy", "!"), DONE)) as server:
            started.append(server)
            is_there.set()
            await asyncio.to_thread(is_over.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    is_there.wait()
    try:
        yield started[0]
    finally:
        is_over.set()
        thread.join()


def model_that_always_says_the_same(folder: Path) -> None:
    """A tiny SmolLM3 that is greedy unless asked otherwise, for by chance it may have nothing to say, and soon done."""
    smollm3(folder)
    for name, changed in (
        ("generation_config.json", {"do_sample": False}),
        ("config.json", {"max_position_embeddings": CONTEXT_LENGTH}),
    ):
        settings = json.loads((folder / name).read_text(encoding="utf-8"))
        (folder / name).write_text(json.dumps({**settings, **changed}), encoding="utf-8")


@contextmanager
def example(seed: Seed, folder: Path) -> Iterator[Example]:
    """Start a document's example with the document's own lines."""
    shutil.copytree(EXAMPLES, folder / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    tools = folder / "bin"
    tools.mkdir()
    command = tools / "model-compose"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m modelcompose.clients.cli "$@"\n')
    command.chmod(0o755)
    model_that_always_says_the_same(folder / "smollm3")
    with ExitStack() as opened:
        hub = opened.enter_context(FakeHub())
        hub.repositories[HUB_ID] = folder / "smollm3"
        vllm = opened.enter_context(threaded_upstream())
        port = a_free_port()
        file = folder / "examples" / seed.folder.relative_to(EXAMPLES) / "model-compose.yml"
        text = file.read_text(encoding="utf-8")
        assert text.count("port: 8080\n") == 1
        text = text.replace("port: 8080\n", f"port: {port}\n")
        text = run_elsewhere(text, vllm.port) if is_streamed(seed) else text
        file.write_text(text, encoding="utf-8")
        environment = {
            **ENVIRONMENT,
            "PATH": f"{tools}{os.pathsep}{ENVIRONMENT['PATH']}",
            "HF_HUB_OFFLINE": "0",
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(folder / "hub"),
            "XDG_STATE_HOME": str(folder / "state"),
        }
        output = folder / "up.txt"
        lines = f"{block_with(seed, 'cd ').strip()} && exec {block_with(seed, 'model-compose up').strip()}"
        with output.open("wb") as said:
            process = subprocess.Popen(["sh", "-c", lines], cwd=folder, env=environment, stdout=said, stderr=said)
        served = Served(process, port, output)
        opened.callback(process.wait, 20)
        opened.callback(process.terminate)
        served.wait_until_ready()
        yield Example(served, folder, environment, vllm)


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Path, Example]]:
    """The servers that run, by the folder of their example; each is started when it is first asked for."""
    with ExitStack() as opened:

        class Running(dict[Path, Example]):
            def __missing__(self, folder: Path) -> Example:
                seed = next(seed for seed in SEEDS if seed.folder == folder)
                found = opened.enter_context(example(seed, tmp_path_factory.mktemp(folder.name)))
                return self.setdefault(folder, found)

        yield Running()


every_seed = pytest.mark.parametrize("seed", SEEDS, ids=[seed.name for seed in SEEDS])


def is_streamed(seed: Seed) -> bool:
    return seed.name.startswith("vllm")


def checked(seed: Seed, output: Any) -> None:
    """What a run of the documents' lines has to give."""
    if is_streamed(seed):
        assert output == "Privacy!"
        return
    assert list(output) == ["generated"]
    assert isinstance(output["generated"], str)
    assert output["generated"].strip()
    if seed.name.startswith("text-generation"):
        assert output["generated"].startswith("Once upon a time in a distant galaxy")
        assert len(output["generated"]) > len("Once upon a time in a distant galaxy")


def sent(text: str) -> tuple[str, dict[str, Any]]:
    """The text of a stream of the runs API, and the task at its end."""
    *pieces, last, end = text.split("\n\n")
    assert end == ""
    assert last.startswith("event: completed\ndata: ")
    data = [piece.removeprefix("data: ") for piece in pieces if not piece.startswith((":", "event:"))]
    task: dict[str, Any] = json.loads(last.removeprefix("event: completed\ndata: "))
    return "".join(data), task


def test_every_shell_block_is_one_of_four_kinds() -> None:
    for seed in SEEDS:
        kinds = sorted(" ".join(block.text.split()[:2]) for block in seed.commands)
        assert kinds == [
            f"cd {shlex.split(block_with(seed, 'cd '))[1]}",
            "curl -X",
            "model-compose run",
            "model-compose up",
        ]


@every_seed
def test_its_curl_line_runs_the_workflow(seed: Seed, examples: dict[Path, Example]) -> None:
    ended = examples[seed.folder].shell(block_with(seed, "curl").replace("curl", "curl -sS --fail-with-body"))
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    if is_streamed(seed):
        text, task = sent(ended.stdout)
        assert text == "Privacy!"
    else:
        task = json.loads(ended.stdout)
        checked(seed, task["output"])
    assert task["status"] == "completed"
    assert task["task_id"]


@every_seed
def test_its_command_line_runs_the_workflow(seed: Seed, examples: dict[Path, Example]) -> None:
    ended = examples[seed.folder].shell(block_with(seed, "cd "), block_with(seed, "model-compose run"))
    assert ended.returncode == 0, ended.stderr
    if is_streamed(seed):
        assert ended.stdout.strip() == "Privacy!"
    else:
        checked(seed, json.loads(ended.stdout))


def test_the_examples_take_both_spellings_and_name_what_is_missing(examples: dict[Path, Example]) -> None:
    served = examples[EXAMPLES / "model-tasks" / "chat-completion"].served
    for given in ({"user_prompt": "Hi"}, {"user-prompt": "Hi", "system_prompt": "Be brief."}):
        answer = httpx2.post(f"{served.url}/api/workflows/runs", json={"input": given}, timeout=50)
        assert (answer.status_code, answer.json()["status"]) == (200, "completed")
    wrong: list[dict[str, Any]] = [{}, {"system-prompt": "Be brief."}, {"user_prompt": None}]
    for given in wrong:
        answer = httpx2.post(f"{served.url}/api/workflows/runs", json={"input": given}, timeout=50)
        assert answer.status_code == 400
        assert "'user_prompt'" in answer.json()["error"]["message"]


def test_the_temperature_of_the_last_example_is_as_given_or_its_default(examples: dict[Path, Example]) -> None:
    server = examples[EXAMPLES / "vllm-chat-completion-stream"]
    for given in ({"prompt": "Hi"}, {"prompt": "Hi", "temperature": "0.2"}):
        httpx2.post(f"{server.served.url}/api/workflows/runs", json={"input": given}, timeout=50)
    bodies = [asked.json for asked in server.vllm.asked[-2:]]
    assert [body["temperature"] for body in bodies] == [0.7, 0.2]
    assert [body["stream"] for body in bodies] == [True, True]
    answer = httpx2.post(f"{server.served.url}/api/workflows/runs", json={"input": {"temperature": 1}}, timeout=50)
    assert answer.status_code == 400
    assert "'prompt'" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("folder", "model"),
    [
        ("model-tasks/chat-completion", "generate-chat-messages"),
        ("model-tasks/text-generation", "generate-text-from-prompt"),
        ("vllm-chat-completion-stream", "chat-with-vllm-server"),
    ],
)
def test_openai_clients_find_the_example_and_get_its_answer_streamed(
    folder: str, model: str, examples: dict[Path, Example]
) -> None:
    client = examples[EXAMPLES / folder].served.client()
    assert model in [each.id for each in client.models.list()]
    messages: Any = [{"role": "user", "content": "Once upon a time"}]
    chunks = list(client.chat.completions.create(model=model, messages=messages, stream=True))
    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert len(texts) > 2
    assert not "".join(texts).startswith("Once upon a time")
    assert chunks[-1].choices[0].finish_reason in {"stop", "length"}
    if model == "chat-with-vllm-server":
        assert texts == ["Pri", "vacy", "!"]
