"""The shipped tokenizer with its chat template and its response template."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from transformers import AutoTokenizer
from transformers.utils.chat_parsing import ResponseParser

from modelcompose.adapters.bundled import MODEL_FOLDER
from modelcompose.adapters.bundled.train.tokenizer import CHAT_TEMPLATE, RESPONSE_TEMPLATE, build


@cache
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(MODEL_FOLDER)


def prompt(messages: list[dict[str, Any]], **options: Any) -> str:
    return str(tokenizer().apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **options))


TEXTS = [
    "Hello, world! It's fine.",
    "世界 こんにちは 안녕하세요",
    "👋🏽 emoji 🏳️‍🌈 and\ttabs",
    "def f(x):\n        return {'a': [1, 22]}  # ~\n\n\n",
    "   leading and trailing   ",
    "\r\n mixed \x00 bytes \x7f é ½ ٣",
    "<think>literal</think> <|not special|>",
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_comes_back_byte_for_byte(text: str) -> None:
    assert tokenizer().decode(tokenizer()(text)["input_ids"]) == text


def test_a_word_is_one_token_with_its_space_and_without_and_spelled_in_capitals() -> None:
    built = build([" stones stones? Stones STONES JSON API"] * 3, 600)
    assert built.encode("stones stones Stones").tokens == ["stones", "Ġstones", "ĠStones"]
    assert built.encode("Stones STONES").tokens == [*"Stones", "Ġ", *"STONES"]
    assert built.encode(" API JSON").tokens == ["ĠAPI", "Ġ", *"JSON"]


def test_a_vocabulary_is_as_large_as_wanted_and_never_has_one_form_of_a_word_only() -> None:
    words = "".join(f" {first}{second}" for first in "abcdefgh" for second in "xyz") + "!?,"
    vocabulary = build([words] * 3, 300).get_vocab()
    assert len(vocabulary) == 300
    bare = {word.removeprefix("Ġ") for word in vocabulary if word.removeprefix("Ġ").isalpha() and len(word) == 3}
    assert bare
    assert all(word in vocabulary and f"Ġ{word}" in vocabulary for word in bare)


def test_no_token_is_added_in_front() -> None:
    assert tokenizer()("")["input_ids"] == []


def test_an_unknown_word_is_spelled_and_digits_stand_alone() -> None:
    assert tokenizer().tokenize(" qzxv42") == ["Ġ", "q", "z", "x", "v", "4", "2"]


@pytest.mark.parametrize("token", ["<think>", "</think>", "<tool_call>", "</tool_call>", "<|im_end|>", "<|endoftext|>"])
def test_markup_is_one_token(token: str) -> None:
    assert len(tokenizer()(token)["input_ids"]) == 1


def test_the_folder_carries_the_templates_of_the_program() -> None:
    assert tokenizer().chat_template == CHAT_TEMPLATE
    assert tokenizer().response_template == RESPONSE_TEMPLATE


def test_a_plain_conversation() -> None:
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    assert prompt(messages) == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_developer_is_system_and_several_system_messages_and_parts_are_fine() -> None:
    parts = [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]
    messages: list[dict[str, Any]] = [{"role": "developer", "content": parts}, {"role": "system", "content": "two"}]
    assert prompt(messages).startswith("<|im_start|>system\nAB<|im_end|>\n<|im_start|>system\ntwo<|im_end|>\n")


def test_thinking_opens_the_answer() -> None:
    messages = [{"role": "user", "content": "Hi"}]
    assert prompt(messages, enable_thinking=True).endswith("assistant\n<think>\n")
    assert prompt(messages, enable_thinking=False).endswith("assistant\n")


TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}


def test_tools_are_listed_in_the_system_turn_one_in_a_line() -> None:
    text = prompt([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}], tools=[TOOL, TOOL])
    line = '{"name": "f", "description": "d", "parameters": {"type": "object"}}\n'
    assert text.startswith(
        f"<|im_start|>system\nBe kind.\n\nYou can call these tools:\n<tools>\n{line}{line}</tools>\n"
    )
    assert text.count("<|im_start|>system") == 1


@pytest.mark.parametrize("arguments", [{"a": "ü", "n": 1}, '{"a": "ü", "n": 1}'])
@pytest.mark.parametrize("content", [None, ""])
def test_tool_calls_of_the_history_are_rendered_from_a_dict_and_from_text(arguments: Any, content: Any) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": content, "tool_calls": [call, call]},
        {"role": "tool", "tool_call_id": "c1", "content": "5"},
    ]
    rendered = '<tool_call>\n{"name": "f", "arguments": {"a": "ü", "n": 1}}\n</tool_call>'
    assert prompt(messages).endswith(
        f"<|im_start|>assistant\n{rendered}\n{rendered}<|im_end|>\n<|im_start|>tool\n5<|im_end|>\n<|im_start|>assistant\n"
    )


def test_reasoning_of_the_history_is_rendered() -> None:
    messages = [{"role": "assistant", "reasoning_content": "Hm.", "content": "Yes."}]
    assert "<|im_start|>assistant\n<think>\nHm.\n</think>\n\nYes.<|im_end|>\n" in prompt(messages)


CALLS = (
    '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>\n'
    '<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>'
)
PARSED_CALLS = [
    {"type": "function", "function": {"name": "f", "arguments": {"a": 1}}},
    {"type": "function", "function": {"name": "g", "arguments": {}}},
]
START = "<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("text", "before", "message"),
    [
        ("Hello <b>there</b>.<|im_end|>", START, {"content": "Hello <b>there</b>."}),
        (f"{CALLS}<|im_end|>", START, {"tool_calls": PARSED_CALLS}),
        (f"I look.\n{CALLS}", START, {"content": "I look.", "tool_calls": PARSED_CALLS}),
        ("Hm.\n</think>\n\nYes.<|im_end|>", f"{START}<think>\n", {"reasoning_content": "Hm.", "content": "Yes."}),
        ("<think>\nHm.\n</think>\n\nYes.", START, {"reasoning_content": "Hm.", "content": "Yes."}),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_an_answer_is_parsed_however_it_is_cut(text: str, before: str, message: dict[str, Any], size: int) -> None:
    parser = ResponseParser(tokenizer().response_template, prefix=before)
    for start in range(0, len(text), size):
        parser.feed(text[start : start + size])
    found, _ = parser.finalize()
    assert found == {"role": "assistant"} | message


def test_an_answer_decoded_token_by_token_is_the_text() -> None:
    text = "Naïve 👋🏽 qzxv 世界."
    ids = tokenizer()(text)["input_ids"]
    assert "".join(tokenizer().convert_ids_to_tokens(ids)) == "".join(tokenizer().tokenize(text))
    assert tokenizer().decode(ids) == text
