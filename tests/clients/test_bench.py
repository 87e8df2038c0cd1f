"""`model-compose bench`: what it asks, what it measures, and how it says so."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import call
from scripted import ScriptedAdapter, Step, says
from served import COMMAND, ENVIRONMENT
from threaded import served_by

from modelcompose.adapters.base import GenerationRequest
from modelcompose.adapters.errors import ModelUnavailable
from modelcompose.adapters.events import TextDelta
from modelcompose.clients.bench_report import Answer, Report, percentile

ANSWERED = Answer(sent=1.0, pieces=[1.5, 1.6, 1.8], ended=2.0, tokens=4, prompt_tokens=7)
FAILED = Answer(sent=1.0, ended=1.1, error="it broke")


def report(*answers: Answer) -> Report:
    return Report("m", "http://h/v1", 2, 2.0, answers)


def test_figures_are_of_the_answers_that_came() -> None:
    figures = report(ANSWERED, FAILED).figures()
    assert (figures["requests"], figures["failed"], figures["errors"]) == (2, 1, ["it broke"])
    assert (figures["output_tokens"], figures["prompt_tokens"]) == (4, 7)
    assert (figures["requests_per_second"], figures["output_tokens_per_second"]) == (0.5, 2.0)
    assert figures["time_to_first_token_ms"] == {"mean": 500, "p50": 500, "p90": 500, "p99": 500, "max": 500}
    assert figures["between_tokens_ms"] == {"mean": 150, "p50": 100, "p90": 200, "p99": 200, "max": 200}
    assert figures["whole_answer_ms"]["p50"] == 1000


def test_pieces_are_counted_where_the_server_does_not_tell() -> None:
    assert Answer(sent=0, pieces=[1, 2, 3]).made == 3


def test_nothing_measured_is_no_error() -> None:
    assert report().figures()["time_to_first_token_ms"] is None
    assert "Requests/s                  0.0" in report().table()


@pytest.mark.parametrize(("percent", "value"), [(50, 2), (75, 3), (90, 4), (99, 4), (1, 1)])
def test_a_percentile_is_a_value_that_was_measured(percent: float, value: float) -> None:
    assert percentile([4, 1, 3, 2], percent) == value


def test_a_table_says_what_failed_and_why() -> None:
    table = report(ANSWERED, FAILED).table()
    assert "2 in 2.0 s, 1 of them failed" in table
    assert table.endswith("Failed: it broke")


class Server:
    """A server and how many it answered at the same time at most."""

    def __init__(self) -> None:
        self.adapter = ScriptedAdapter({"m": self._says, "broken": [TextDelta("a"), ModelUnavailable("it broke")]})
        self.endless: list[Step] = [TextDelta("a"), 1000.0]
        self.url = ""

    def _says(self, request: GenerationRequest) -> list[Step]:
        if len(self.adapter.requests) > 3 and request.messages[-1]["content"] == "endless":
            return self.endless
        return says("one ", "two ", "three")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    with served_by(server.adapter) as server.url:
        yield server


def test_it_asks_as_often_as_it_is_told_and_once_before(server: Server) -> None:
    server.adapter.requests.clear()
    ended = call("bench", "m", "--url", server.url, "-n", "5", "-c", "2", "--max-tokens", "9", "-p", "Hi", "--json")
    assert (ended.returncode, ended.stderr) == (0, "m: ready\n")
    figures = json.loads(ended.stdout)
    assert (figures["requests"], figures["failed"], figures["output_tokens"]) == (5, 0, 15)
    assert figures["prompt_tokens"] == 15
    assert figures["between_tokens_ms"]["p50"] >= 0
    assert len(server.adapter.requests) == 6
    assert {request.sampling.max_tokens for request in server.adapter.requests} == {9}
    assert server.adapter.requests[0].messages[-1]["content"] == "Hi"


def test_it_prints_a_table(server: Server) -> None:
    ended = call("bench", "--url", server.url, "-n", "3")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(f"m at {server.url}, 8 at a time\n")
    assert "Time to first token" in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("broken",), 1, "broken cannot be measured: it broke"),
        (("nothing",), 2, "no model 'nothing' at"),
        (("m", "--input", "[1]"), 2, "--input is an object"),
        (("m", "--input", "{"), 2, "--input is not valid JSON"),
        (("m", "-n", "0"), 2, "--requests"),
    ],
)
def test_what_cannot_be_measured_is_told(server: Server, arguments: tuple[str, ...], code: int, words: str) -> None:
    ended = call("bench", *arguments, "--url", server.url)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr


def test_ctrl_c_shows_what_was_measured(server: Server) -> None:
    server.adapter.requests.clear()
    words = [*COMMAND, "bench", "m", "--url", server.url, "-n", "9", "-c", "2", "-p", "endless"]
    with subprocess.Popen(words, env=ENVIRONMENT, stdout=-1, stderr=-1, text=True) as process:
        looks = threading.Event()
        while len(server.adapter.requests) < 5:
            assert process.poll() is None
            looks.wait(0.02)
        looks.wait(0.2)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Requests                      2 in" in out
    assert error == "m: ready\nStopped after 2 of 9 requests.\n"


def test_a_workflow_gets_its_inputs_from_a_server_started_for_it(tmp_path: Path) -> None:
    text = """
component: {type: shell, command: [printf, "%s", "${input.word}${input.mark}"], output: "${output.stdout}"}
workflow: {id: say}
"""
    (tmp_path / "model-compose.yml").write_text(text, encoding="utf-8")
    ended = call("bench", "say", "-n", "2", "-i", '{"word": "a", "mark": "!"}', "--json", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["model"] == "say"
    ended = call("bench", "say", cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "say cannot be measured: workflow 'say' needs the input 'word' and 'mark'" in ended.stderr
