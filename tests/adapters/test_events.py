"""The plain answer is a fold over the stream, and events survive a process boundary."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

import msgspec
import pytest

from modelcompose.adapters.events import (
    Accepted,
    Event,
    Finish,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    TopLogprob,
    Usage,
    collect,
)


async def stream(events: Iterable[Event]) -> AsyncIterator[Event]:
    for event in events:
        yield event


async def test_collect_joins_the_deltas_of_each_choice() -> None:
    whole = await collect(
        stream(
            [
                Accepted(),
                TextDelta("b", choice=1),
                TextDelta("Hel"),
                TextDelta("lo"),
                Finish("length", choice=1),
                Finish("stop"),
                Usage(3, 3),
            ]
        )
    )
    assert [(choice.text, choice.finish_reason) for choice in whole.choices] == [("Hello", "stop"), ("b", "length")]
    assert whole.usage.total_tokens == 6


async def test_collect_puts_tool_calls_together() -> None:
    whole = await collect(
        stream(
            [
                ReasoningDelta("hm"),
                ToolCallDelta(0, id="call_1", name="add", arguments='{"a"'),
                ToolCallDelta(1, id="call_2", name="now"),
                ToolCallDelta(0, arguments=": 1}"),
                ToolCallDelta(1, arguments="{}"),
                Finish("tool_calls"),
                Usage(1, 2),
            ]
        )
    )
    assert whole.choices[0].tool_calls == (ToolCall("call_1", "add", '{"a": 1}'), ToolCall("call_2", "now", "{}"))
    assert whole.choices[0].reasoning == "hm"


async def test_collect_keeps_logprobs_in_order_and_none_when_not_asked() -> None:
    first, second = TokenLogprob("a", -0.1, b"a"), TokenLogprob("b", -0.2, b"b")
    asked = await collect(
        stream([TextDelta("a", logprobs=(first,)), TextDelta("b", logprobs=(second,)), Finish("stop")])
    )
    assert asked.choices[0].logprobs == (first, second)
    plain = await collect(stream([TextDelta("a"), Finish("stop")]))
    assert plain.choices[0].logprobs is None


@pytest.mark.parametrize(
    "event",
    [
        Accepted(),
        TextDelta("é", 2, (TokenLogprob("é", None, b"\xc3", (TopLogprob("x", -1.5, b"x"),)),)),
        ReasoningDelta("thinking"),
        ToolCallDelta(1, "call_1", "f", "{}"),
        Finish("tool_calls", 3),
        Usage(1, 2, 3, 4),
    ],
)
def test_events_cross_a_process_boundary_unchanged(event: Event) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(event), type=Event) == event


def test_usage_adds_up() -> None:
    assert Usage(1, 2, 3, 4) + Usage(10, 20, 30, 40) == Usage(11, 22, 33, 44)
