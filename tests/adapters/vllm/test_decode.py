"""Streams of vLLM and of worse servers as events."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_upstream import DONE, chunk, event, says, usage

from modelcompose.adapters.errors import UpstreamError
from modelcompose.adapters.events import (
    Event,
    Finish,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    TopLogprob,
    Usage,
)
from modelcompose.adapters.vllm.decode import StreamDecoder


def decoded(*pieces: bytes, choices: int = 1, is_chat: bool = True) -> list[Event]:
    decoder = StreamDecoder(choices, is_chat=is_chat)
    events = [event for piece in pieces for event in decoder.feed(piece)]
    return [*events, *decoder.finish()]


def calls(*pieces: list[Any]) -> list[Event]:
    """What pieces of calls become, without the end of the stream."""
    chunks = [chunk({"tool_calls": piece}) for piece in pieces]
    *events, finish, _ = decoded(*chunks, chunk(finish="tool_calls"), DONE)
    assert finish == Finish("tool_calls")
    return events


def piece(index: int | None = None, id: str | None = None, name: str | None = None, arguments: Any = None) -> Any:
    given = {"index": index, "id": id, "function": {"name": name, "arguments": arguments}}
    return {name: value for name, value in given.items() if value is not None}


def completion(text: str, index: int = 0, finish: str | None = None, logprobs: Any = None) -> bytes:
    choice = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}
    return event({"object": "text_completion", "choices": [choice]})


ANSWER = [TextDelta("Hel"), TextDelta("lo ✓"), Finish("stop"), Usage(3, 2)]


@given(st.lists(st.integers(0, 10_000)))
def test_events_do_not_depend_on_where_the_bytes_are_cut(places: list[int]) -> None:
    data = b"".join(says("Hel", "lo ✓"))
    ends = sorted(place % (len(data) + 1) for place in places)
    pieces = [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]
    assert decoded(*pieces) == ANSWER


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_thinking_is_found_under_either_name(name: str) -> None:
    assert decoded(chunk({name: "hm"}), chunk({"content": "a"}, "stop"), DONE)[:2] == [
        ReasoningDelta("hm"),
        TextDelta("a"),
    ]


def test_thinking_under_both_names_is_one() -> None:
    assert decoded(chunk({"reasoning": "hm", "reasoning_content": "hm"}, "stop"), DONE)[0] == ReasoningDelta("hm")


def test_pieces_of_calls() -> None:
    assert calls(
        [piece(0, "a", "f", "")], [piece(0, arguments='{"x"')], [piece(0, arguments=":1}")], [piece(1, "b", "g", "{}")]
    ) == [
        ToolCallDelta(0, "a", "f"),
        ToolCallDelta(0, arguments='{"x"'),
        ToolCallDelta(0, arguments=":1}"),
        ToolCallDelta(1, "b", "g", "{}"),
    ]


def test_a_repeated_id_and_name_are_given_once() -> None:
    again = [[piece(0, "a", "f", text)] for text in ("{", "}")]
    assert calls(*again) == [ToolCallDelta(0, "a", "f", "{"), ToolCallDelta(0, arguments="}")]


def test_calls_without_an_index_are_told_apart() -> None:
    by_id = [[piece(None, "a", "f", "{")], [piece(None, "a", None, "}")], [piece(None, "b", "f", "{}")]]
    assert calls(*by_id) == [
        ToolCallDelta(0, "a", "f", "{"),
        ToolCallDelta(0, arguments="}"),
        ToolCallDelta(1, "b", "f", "{}"),
    ]
    first, rest, second = calls([piece(None, None, "f", "{")], [piece(None, None, None, "}")], [piece(None, None, "g")])
    assert isinstance(first, ToolCallDelta)
    assert isinstance(second, ToolCallDelta)
    assert (first.index, rest, second.index) == (0, ToolCallDelta(0, arguments="}"), 1)
    assert first.id.startswith("call_")
    assert first.id != second.id


def test_indexes_that_begin_at_one_are_counted_from_zero() -> None:
    assert calls([piece(1, "a", "f", "{}")], [piece(2, "b", "g", "{}")]) == [
        ToolCallDelta(0, "a", "f", "{}"),
        ToolCallDelta(1, "b", "g", "{}"),
    ]


def test_arguments_as_an_object_become_text() -> None:
    assert calls([piece(0, "a", "f", {"x": 1})]) == [ToolCallDelta(0, "a", "f", '{"x":1}')]


def test_a_name_that_comes_late_is_waited_for() -> None:
    assert calls([piece(0, "a", None, "{")], [piece(0, None, "f", "}")]) == [ToolCallDelta(0, "a", "f", "{}")]


def test_the_older_form_of_a_call() -> None:
    *events, finish, _ = decoded(
        chunk({"function_call": {"name": "f", "arguments": "{"}}),
        chunk({"function_call": {"arguments": "}"}}),
        chunk(finish="function_call"),
        DONE,
    )
    assert [event.arguments for event in events if isinstance(event, ToolCallDelta)] == ["{", "}"]
    assert finish == Finish("tool_calls")


def test_logprobs_of_a_chat() -> None:
    tokens = {"content": [{"token": "a", "logprob": -0.5, "bytes": None, "top_logprobs": []}]}
    tokens["content"].append(
        {"token": "?", "logprob": -1, "bytes": [195], "top_logprobs": [{"token": "b", "logprob": -2}]}
    )
    data = json.loads(chunk({"content": "a"}, "stop").removeprefix(b"data: "))
    data["choices"][0]["logprobs"] = tokens
    assert decoded(event(data), DONE)[0] == TextDelta(
        "a",
        0,
        (TokenLogprob("a", -0.5, b"a"), TokenLogprob("?", -1.0, b"\xc3", (TopLogprob("b", -2.0, b"b"),))),
    )


def test_logprobs_without_text_are_not_lost() -> None:
    data = json.loads(chunk({"content": ""}, "stop").removeprefix(b"data: "))
    data["choices"][0]["logprobs"] = {"content": [{"token": "a", "logprob": -0.5, "bytes": [97]}]}
    assert decoded(event(data), DONE)[0] == TextDelta("", 0, (TokenLogprob("a", -0.5, b"a"),))


def test_logprobs_of_a_text() -> None:
    logprobs = {
        "tokens": ["a", "b"],
        "token_logprobs": [None, -1.5],
        "top_logprobs": [None, {"b": -1.5, "c": -0.5}],
        "text_offset": [0, 1],
    }
    assert decoded(completion("ab", 0, "stop", logprobs), DONE, is_chat=False)[0] == TextDelta(
        "ab",
        0,
        (
            TokenLogprob("a", None, b"a"),
            TokenLogprob("b", -1.5, b"b", (TopLogprob("c", -0.5, b"c"), TopLogprob("b", -1.5, b"b"))),
        ),
    )


def test_several_choices_each_with_its_end() -> None:
    events = decoded(
        completion("b", 1), completion("a", 0, "stop"), completion("", 1, "length"), DONE, choices=2, is_chat=False
    )
    assert events == [TextDelta("b", 1), TextDelta("a", 0), Finish("stop", 0), Finish("length", 1), Usage(0, 0)]


@pytest.mark.parametrize(
    ("given", "reason"),
    [("length", "length"), ("max_tokens", "length"), ("eos", "stop"), ("tool_use", "tool_calls"), ("odd", "stop")],
)
def test_reasons_that_openai_has_not(given: str, reason: Any) -> None:
    assert decoded(chunk({"content": "a"}, given), DONE)[1] == Finish(reason)


@pytest.mark.parametrize("reason", ["abort", "error"])
def test_an_answer_that_the_server_gave_up_is_an_error(reason: str) -> None:
    with pytest.raises(UpstreamError, match="gave up"):
        decoded(chunk({"content": "a"}, reason), DONE)


def test_usage_is_taken_from_the_last_chunk_that_has_it() -> None:
    counts = {"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 4}}
    told = chunk({"content": "a"}, "stop", usage=counts)
    assert decoded(told, DONE)[-1] == Usage(5, 1, 4)
    assert decoded(told, usage(5, 2), DONE)[-1] == Usage(5, 2)


def test_an_end_without_a_reason_is_an_end_if_the_server_says_so() -> None:
    assert decoded(chunk({"content": "a"}), DONE) == [TextDelta("a"), Finish("stop"), Usage(0, 0)]


def test_a_stream_that_ends_too_early_is_an_error() -> None:
    for pieces in ([], [chunk({"content": "a"})], [chunk({"content": "a"}), b'data: {"choices": [{"finish_re']):
        with pytest.raises(UpstreamError):
            decoded(*pieces)
    with pytest.raises(UpstreamError, match="every answer"):
        decoded(completion("a", 0, "stop"), DONE, choices=2, is_chat=False)


def test_a_stream_without_the_last_word_is_complete_if_all_its_choices_are() -> None:
    assert decoded(chunk({"content": "a"}, "stop")) == [TextDelta("a"), Finish("stop"), Usage(0, 0)]


@pytest.mark.parametrize(
    "error", [{"error": {"message": "no", "code": 503}}, {"object": "error", "message": "no", "code": 503}]
)
def test_an_error_in_the_stream_is_raised(error: Any) -> None:
    with pytest.raises(UpstreamError, match="no") as raised:
        decoded(chunk({"content": "a"}), event(error))
    assert raised.value.status == 503


@pytest.mark.parametrize("odd", ["7", "null", "[]", '{"choices": null}', '{"choices": [null, {"delta": null}]}'])
def test_odd_chunks_say_nothing(odd: str) -> None:
    assert decoded(event(odd), *says("Hel", "lo ✓")) == ANSWER
