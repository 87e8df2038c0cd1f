"""Forced forms: what the masks allow, and that random text under them always has the form."""

from __future__ import annotations

import copy
import dataclasses
import json
from typing import Any

import pytest
import torch
from tiny_models import CHATML, QWEN3, TinyModel

from modelcompose.adapters.base import (
    ChoiceConstraint,
    Constraint,
    GenerationRequest,
    GrammarConstraint,
    JsonConstraint,
    NamedTool,
    RegexConstraint,
)
from modelcompose.adapters.errors import InvalidRequest, UnsupportedParameter
from modelcompose.adapters.transformers.grammar import GrammarCompiler, Matcher
from modelcompose.adapters.transformers.load import LoadedModel, load
from modelcompose.adapters.transformers.prompt import PromptBuilder
from modelcompose.adapters.transformers.settings import ModelSettings

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
ZONED: dict[str, Any] = {
    "type": "object",
    "properties": {"zone": {"$ref": "#/$defs/zone"}},
    "required": ["zone"],
    "additionalProperties": False,
    "$defs": {"zone": {"enum": ["CET", "UTC"]}},
}
TOOLS = (
    {"type": "function", "function": {"name": "time", "parameters": ZONED}},
    {"type": "function", "function": {"name": "now"}},
)
TIME_CALL = '<tool_call>\n{"name": "time", "arguments": {"zone": "UTC"}}\n</tool_call>'
NOW_CALL = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'


def loaded_model(tiny_model: TinyModel, family: str) -> LoadedModel:
    return load(ModelSettings(name=family, source=str(tiny_model(family)), device="cpu"), lambda state: None)


@pytest.fixture(scope="module")
def qwen3(tiny_model: TinyModel) -> LoadedModel:
    return loaded_model(tiny_model, "qwen3")


def matcher_of(loaded: LoadedModel, **changes: Any) -> Matcher:
    request = GenerationRequest(model="m", messages=({"role": "user", "content": "hi"},), **changes)
    [prompt] = PromptBuilder(loaded).build(request)
    matcher = GrammarCompiler(loaded).for_request(request, prompt)
    assert matcher is not None
    return matcher


def takes(loaded: LoadedModel, matcher: Matcher, text: str) -> bool:
    """Whether the matcher allows the text, token by token, and allows it to end there."""
    for token in loaded.tokenizer(text, add_special_tokens=False)["input_ids"]:
        allowed = matcher.allowed()
        if allowed is not None and not allowed[token]:
            return False
        matcher.accept(token)
    allowed = matcher.allowed()
    return matcher.is_complete and allowed is not None and all(bool(allowed[eos]) for eos in loaded.eos_token_ids)


@pytest.mark.parametrize(
    ("constraint", "good", "bad"),
    [
        (
            JsonConstraint(),
            ['{"a": [1, true, null]}', "{}", '{ "你好": "😀" }'],
            ["[1]", "{", "{} x", '{"a": 1,}'],
        ),
        (JsonConstraint(PERSON), ['{"name": "Bo", "age": 7}'], ['{"name": "Bo"}', '{"name": "Bo", "age": 100}', "{}"]),
        (JsonConstraint({"type": "array", "items": {"type": "integer"}}), ["[1, 2]", "[]"], ['["a"]']),
        (RegexConstraint(r"\d{3}-[a-f]+"), ["123-abc"], ["12-abc", "123-x", "123-"]),
        (ChoiceConstraint(("yes", 'no "really"', "可以")), ["yes", 'no "really"', "可以"], ["ye", "no", "yes!"]),
        (GrammarConstraint('start: "a" b+\nb: "b" | "c"'), ["abc"], ["a", "ad"]),
    ],
)
def test_form_is_kept(qwen3: LoadedModel, constraint: Constraint, good: list[str], bad: list[str]) -> None:
    for text in good:
        assert takes(qwen3, matcher_of(qwen3, constraint=constraint), text), text
    for text in bad:
        assert not takes(qwen3, matcher_of(qwen3, constraint=constraint), text), text


