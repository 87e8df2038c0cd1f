"""The engine process as such: it does not outlive its server, and it says what it does."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from engines import text_request
from scripted_engine import scripted_engines  # noqa: F401 (a fixture)
from tiny_models import TinyModel

from modelcompose.adapters.base import ModelState
from modelcompose.adapters.events import Accepted, Usage
from modelcompose.adapters.transformers import child
from modelcompose.adapters.transformers.messages import FromEngine, State, Step, Submit
from modelcompose.adapters.transformers.process import without_place
from modelcompose.adapters.transformers.settings import ModelSettings

SERVER = """
import asyncio, sys
from modelcompose.adapters.transformers.adapter import TransformersAdapter
from modelcompose.adapters.transformers.process import without_place
from modelcompose.adapters.transformers.settings import ModelSettings

async def main():
    async with TransformersAdapter(ModelSettings(name="tiny", source=sys.argv[1])) as adapter:
        await adapter.ready()
        assert "torch" not in sys.modules and "transformers" not in sys.modules
        print(adapter._life.child.pid, adapter._life.child.address, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


def settings_of(folder: Path) -> ModelSettings:
    return ModelSettings(name="tiny", source=str(folder), device="cpu", precision="float32")


def test_the_engine_ends_with_its_killed_server_which_never_imported_torch(tiny_model: TinyModel) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", SERVER, str(tiny_model("gpt2"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as server:
        assert server.stdout is not None
        pid, address = server.stdout.readline().decode().split()
        engine = psutil.Process(int(pid))
        server.send_signal(signal.SIGKILL)
    assert not psutil.wait_procs([engine], timeout=5)[1]
    assert not Path(address.removeprefix("ipc://")).parent.exists()


async def test_whatever_an_engine_prints_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    printed = asyncio.StreamReader()
    printed.feed_data(
        b'[20, "load", "said"]\n5\n{"a": 1, "b": 2, "c": 3}\n["x", "y", "z"]\n\xff!\n[20, "end", "last"]\n'
    )
    printed.feed_eof()
    await child._pass_log_on(printed, "tiny")
    assert [record.getMessage() for record in caplog.records] == [
        "tiny: said",
        "tiny: 5",
        'tiny: {"a": 1, "b": 2, "c": 3}',
        'tiny: ["x", "y", "z"]',
        "tiny: \ufffd!",
        "tiny: last",
    ]


async def test_states_then_steps_also_over_the_loopback(tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "IPC_PATH_LIMIT", 0)
    messages: list[FromEngine] = []
    ready, done = asyncio.Event(), asyncio.Event()

    def receive(message: FromEngine) -> None:
        messages.append(message)
        match message:
            case State(ModelState("ready")):
                ready.set()
            case Step(outcomes) if any(isinstance(outcome, Usage) for _, outcome in outcomes):
                done.set()

    async with child.engine_process(settings_of(tiny_model("gpt2")), receive) as engine:
        await ready.wait()
        assert engine.address.startswith("tcp://127.0.0.1:")
        engine.send(Submit(7, text_request(max_tokens=3)))
        await done.wait()
    phases = [message.state.phase for message in messages if isinstance(message, State)]
    assert phases == ["loading"] * (len(phases) - 1) + ["ready"]
    outcomes = [outcome for message in messages if isinstance(message, Step) for outcome in message.outcomes]
    assert {id for id, _ in outcomes} == {7}
    assert outcomes[0] == (7, Accepted())
    assert outcomes[-1] == (7, Usage(20, 3))


@pytest.mark.usefixtures("scripted_engines")
async def test_an_engine_rests_once_whenever_it_has_nothing_to_do(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ready, done = asyncio.Event(), asyncio.Event()

    def receive(message: FromEngine) -> None:
        match message:
            case State(ModelState("ready")):
                ready.set()
            case Step(outcomes) if outcomes:
                done.set()

    def rests() -> int:
        return [record.getMessage() for record in caplog.records].count("tiny: it rests")

    settings = ModelSettings(name="tiny", source="rests_after=0.1")
    async with child.engine_process(settings, receive) as engine:
        await ready.wait()
        await asyncio.sleep(0.6)
        assert rests() == 1
        engine.send(Submit(1, text_request()))
        await done.wait()
        await asyncio.sleep(0.6)
        assert rests() == 2


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("/srv/models/llama", "there is no folder llama"),
        ("./models/llama", "there is no folder llama"),
        ("org/llama", "there is no folder org/llama"),
    ],
)
def test_a_client_is_told_a_models_name_but_not_where_it_lies(source: str, told: str) -> None:
    assert without_place(f"there is no folder {source}", source) == told
