"""Reading streams as they come."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelcompose.adapters.sse import EventDecoder, Lines, ServerEvent
from modelcompose.adapters.upstream import said, usage_of
from modelcompose.workflows.components.items import BrokenStream, ItemDecoder

STREAM = (
    "\ufeff: a comment\n"
    "data: one\n\n"
    "event: error\r\ndata: two\r\ndata: lines\r\n\r\n"
    "data:no space\rdata\r\r"
    "id: 7\nretry: 3\n\n"
    'data: {"text": "grün ✓"}\n\n'
    "data: cut off"
)
EVENTS = [
    ServerEvent("one"),
    ServerEvent("two\nlines", "error"),
    ServerEvent("no space\n"),
    ServerEvent('{"text": "grün ✓"}'),
    ServerEvent("cut off"),
]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted(place % (len(data) + 1) for place in places)
    return [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]


@given(st.lists(st.integers(0, 10_000)))
def test_events_do_not_depend_on_where_the_bytes_are_cut(places: list[int]) -> None:
    decoder = EventDecoder()
    events = [event for piece in cut(STREAM.encode(), places) for event in decoder.feed(piece)]
    assert events + list(decoder.finish()) == EVENTS


@given(st.text(st.sampled_from("ab\r\né")), st.lists(st.integers(0, 10_000)))
def test_lines_are_those_of_universal_newlines(text: str, places: list[int]) -> None:
    lines = Lines()
    found = [line for piece in cut(text.encode(), places) for line in lines.feed(piece)]
    found += lines.finish()
    *whole, rest = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    assert found == ([*whole, rest] if rest else whole)


def items(form: Any, kind: str, body: str, size: int = 1) -> list[Any]:
    decoder = ItemDecoder(form, kind)
    data = body.encode()
    found = [item for at in range(0, len(data), size) for item in decoder.feed(data[at : at + size])]
    return found if decoder.is_done else found + list(decoder.finish())


@pytest.mark.parametrize(
    ("form", "kind", "body", "expected"),
    [
        ("json", "text/event-stream", 'data: {"a": 1}\n\ndata: [2]\n\ndata: [DONE]\n\ndata: 3\n\n', [{"a": 1}, [2]]),
        ("text", "text/event-stream", "data: a\n\ndata:\n\ndata: b\n\n", ["a", "", "b"]),
        ("json", "application/x-ndjson", '{"a": 1}\n\n{"a": 2}', [{"a": 1}, {"a": 2}]),
        ("json", "application/json", '{"a":\n 1}', [{"a": 1}]),
        ("json", "application/json", "", []),
        ("text", "text/plain", "ü", ["ü"]),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 1000])
def test_the_items_of_a_body(form: str, kind: str, body: str, expected: list[Any], size: int) -> None:
    assert items(form, kind, body, size) == expected


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("data: {\n\n", "not JSON"),
        ('data: {"error": {"message": "too long"}}\n\n', "too long"),
        ("event: error\ndata: it broke\n\n", "it broke"),
    ],
)
def test_an_item_that_is_none_breaks_the_stream(body: str, words: str) -> None:
    with pytest.raises(BrokenStream, match=words):
        items("json", "text/event-stream", body)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": {"message": "m"}}, "m"),
        ({"error": "m"}, "m"),
        ({"detail": "m"}, "m"),
        ({"message": "m"}, "m"),
        ({"detail": [1]}, '{"detail": [1]}'),
        ("m", '"m"'),
    ],
)
def test_what_an_error_says(body: Any, words: str) -> None:
    assert said(json.dumps(body)) == words


def test_tokens_are_taken_from_openais_forms_only() -> None:
    usage = usage_of({"usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}})
    assert usage is not None
    assert usage.total_tokens == 7
    assert usage_of({"usage": None}) is None
    assert usage_of({"usage": {"prompt_tokens": "many"}}) is None
    assert usage_of([1]) is None