@pytest.mark.parametrize("seed", range(4))
def test_random_text_under_a_schema_fits_it(qwen3: LoadedModel, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    matcher = matcher_of(qwen3, constraint=JsonConstraint(PERSON), chat_template_kwargs={"enable_thinking": False})
    tokens: list[int] = []
    for _ in range(400):
        logits = torch.randn(qwen3.vocab_size, generator=generator)
        matcher.mask(logits)
        token = int(logits.argmax())
        matcher.accept(token)
        if token in qwen3.eos_token_ids:
            break
        tokens.append(token)
    person = json.loads(str(qwen3.tokenizer.decode(tokens)))
    assert set(person) == {"name", "age"}
    assert 0 <= person["age"] <= 99


@pytest.mark.parametrize(
    ("constraint", "param", "words"),
    [
        (JsonConstraint({"type": "strange"}), "response_format", "strange"),
        (JsonConstraint({"$ref": "#/nowhere"}), "response_format", "nowhere"),
        (RegexConstraint("(a"), "structured_outputs", "unclosed group"),
        (GrammarConstraint("start: nothing"), "structured_outputs", "nothing"),
    ],
)
def test_constraint_that_makes_no_sense_is_refused(
    qwen3: LoadedModel, constraint: Constraint, param: str, words: str
) -> None:
    with pytest.raises(InvalidRequest, match=f"'{param}' cannot be used") as caught:
        matcher_of(qwen3, constraint=constraint)
    assert caught.value.param == param
    assert words in caught.value.message


def test_form_that_grows_beyond_all_bounds_is_an_error_and_no_short_answer(qwen3: LoadedModel) -> None:
    matcher = matcher_of(qwen3, constraint=RegexConstraint("(a{1,1000}){1,1000}"))
    [a] = qwen3.tokenizer("a", add_special_tokens=False)["input_ids"]

    def go_on() -> None:
        for _ in range(1000):
            matcher.accept(int(a))

    with pytest.raises(InvalidRequest, match=r"cannot be followed any further: .*too many") as caught:
        go_on()
    assert caught.value.param == "structured_outputs"


def test_there_may_be_thousands_of_choices(qwen3: LoadedModel) -> None:
    choices = ChoiceConstraint(("", *(f"choice{i}" for i in range(3000))))
    for text, is_one in {"choice2999": True, "": True, "choice3000": False}.items():
        assert takes(qwen3, matcher_of(qwen3, constraint=choices), text) is is_one


def test_same_constraint_is_compiled_once(qwen3: LoadedModel) -> None:
    compiler = GrammarCompiler(qwen3)
    first, second = (compiler.matcher(RegexConstraint("a+")) for _ in range(2))
    first.accept(int(qwen3.tokenizer("a", add_special_tokens=False)["input_ids"][0]))
    assert first.is_complete
    assert not second.is_complete


# Thinking


@pytest.mark.parametrize("text", ["yes", "<think>\nmaybe\n</think>\n\nyes", "<think></think>yes"])
def test_thinking_is_free_and_the_form_begins_after_it(qwen3: LoadedModel, text: str) -> None:
    assert takes(qwen3, matcher_of(qwen3, constraint=ChoiceConstraint(("yes",))), text)


def test_thinking_does_not_end_the_answer(qwen3: LoadedModel) -> None:
    matcher = matcher_of(qwen3, constraint=ChoiceConstraint(("yes",)))
    matcher.accept(int(qwen3.tokenizer("<think>", add_special_tokens=False)["input_ids"][0]))
    allowed = matcher.allowed()
    assert allowed is not None
    assert set((~allowed).nonzero()[:, 0].tolist()) == qwen3.eos_token_ids


def test_thinking_that_the_prompt_has_begun_goes_on(qwen3: LoadedModel) -> None:
    messages = ({"role": "user", "content": "hi"}, {"role": "assistant", "content": "<think>\nwell"})
    request = GenerationRequest(
        model="m",
        messages=messages,
        constraint=ChoiceConstraint(("yes",)),
        chat_template_kwargs={"continue_final_message": True},
    )
    [prompt] = PromptBuilder(qwen3).build(request)
    matcher = GrammarCompiler(qwen3).for_request(request, prompt)
    assert matcher is not None
    allowed = matcher.allowed()
    assert allowed is not None
    assert allowed.sum() == len(allowed) - len(qwen3.eos_token_ids)
    assert takes(qwen3, matcher, " so</think>\n\nyes")


def test_nothing_is_thought_after_the_prompt_closed_it(qwen3: LoadedModel) -> None:
    changes = {"constraint": ChoiceConstraint(("yes",)), "reasoning_effort": "none"}
    assert takes(qwen3, matcher_of(qwen3, **changes), "yes")
    assert not takes(qwen3, matcher_of(qwen3, **changes), "<think></think>yes")


def test_nothing_is_thought_where_the_prompt_would_have_to_begin_it(qwen3: LoadedModel) -> None:
    tokenizer = copy.deepcopy(qwen3.tokenizer)
    tokenizer.chat_template = (
        CHATML.removesuffix("{% endif %}") + "{% if enable_thinking %}<think>\n{% endif %}{% endif %}"
    )
    opening = dataclasses.replace(qwen3, tokenizer=tokenizer)
    constraint = ChoiceConstraint(("yes",))
    assert not takes(opening, matcher_of(opening, constraint=constraint), "<think></think>yes")
    assert takes(opening, matcher_of(opening, constraint=constraint, reasoning_effort="low"), "so</think>yes")


# Tool calls


@pytest.mark.parametrize(
    ("changes", "good", "bad"),
    [
        (
            {"tool_choice": "required"},
            [TIME_CALL, NOW_CALL, f"{TIME_CALL}\n{NOW_CALL}", f"<think>\nhm\n</think>\n\n{NOW_CALL}"],
            ["Hello", TIME_CALL.replace("UTC", "XYZ"), NOW_CALL.replace("{}", '{"a": 1}'), f"Well. {NOW_CALL}"],
        ),
        ({"tool_choice": "required", "parallel_tool_calls": False}, [TIME_CALL], [f"{TIME_CALL}\n{NOW_CALL}"]),
        ({"tool_choice": NamedTool("time")}, [TIME_CALL], [NOW_CALL]),
        ({"constraint": JsonConstraint(PERSON)}, [TIME_CALL, '{"name": "Bo", "age": 7}'], ["Hello", "{}"]),
    ],
)
def test_calls_are_forced_in_the_models_own_format(
    qwen3: LoadedModel, changes: dict[str, Any], good: list[str], bad: list[str]
) -> None:
    for text in good:
        assert takes(qwen3, matcher_of(qwen3, tools=TOOLS, **changes), text), text
    for text in bad:
        assert not takes(qwen3, matcher_of(qwen3, tools=TOOLS, **changes), text), text


def strict(tool: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {**tool["function"], "strict": True}}


@pytest.mark.parametrize(
    ("text", "is_taken"),
    [
        ("Hello", True),
        (f"I look.\n{TIME_CALL}\nDone.", True),
        (f"{NOW_CALL}\n{TIME_CALL}", True),
        (TIME_CALL.replace("UTC", "XYZ"), False),
        (f"{TIME_CALL} and {TIME_CALL.replace('UTC', 'XYZ')}", False),
        (TIME_CALL.replace('"time"', '"tide"'), False),
    ],
)
def test_strict_tools_are_called_rightly_or_not_at_all(qwen3: LoadedModel, text: str, is_taken: bool) -> None:
    matcher = matcher_of(qwen3, tools=(strict(TOOLS[0]), TOOLS[1]))
    for token in qwen3.tokenizer(text, add_special_tokens=False)["input_ids"]:
        allowed = matcher.allowed()
        if allowed is not None and not allowed[token]:
            assert not is_taken
            return
        matcher.accept(token)
    assert is_taken
    assert matcher.is_complete


def test_format_without_marks_is_forced_too(tiny_model: TinyModel) -> None:
    llama = loaded_model(tiny_model, "llama")
    call = '{"name": "time", "parameters": {"zone": "UTC"}}'
    assert takes(llama, matcher_of(llama, tools=TOOLS, tool_choice="required"), call)


def test_unknown_tool_cannot_be_forced(qwen3: LoadedModel) -> None:
    with pytest.raises(InvalidRequest, match="there is no tool 'x'") as caught:
        matcher_of(qwen3, tools=TOOLS, tool_choice=NamedTool("x"))
    assert caught.value.param == "tool_choice"


def test_model_whose_calls_have_no_known_form_cannot_be_forced(qwen3: LoadedModel) -> None:
    tokenizer = copy.deepcopy(qwen3.tokenizer)
    tokenizer.chat_template = f"{QWEN3}{{# <function= <parameter= #}}"
    with pytest.raises(UnsupportedParameter, match="cannot be forced; use 'auto'") as caught:
        matcher_of(dataclasses.replace(qwen3, tokenizer=tokenizer), tools=TOOLS, tool_choice="required")
    assert caught.value.param == "tool_choice"


def test_request_without_a_form_has_no_matcher(qwen3: LoadedModel) -> None:
    request = GenerationRequest(model="m", messages=({"role": "user", "content": "hi"},), tools=TOOLS)
    [prompt] = PromptBuilder(qwen3).build(request)
    assert GrammarCompiler(qwen3).for_request(request, prompt) is None


def test_tokenizer_that_exists_in_python_only_is_refused_by_name(tiny_model: TinyModel) -> None:
    loaded = loaded_model(tiny_model, "blenderbot_small")
    with pytest.raises(UnsupportedParameter, match="cannot be constrained"):
        matcher_of(loaded, constraint=JsonConstraint())


def test_masked_logits_keep_their_values(qwen3: LoadedModel) -> None:
    logits = torch.zeros(qwen3.vocab_size)
    matcher_of(qwen3, constraint=RegexConstraint("[ab]")).mask(logits)
    allowed = {str(qwen3.tokenizer.decode([int(token)])) for token in torch.isfinite(logits).nonzero()[:, 0]}
    assert allowed == {"a", "b", "<think>"}
