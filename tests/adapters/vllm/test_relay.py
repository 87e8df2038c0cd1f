"""What is done to a stream on its way to a client, and what is not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_upstream import COMPLETION, DONE, chunk, event, says, usage

from modelcompose.adapters.errors import UpstreamError
from modelcompose.adapters.events import Usage
from modelcompose.adapters.vllm.relay import StreamRelay, whole_answer


def relay(*pieces: bytes, model: str | None = None) -> bytes:
    stream = StreamRelay(model)
    sent = b""
    for piece in pieces:
        sent += stream.feed(piece)
        if stream.failure is not None:
            raise stream.failure
    return sent + stream.finish()


def cuts(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted(place % (len(data) + 1) for place in places)
    return [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]


def items(data: bytes) -> list[Any]:
    assert data.endswith(DONE)
    return [json.loads(each.removeprefix(b"data: ")) for each in data.removesuffix(DONE).split(b"\n\n") if each]


PLAIN = b"".join(says('a "reasoning" and an "error"', 'the "model": \\ "x"', "ü ✓\n\n"))


@given(st.lists(st.integers(0, 10_000)))
def test_a_stream_stays_as_it_is_wherever_it_is_cut(places: list[int]) -> None:
    assert relay(*cuts(PLAIN, places)) == PLAIN


@given(st.lists(st.integers(0, 10_000)))
def test_carriage_returns_and_comments_do_no_harm(places: list[int]) -> None:
    odd = b": ping\r\n\r\n" + PLAIN.replace(b"\n\n", b"\r\n\r\n") + b": late\r\n\r\n"
    assert relay(*cuts(odd, places)) == b": ping\n\n" + PLAIN


@given(st.lists(st.integers(0, 10_000)))
def test_only_the_name_changes_where_the_model_has_another(places: list[int]) -> None:
    renamed = items(relay(*cuts(PLAIN, places), model='my "own"'))
    assert renamed == [item | {"model": 'my "own"'} for item in items(PLAIN)]


def test_numbers_and_unknown_fields_of_a_renamed_chunk_keep_their_spelling() -> None:
    data = b'data: {"id":"1","model":"a","choices":[{"x":1.50,"y":1e3,"z":[ 1 ]}],"kv":{"model":"a"}}\n\n'
    assert relay(data + DONE, model="b") == data.replace(b'"model":"a"', b'"model":"b"', 1) + DONE


def test_thinking_is_given_under_both_names() -> None:
    data = chunk({"reasoning": 'so "it" is\n'}) + chunk({"content": "x"}) + DONE
    first, second = items(relay(data))
    assert first["choices"][0]["delta"] == {"reasoning_content": 'so "it" is\n', "reasoning": 'so "it" is\n'}
    assert second["choices"][0]["delta"] == {"content": "x"}


def test_thinking_that_has_both_names_already_or_none_stays() -> None:
    for delta in ({"reasoning": "a", "reasoning_content": "a"}, {"reasoning": None}, {"content": '"reasoning":"x"'}):
        data = chunk(delta) + DONE
        assert relay(data) == data


def test_the_tokens_are_read_off_the_end() -> None:
    stream = StreamRelay(None)
    for piece in says("a", "b"):
        stream.feed(piece)
    assert stream.usage == Usage(3, 2)
    silent = StreamRelay(None)
    silent.feed(chunk({"content": '"usage"'}) + DONE)
    assert silent.usage is None


def test_nothing_follows_the_end() -> None:
    assert relay(b"".join(says("a")) + chunk({"content": "late"})) == b"".join(says("a"))


def test_a_missing_end_is_added_if_the_answer_is_complete() -> None:
    ends = [chunk({"content": "a"}), chunk(finish="stop"), usage(1, 1)]
    assert relay(*ends) == b"".join(ends) + DONE
    assert relay(*ends, b"data: [DONE]\n") == b"".join(ends) + DONE


@pytest.mark.parametrize("rest", [b"", chunk({"content": "a"}), chunk(finish="stop") + b'data: {"choi'])
def test_an_end_that_comes_too_early_is_an_error(rest: bytes) -> None:
    with pytest.raises(UpstreamError, match="ended its answer too early"):
        relay(chunk({"content": "a"}), rest)


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        ({"error": {"message": "no", "type": "BadRequestError", "param": None, "code": 400}}, 400, "no"),
        ({"error": "Unauthorized"}, 500, "Unauthorized"),
        ({"object": "error", "message": "full", "type": "x", "code": 503}, 503, "full"),
        ({"error": {"message": "no", "code": "odd"}}, 500, "no"),
    ],
)
def test_an_error_in_the_stream_comes_after_what_was_before_it(error: Any, status: int, message: str) -> None:
    stream = StreamRelay(None)
    before = chunk({"content": "a"})
    assert stream.feed(before + event(error) + DONE) == before
    assert stream.failure is not None
    assert (stream.failure.status, stream.failure.message) == (status, message)


@pytest.mark.parametrize("garbage", [b"data: <html>\n\n", b"data: {}\n\ndata: <p>\n\n", b"data: 7\n\n"])
def test_garbage_is_not_handed_on(garbage: bytes) -> None:
    with pytest.raises(UpstreamError, match="no JSON"):
        relay(chunk({"content": "a"}) + garbage)


def test_events_without_data_are_left_out() -> None:
    odd = b"event: ping\n\nretry: 3\n\nid: 1\n\n"
    assert relay(odd, chunk({"content": "a"}) + DONE) == chunk({"content": "a"}) + DONE


def test_a_large_event_in_small_pieces_takes_no_long_time() -> None:
    large = chunk({"content": "x" * 10_000_000})
    assert relay(*(large[at : at + 65536] for at in range(0, len(large), 65536)), DONE) == large + DONE


def test_a_whole_answer_stays_as_it_is() -> None:
    body = json.dumps(COMPLETION).encode()
    assert whole_answer(body, None) == (body, Usage(3, 2))
    renamed, _ = whole_answer(body, "mine")
    assert json.loads(renamed) == COMPLETION | {"model": "mine"}


def test_thinking_of_a_whole_answer_is_given_under_both_names() -> None:
    message = {"role": "assistant", "reasoning": "hm", "content": "a"}
    body, _ = whole_answer(json.dumps({"choices": [{"message": message}]}).encode(), None)
    assert json.loads(body)["choices"][0]["message"] == message | {"reasoning_content": "hm"}


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b'{"id": 1', b'{"error": {"message": "no"}}'])
def test_a_whole_answer_that_is_none_is_an_error(body: bytes) -> None:
    with pytest.raises(UpstreamError):
        whole_answer(body, None)
