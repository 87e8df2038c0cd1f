"""What upstream servers are asked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from modelcompose.adapters.base import (
    ChoiceConstraint,
    Constraint,
    GenerationRequest,
    GrammarConstraint,
    JsonConstraint,
    NamedTool,
    RegexConstraint,
    Sampling,
)
from modelcompose.adapters.errors import UnsupportedParameter
from modelcompose.adapters.vllm.adapter import renamed
from modelcompose.adapters.vllm.body import body_of

MESSAGES = ({"role": "user", "content": "hi"},)
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
ALWAYS = {"model": "m", "stream": True, "stream_options": {"include_usage": True}}


def chat(**more: Any) -> dict[str, Any]:
    """The body of a chat request, without what is in all of them."""
    body = json.loads(body_of(GenerationRequest(model="mine", messages=MESSAGES, **more), "m"))
    assert {name: body.pop(name) for name in ALWAYS} == ALWAYS
    assert body.pop("messages") == list(MESSAGES)
    return dict(body)


def test_what_is_left_open_is_left_out() -> None:
    assert chat() == {}


def test_sampling_goes_by_the_same_names() -> None:
    given: dict[str, Any] = {"max_tokens": 5, "temperature": 0.0, "top_k": 3, "seed": 0, "presence_penalty": 0.5}
    assert chat(sampling=Sampling(**given, stop=("a",), logit_bias={7: -1.0}), n=2) == {
        **given,
        "stop": ["a"],
        "logit_bias": {"7": -1.0},
        "n": 2,
    }


def test_tools() -> None:
    assert chat(tools=(TOOL,)) == {"tools": [TOOL], "tool_choice": "auto"}
    assert chat(tools=(TOOL,), tool_choice=NamedTool("f"), parallel_tool_calls=False) == {
        "tools": [TOOL],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "parallel_tool_calls": False,
    }


@pytest.mark.parametrize(
    ("constraint", "field"),
    [
        (JsonConstraint(), {"response_format": {"type": "json_object"}}),
        (
            JsonConstraint({"type": "object"}),
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "schema": {"type": "object"}},
                }
            },
        ),
        (RegexConstraint("a+"), {"structured_outputs": {"regex": "a+"}}),
        (ChoiceConstraint(("a", "b")), {"structured_outputs": {"choice": ["a", "b"]}}),
        (GrammarConstraint("g"), {"structured_outputs": {"grammar": "g"}}),
    ],
)
def test_forms_of_the_answer(constraint: Constraint, field: dict[str, Any]) -> None:
    assert chat(constraint=constraint) == field


def test_what_vllm_has_beside_the_template_s_arguments() -> None:
    kwargs = {"enable_thinking": False, "add_generation_prompt": False, "documents": []}
    assert chat(chat_template_kwargs=kwargs, reasoning_effort="low") == {
        "add_generation_prompt": False,
        "documents": [],
        "chat_template_kwargs": {"enable_thinking": False},
        "reasoning_effort": "low",
    }


def test_unknown_fields_go_through_and_change_no_known_one() -> None:
    assert chat(extra={"mm_processor_kwargs": {"x": 1}, "model": "other", "stream": False}) == {
        "mm_processor_kwargs": {"x": 1}
    }


def test_logprobs_of_both_shapes() -> None:
    assert chat(logprobs=3) == {"logprobs": True, "top_logprobs": 3}
    body = json.loads(body_of(GenerationRequest(model="m", prompts=("a",), logprobs=0, echo=True), "m"))
    assert body == {**ALWAYS, "prompt": "a", "logprobs": 0, "echo": True}


def test_prompts_of_tokens_and_several() -> None:
    for prompts, sent in ((((1, 2),), [1, 2]), (("a", "b"), ["a", "b"]), (((1,), (2,)), [[1], [2]])):
        assert json.loads(body_of(GenerationRequest(model="m", prompts=prompts), "m"))["prompt"] == sent


def test_a_limit_that_the_server_cannot_keep_is_refused() -> None:
    with pytest.raises(UnsupportedParameter, match="max_length"):
        chat(sampling=Sampling(max_length=5))


def test_renaming_changes_the_name_only() -> None:
    body = b'{"x": 1.50, "model": "a", "model": "b", "y": {"model": "a", "z": [ ]}}'
    assert renamed(body, "c") == b'{"x":1.50,"model":"c","y":{"model": "a", "z": [ ]}}'
