"""The news of a run as server-sent events."""

from __future__ import annotations

import itertools

import pytest

from modelcompose.adapters.events import Usage
from modelcompose.adapters.runs import JobNews, JsonPiece, RunState, Streaming, TextPiece
from modelcompose.adapters.sse import EventDecoder
from modelcompose.server.errors import Failure
from modelcompose.server.run_events import EventEncoder
from modelcompose.server.tasks import Task


def task(status: RunState, failure: Failure | None = None) -> Task:
    return Task(
        task_id="task_1",
        workflow_id="w",
        status=status,
        created_at=0,
        finished_at=1,
        jobs={},
        usage=Usage(0, 0),
        output="o",
        failure=failure,
    )


@pytest.mark.parametrize("text", ["a\nb", "\n\n", " a\r\nb\r", "\r\r\n\n", "data: x\n\nevent: y", "", "ä\n🙂"])
def test_a_text_arrives_as_it_was_but_for_its_kind_of_line_ends_however_it_is_cut(text: str) -> None:
    for size in range(1, len(text) + 1):
        encoder, decoder = EventEncoder(), EventDecoder()
        pieces = [text[start : start + size] for start in range(0, len(text), size)]
        sent = b"".join(encoder.event(TextPiece(piece)) for piece in pieces)
        arrived = [event.data for event in itertools.chain(decoder.feed(sent), decoder.finish())]
        assert "".join(arrived) == text.replace("\r\n", "\n").replace("\r", "\n")


def test_the_lines_of_a_piece_are_data_lines() -> None:
    assert EventEncoder().event(TextPiece("a\nb")) == b"data: a\ndata: b\n\n"


def test_a_json_item_is_one_line() -> None:
    assert EventEncoder().event(JsonPiece({"a": "b\n"})) == b'data: {"a":"b\\n"}\n\n'


def test_what_has_nothing_to_say_sends_nothing() -> None:
    assert EventEncoder().event(TextPiece("")) == b""
    assert EventEncoder().event(Streaming()) == b""


def test_news_of_jobs_have_a_name() -> None:
    sent = EventEncoder().event(JobNews("draft", "completed"))
    assert sent == b'event: job\ndata: {"job":"draft","status":"completed"}\n\n'


def test_the_form_is_told_once_before_the_first_piece() -> None:
    encoder = EventEncoder(tells_form=True)
    assert encoder.event(JsonPiece(1)) == b'event: output\ndata: {"form":"json"}\n\ndata: 1\n\n'
    assert encoder.event(JsonPiece(2)) == b"data: 2\n\n"


def test_the_last_event_tells_whether_all_is_there() -> None:
    assert EventEncoder().last(task("completed")) == (
        b'event: completed\ndata: {"task_id":"task_1","status":"completed","output":"o"}\n\n'
    )
    failed = EventEncoder().last(task("failed", Failure(500, "broken")))
    assert failed.startswith(b'event: failed\ndata: {"task_id":"task_1","status":"failed","error":{"message":"broken"')
    assert EventEncoder().last(task("cancelled", Failure(409, "ended"))).startswith(b"event: failed\n")
