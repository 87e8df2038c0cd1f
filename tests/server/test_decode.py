"""A body becomes a `GenerationRequest`: the contract's parameters, and those of vLLM and Hugging Face that fit."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from modelcompose.adapters.base import (
    ChoiceConstraint,
    GenerationRequest,
    GrammarConstraint,
    JsonConstraint,
    NamedTool,
    RegexConstraint,
    Sampling,
)
from modelcompose.adapters.errors import InvalidRequest
from modelcompose.server import decode
from modelcompose.server.schema import ChatBody, CompletionBody
from modelcompose.server.validation import parse

HI = [{"role": "user", "content": "hi"}]
TOOLS = [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in "fg"]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def chat(**fields: Any) -> GenerationRequest:
    return decode.chat(parse(msgspec.json.encode({"model": "m", "messages": HI} | fields), ChatBody))


def text(**fields: Any) -> GenerationRequest:
    return decode.completion(parse(msgspec.json.encode({"model": "m", "prompt": "hi"} | fields), CompletionBody))


def test_a_bare_chat_leaves_every_choice_to_the_model() -> None:
    assert chat() == GenerationRequest(model="m", messages=tuple(HI))


def test_a_bare_text_completion_has_openais_old_limit() -> None:
    assert text() == GenerationRequest(model="m", prompts=("hi",), sampling=Sampling(max_tokens=16))


NULLABLE_CHAT = sorted(set(ChatBody.model_fields) - {"model", "messages"})
NULLABLE_TEXT = sorted(set(CompletionBody.model_fields) - {"model", "prompt"})


@pytest.mark.parametrize("name", NULLABLE_CHAT)
def test_null_counts_as_absent_in_a_chat(name: str) -> None:
    assert chat(**{name: None}) == chat()


@pytest.mark.parametrize("name", NULLABLE_TEXT)
def test_null_counts_as_absent_in_a_text_completion(name: str) -> None:
    assert text(**{name: None}) == text()


SAMPLING: list[tuple[dict[str, Any], Sampling]] = [
    ({"temperature": 0}, Sampling(temperature=0)),
    ({"top_p": 0.5}, Sampling(top_p=0.5)),
    ({"presence_penalty": 1, "frequency_penalty": -1.5}, Sampling(presence_penalty=1, frequency_penalty=-1.5)),
    ({"seed": -(2**63)}, Sampling(seed=-(2**63))),
    ({"stop": "."}, Sampling(stop=(".",))),
    ({"stop": [".", "\n"]}, Sampling(stop=(".", "\n"))),
    ({"stop": []}, Sampling()),
    ({"stop": ""}, Sampling()),
    ({"logit_bias": {"5": -100, "7": 0.5}}, Sampling(logit_bias={5: -100, 7: 0.5})),
    ({"top_k": 40}, Sampling(top_k=40)),
    ({"top_k": -1}, Sampling(top_k=0)),
    ({"min_p": 0.1}, Sampling(min_p=0.1)),
    ({"repetition_penalty": 1.2}, Sampling(repetition_penalty=1.2)),
    ({"min_tokens": 4}, Sampling(min_tokens=4)),
    ({"ignore_eos": True}, Sampling(ignore_eos=True)),
    ({"stop_token_ids": [1, 2]}, Sampling(stop_token_ids=(1, 2))),
]


@pytest.mark.parametrize(("fields", "sampling"), SAMPLING, ids=str)
def test_sampling_is_the_same_for_both_endpoints(fields: dict[str, Any], sampling: Sampling) -> None:
    assert chat(**fields).sampling == sampling
    assert text(**fields).sampling == msgspec.structs.replace(sampling, max_tokens=16)


def test_the_newer_name_of_the_token_limit_wins() -> None:
    assert chat(max_tokens=5).sampling.max_tokens == 5
    assert chat(max_completion_tokens=6).sampling.max_tokens == 6
    assert chat(max_tokens=5, max_completion_tokens=6).sampling.max_tokens == 6
    assert text(max_tokens=0).sampling.max_tokens == 0


def test_who_limits_the_whole_length_has_no_other_limit() -> None:
    assert chat(max_length=100).sampling == Sampling(max_length=100)
    assert text(max_length=100).sampling == Sampling(max_length=100)
    assert text(max_length=100, max_tokens=5).sampling == Sampling(max_length=100, max_tokens=5)


def test_logprobs_are_counted_beside_the_chosen_token() -> None:
    assert chat(logprobs=True).logprobs == 0
    assert chat(logprobs=True, top_logprobs=5).logprobs == 5
    assert chat(logprobs=False, top_logprobs=0).logprobs is None
    assert text(logprobs=0).logprobs == 0
    assert text(logprobs=20).logprobs == 20
    assert text(echo=True).echo


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("a", ("a",)),
        ("", ("",)),
        (None, ("",)),
        (["a", "b"], ("a", "b")),
        ([1, 2], ((1, 2),)),
        ([[1, 2], [3]], ((1, 2), (3,))),
    ],
)
def test_every_form_of_prompt(prompt: Any, prompts: tuple[Any, ...]) -> None:
    assert text(prompt=prompt).prompts == prompts


@pytest.mark.parametrize(
    "message",
    [
        {"role": "system", "content": "a"},
        {"role": "developer", "content": [{"type": "text", "text": "a"}], "name": "x"},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x", "detail": "low"}}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": "data:x"}]},
        {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "x", "format": "wav"}}]},
        {"role": "user", "content": [{"type": "file", "file": {"file_id": "x"}}]},
        {"role": "assistant", "content": None, "refusal": None, "tool_calls": None},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        {"role": "assistant", "content": "a", "reasoning_content": "b", "reasoning": "b", "thinking": "kept"},
        {
            "role": "assistant",
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "tool", "content": "4", "tool_call_id": "1"},
        {"role": "tool", "content": None, "tool_call_id": "1"},
        {"role": "function", "content": None, "name": "f"},
        {"role": "user", "content": [{"type": "text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}}]},
    ],
    ids=str,
)
def test_messages_go_through_as_they_are(message: dict[str, Any]) -> None:
    assert chat(messages=[message]).messages == (message,)


FORMS: list[tuple[dict[str, Any], Any]] = [
    ({"response_format": {"type": "text"}}, None),
    ({"response_format": {"type": "json_object"}}, JsonConstraint()),
    ({"response_format": {"type": "json_object", "schema": SCHEMA}}, JsonConstraint(SCHEMA)),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": None}}},
        JsonConstraint(SCHEMA),
    ),
    ({"guided_json": SCHEMA}, JsonConstraint(SCHEMA)),
    ({"guided_json": '{"type": "string"}'}, JsonConstraint({"type": "string"})),
    ({"guided_regex": "a+"}, RegexConstraint("a+")),
    ({"guided_choice": ["a", "b"]}, ChoiceConstraint(("a", "b"))),
    ({"guided_grammar": 'start: "a"'}, GrammarConstraint('start: "a"')),
    ({"structured_outputs": {"json": SCHEMA}}, JsonConstraint(SCHEMA)),
    ({"structured_outputs": {"json_object": True}}, JsonConstraint()),
    ({"structured_outputs": {"regex": "a+"}}, RegexConstraint("a+")),
    ({"structured_outputs": {"choice": ["a"]}}, ChoiceConstraint(("a",))),
    ({"structured_outputs": {"grammar": "x"}}, GrammarConstraint("x")),
    ({"structured_outputs": {}}, None),
]


@pytest.mark.parametrize(("fields", "constraint"), FORMS, ids=str)
def test_the_form_of_an_answer_in_every_spelling(fields: dict[str, Any], constraint: Any) -> None:
    assert chat(**fields).constraint == constraint
    assert text(**fields).constraint == constraint


def test_an_answer_has_one_form_only() -> None:
    with pytest.raises(InvalidRequest, match="'response_format' or 'guided_regex'"):
        chat(response_format={"type": "json_object"}, guided_regex="a")


def test_tools_and_their_choice() -> None:
    assert chat(tools=TOOLS) == GenerationRequest(model="m", messages=tuple(HI), tools=tuple(TOOLS))
    assert chat(tools=TOOLS, tool_choice="none").tool_choice == "none"
    assert chat(tools=TOOLS, tool_choice="required").tool_choice == "required"
    named = {"type": "function", "function": {"name": "g"}}
    assert chat(tools=TOOLS, tool_choice=named).tool_choice == NamedTool("g")
    assert not chat(tools=TOOLS, parallel_tool_calls=False).parallel_tool_calls
    assert chat(tools=[], tool_choice="auto") == chat()


def test_allowed_tools_leave_the_others_out() -> None:
    only_g = {"mode": "required", "tools": [{"type": "function", "function": {"name": "g"}}]}
    request = chat(tools=TOOLS, tool_choice={"type": "allowed_tools", "allowed_tools": only_g})
    assert (request.tools, request.tool_choice) == ((TOOLS[1],), "required")


def test_older_functions_become_tools_one_call_at_a_time() -> None:
    functions = [tool["function"] for tool in TOOLS]
    request = chat(functions=functions)
    assert request == GenerationRequest(model="m", messages=tuple(HI), tools=tuple(TOOLS), parallel_tool_calls=False)
    assert chat(functions=functions, function_call="none").tool_choice == "none"
    assert chat(functions=functions, function_call={"name": "f"}).tool_choice == NamedTool("f")
    with pytest.raises(InvalidRequest, match="not both"):
        chat(functions=functions, tools=TOOLS)


def test_what_the_template_needs_reaches_it() -> None:
    request = chat(
        chat_template_kwargs={"enable_thinking": False, "add_generation_prompt": True},
        add_generation_prompt=False,
        continue_final_message=True,
        documents=[{"text": "a"}],
        reasoning_effort="low",
    )
    assert request.chat_template_kwargs == {
        "enable_thinking": False,
        "add_generation_prompt": False,
        "continue_final_message": True,
        "documents": [{"text": "a"}],
    }
    assert request.reasoning_effort == "low"


@pytest.mark.parametrize(
    "hint",
    [
        {"user": "u"},
        {"safety_identifier": "u"},
        {"metadata": {}},
        {"store": True},
        {"service_tier": "flex"},
        {"prompt_cache_key": "k"},
        {"prompt_cache_retention": "24h"},
        {"prompt_cache_options": {"mode": "implicit"}},
        {"prediction": {"type": "content", "content": "a"}},
        {"verbosity": "medium"},
        {"modalities": ["text"]},
        {"stream": False},
        {"n": 1},
    ],
    ids=str,
)
def test_hints_that_change_no_answer_are_accepted(hint: dict[str, Any]) -> None:
    assert chat(**hint) == chat()


def test_input_and_metadata_are_there_for_workflows() -> None:
    body = parse(msgspec.json.encode({"model": "m", "messages": HI, "input": {"x": 1}}), ChatBody)
    assert decode.chat(body, strict=True).extra == {"input": {"x": 1}}
    assert chat(metadata={"a": "b"}, unknown=1).extra == {"unknown": 1, "metadata": {"a": "b"}}


def test_best_of_as_many_as_are_returned_is_no_choice() -> None:
    assert text(n=2, best_of=2) == text(n=2)
    assert text(best_of=1, suffix="") == text()
