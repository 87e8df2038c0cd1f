"""Outputs around a stream: whatever the template, the value is that of the whole text."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from modelcompose.adapters.events import Event, TextDelta
from modelcompose.workflows.components.streams import ModelStream, gathered, put_for, replay, stream_in
from modelcompose.workflows.outputs import hand_on, render_output
from modelcompose.workflows.schema import parse_deep

TEXTS = st.sampled_from(
    [
        "${output}",
        "${output as text}",
        "${output as string}",
        "${output as stream/text}",
        "${output as json}",
        "${output.a}",
        "${output.a as text}",
        "${output.a.b}",
        "${jobs.last.output}",
        "${jobs.other.output}",
        "${input.x | ${output}}",
        "${input.y | ${output}}",
        "${input.list[${output}]}",
        "${output | none}",
        "text ${output.a} more",
        "${output}${output.b}",
        "plain",
        "\\${output}",
    ]
)
TREES = st.recursive(
    TEXTS | st.sampled_from([None, 1, True]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)


def shape(kind: str, leaf: Any) -> Any:
    return {"plain": leaf, "named": {"a": leaf, "b": 2}, "deep": {"a": {"b": leaf}, "b": ["x"]}}[kind]


def stream() -> ModelStream:
    parts: AsyncGenerator[Event] = replay([TextDelta("1"), TextDelta("2")])
    return ModelStream(parts)


def scope(output: Any) -> dict[str, Any]:
    jobs = {"last": {"output": output}, "other": {"output": "o"}}
    return {"input": {"x": "X", "list": [0, 1]}, "output": output, "jobs": jobs}


@given(tree=TREES, kind=st.sampled_from(["plain", "named", "deep"]))
async def test_a_stream_changes_no_value(tree: Any, kind: str) -> None:
    templates = parse_deep(tree)
    expected = await gathered(await render_output(templates, scope(shape(kind, "12"))))
    assert await gathered(await render_output(templates, scope(shape(kind, stream())))) == expected


@given(tree=TREES)
async def test_what_is_handed_on_is_the_stream_itself(tree: Any) -> None:
    source = stream()
    handed_on = hand_on(parse_deep(tree), scope(source))
    if handed_on is not None:
        found = stream_in(handed_on)
        assert found is not None
        assert found.parts is source.parts
        assert stream_in(put_for(found, "", handed_on)) is None
