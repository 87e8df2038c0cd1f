"""Events become OpenAI's bytes, valued by the models of the SDK where they are strict."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterable
from typing import Any

import msgspec
import pytest
from openai.types import Completion as SdkCompletion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from modelcompose.adapters.events import (
    Accepted,
    Event,
    Finish,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    TopLogprob,
    Usage,
    collect,
)
from modelcompose.server.encode import ChatEncoder, Encoder, Frame, TextEncoder, error_chunk

FRAME = Frame(id="id-1", created=1, model="m", fingerprint="fp_1")


def frame(**fields: Any) -> Frame:
    return msgspec.structs.replace(FRAME, **fields)


def decoded(data: bytes) -> list[dict[str, Any]]:
    """The chunks in some bytes of a stream; every one is a line and a blank line."""
    *events, end = data.split(b"\n\n")
    assert end == b""
    assert all(event.startswith(b"data: {") and b"\n" not in event for event in events)
    return [msgspec.json.decode(event.removeprefix(b"data: ")) for event in events]


def streamed(encoder: Encoder, events: Iterable[Event]) -> list[dict[str, Any]]:
    return decoded(encoder.opening() + b"".join(encoder.chunk(event) for event in events))


def whole(encoder: Encoder, events: Iterable[Event]) -> dict[str, Any]:
    async def stream() -> AsyncIterator[Event]:
        for event in events:
            yield event

    body: dict[str, Any] = msgspec.json.decode(encoder.whole(asyncio.run(collect(stream()))))
    return body


def token(text: str, logprob: float | None, *top: tuple[str, float], raw: bytes | None = None) -> TokenLogprob:
    others = tuple(TopLogprob(other, value, other.encode()) for other, value in top)
    return TokenLogprob(text, logprob, text.encode() if raw is None else raw, others)


HELLO: list[Event] = [Accepted(), TextDelta("Hel"), TextDelta("lo"), Finish("stop"), Usage(3, 2, 1)]
USAGE = {
    "prompt_tokens": 3,
    "completion_tokens": 2,
    "total_tokens": 5,
    "prompt_tokens_details": {"cached_tokens": 1},
    "completion_tokens_details": {"reasoning_tokens": 0},
}


def test_a_streamed_chat_has_role_pieces_and_finish() -> None:
    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {
            "id": "id-1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "m",
            "system_fingerprint": "fp_1",
            "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
        }

    assert streamed(ChatEncoder(FRAME), HELLO) == [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Hel"}),
        chunk({"content": "lo"}),
        chunk({}, "stop"),
    ]


def test_usage_comes_last_and_only_if_asked() -> None:
    *chunks, last = streamed(ChatEncoder(frame(usage="last")), HELLO)
    assert all(chunk["usage"] is None for chunk in chunks)
    assert (last["choices"], last["usage"]) == ([], USAGE)
    assert all("usage" not in chunk for chunk in streamed(ChatEncoder(FRAME), HELLO))


def test_continuous_usage_is_on_every_chunk() -> None:
    chunks = streamed(ChatEncoder(frame(usage="always")), HELLO)
    assert [chunk["usage"]["completion_tokens"] for chunk in chunks] == [0, 1, 2, 2, 2]
    assert chunks[-1]["usage"] == USAGE


def test_the_roles_of_all_choices_come_first_and_in_order() -> None:
    chunks = streamed(ChatEncoder(frame(choices=3)), [TextDelta("b", 1), TextDelta("a", 0)])
    assert [(c["choices"][0]["index"], c["choices"][0]["delta"].get("role")) for c in chunks] == [
        (0, "assistant"),
        (1, "assistant"),
        (2, "assistant"),
        (1, None),
        (0, None),
    ]


def test_reasoning_has_both_names() -> None:
    events: list[Event] = [ReasoningDelta("hm"), TextDelta("yes"), Finish("stop"), Usage(1, 2)]
    delta = streamed(ChatEncoder(FRAME), events)[1]["choices"][0]["delta"]
    assert delta == {"reasoning_content": "hm", "reasoning": "hm"}
    message = whole(ChatEncoder(FRAME), events)["choices"][0]["message"]
    assert message == {
        "role": "assistant",
        "content": "yes",
        "refusal": None,
        "reasoning_content": "hm",
        "reasoning": "hm",
    }


CALLS: list[Event] = [
    ToolCallDelta(0, "call_1", "f", ""),
    ToolCallDelta(0, arguments='{"a"'),
    ToolCallDelta(0, arguments=":1}"),
    ToolCallDelta(1, "call_2", "g", "{}"),
    Finish("tool_calls"),
    Usage(1, 9),
]


def test_the_first_piece_of_a_call_alone_has_id_type_and_name() -> None:
    deltas = [chunk["choices"][0]["delta"] for chunk in streamed(ChatEncoder(FRAME), CALLS)]
    assert deltas[1:5] == [
        {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]},
        {
            "tool_calls": [
                {"index": 1, "id": "call_2", "type": "function", "function": {"name": "g", "arguments": "{}"}}
            ]
        },
    ]


def test_a_message_of_calls_alone_has_null_content() -> None:
    choice = whole(ChatEncoder(FRAME), CALLS)["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
            {"id": "call_2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
        ],
    }


def test_older_functions_are_answered_in_the_older_form() -> None:
    one_call = [*CALLS[:3], *CALLS[4:]]
    encoder = ChatEncoder(frame(old_functions=True))
    choice = whole(encoder, one_call)["choices"][0]
    assert choice["finish_reason"] == "function_call"
    assert choice["message"]["function_call"] == {"name": "f", "arguments": '{"a":1}'}
    chunks = [chunk["choices"][0] for chunk in streamed(encoder, one_call)]
    assert [chunk["delta"].get("function_call") for chunk in chunks] == [
        None,
        {"name": "f", "arguments": ""},
        {"arguments": '{"a"'},
        {"arguments": ":1}"},
        None,
    ]
    assert chunks[-1]["finish_reason"] == "function_call"


def test_logprobs_of_a_chat() -> None:
    pieces = (token("Hé", -0.5, ("Hé", -0.5), ("Ho", -1.0)), token("\N{GRINNING FACE}", -math.inf))
    events: list[Event] = [TextDelta("Hé\N{GRINNING FACE}", 0, pieces), Finish("stop"), Usage(1, 2)]
    expected = {
        "content": [
            {
                "token": "Hé",
                "logprob": -0.5,
                "bytes": [72, 195, 169],
                "top_logprobs": [
                    {"token": "Hé", "logprob": -0.5, "bytes": [72, 195, 169]},
                    {"token": "Ho", "logprob": -1.0, "bytes": [72, 111]},
                ],
            },
            {"token": "\N{GRINNING FACE}", "logprob": -9999.0, "bytes": [240, 159, 152, 128], "top_logprobs": []},
        ],
        "refusal": None,
    }
    assert whole(ChatEncoder(FRAME), events)["choices"][0]["logprobs"] == expected
    assert streamed(ChatEncoder(FRAME), events)[1]["choices"][0]["logprobs"] == expected


ECHO = (
    token("Once", None),
    token(" upon", -0.1, (" upon", -0.1), (" more", -2.0)),
    token(" x", -5.0, (" a", -0.2), (" the", -0.3)),
)


def test_logprobs_of_a_text_are_lists_of_equal_length() -> None:
    events: list[Event] = [TextDelta("Once upon x", 0, ECHO), Finish("length"), Usage(2, 1)]
    assert whole(TextEncoder(FRAME), events)["choices"] == [
        {
            "text": "Once upon x",
            "index": 0,
            "logprobs": {
                "tokens": ["Once", " upon", " x"],
                "token_logprobs": [None, -0.1, -5.0],
                "top_logprobs": [
                    None,
                    {" upon": -0.1, " more": -2.0},
                    {" a": -0.2, " the": -0.3, " x": -5.0},
                ],
                "text_offset": [0, 4, 9],
            },
            "finish_reason": "length",
        }
    ]


def test_offsets_go_on_from_chunk_to_chunk_and_count_characters() -> None:
    half, other = "é".encode()[:1], "é".encode()[1:]
    events: list[Event] = [
        TextDelta("a", 0, (token("a", -1.0),)),
        TextDelta("é", 0, (token("\ufffd", -1.0, raw=half), token("\ufffd", -1.0, raw=other))),
        TextDelta("b", 1, (token("b", -1.0),)),
        TextDelta("c", 0, (token("c", -1.0),)),
    ]
    chunks = streamed(TextEncoder(frame(choices=2)), events)
    assert [chunk["choices"][0]["logprobs"]["text_offset"] for chunk in chunks] == [[0], [1, 2], [0], [2]]


def test_a_streamed_text_has_the_shape_of_the_whole_one() -> None:
    *chunks, last = streamed(TextEncoder(frame(usage="last")), HELLO)
    assert [chunk["choices"][0] for chunk in chunks] == [
        {"index": 0, "text": "Hel", "logprobs": None, "finish_reason": None},
        {"index": 0, "text": "lo", "logprobs": None, "finish_reason": None},
        {"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"},
    ]
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    assert last["usage"] == USAGE


@pytest.mark.parametrize("events", [HELLO, CALLS, [ReasoningDelta("a"), TextDelta('\u2028\x00"\\é', 0, ECHO[1:])]])
def test_the_sdks_own_models_accept_it_strictly(events: list[Event]) -> None:
    finished = [*events, Finish("stop"), Usage(1, 1)] if not isinstance(events[-1], Usage) else events
    for usage in ("never", "last", "always"):
        for chunk in streamed(ChatEncoder(frame(usage=usage)), finished):
            ChatCompletionChunk.model_validate_json(msgspec.json.encode(chunk), strict=True)
        for chunk in streamed(TextEncoder(frame(usage=usage)), [e for e in finished if not isinstance(e, Finish)]):
            assert set(chunk) >= {"id", "object", "created", "model", "choices"}
    ChatCompletion.model_validate_json(ChatEncoder(FRAME).whole(_completed(finished)), strict=True)
    if not any(isinstance(event, ToolCallDelta) for event in finished):
        SdkCompletion.model_validate_json(TextEncoder(FRAME).whole(_completed(finished)), strict=True)


def _completed(events: Iterable[Event]) -> Any:
    async def stream() -> AsyncIterator[Event]:
        for event in events:
            yield event

    return asyncio.run(collect(stream()))


def test_the_service_tier_is_told_to_those_who_ask() -> None:
    assert "service_tier" not in whole(ChatEncoder(FRAME), HELLO)
    assert whole(ChatEncoder(frame(service_tier="default")), HELLO)["service_tier"] == "default"


def test_an_error_in_a_stream_is_a_data_event() -> None:
    assert decoded(error_chunk({"error": {"message": 'a "quoted"\nline'}})) == [
        {"error": {"message": 'a "quoted"\nline'}}
    ]
