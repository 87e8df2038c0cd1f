"""Prompts: chat templates in the style of the families, and what they are given."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
from tiny_models import CHATML, LLAMA3, QWEN3, ZEPHYR, TinyModel

from modelcompose.adapters.base import GenerationRequest, Message
from modelcompose.adapters.errors import ContextLengthExceeded, InvalidRequest, UnsupportedParameter
from modelcompose.adapters.transformers.load import LoadedModel, load
from modelcompose.adapters.transformers.plain_chat import BLENDERBOT, BLENDERBOT_SMALL, DIALOGUE, LINES, plain_chat
from modelcompose.adapters.transformers.prompt import EncodedPrompt, PromptBuilder
from modelcompose.adapters.transformers.settings import ModelSettings

GEMMA = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for message in messages %}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}
{%- set role = 'model' if message['role'] == 'assistant' else message['role'] %}<start_of_turn>{{ role }}
{{ message['content'] | trim }}<end_of_turn>
{% endfor %}
{%- if add_generation_prompt %}<start_of_turn>model
{% endif %}"""
ONE_SYSTEM = """{%- for message in messages %}
{%- if message.role == 'system' and not loop.first %}
{{- raise_exception('Only the first message can be a system message') }}{% endif %}
{{- message.role }}: {{ message.content }}|
{%- endfor %}"""
NO_SYSTEM = """{%- for message in messages %}
{%- if message.role == 'user' %}U:{{ message.content }}|{% elif message.role == 'assistant' %}A:{{ message.content }}|{% endif %}
{%- endfor %}A:"""  # noqa: E501
JOINED_ARGUMENTS = """{%- for message in messages %}{{ message.role }}:{{ message.content }}
{%- for call in message.tool_calls or [] %}{{ call.function.name + '(' + call.function.arguments + ')' }}{% endfor %}|
{%- endfor %}{{ tools | length if tools }}"""

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "Hi"}
ASSISTANT = {"role": "assistant", "content": "Hello"}
TOOL = {"type": "function", "function": {"name": "time", "description": "What time it is"}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "time", "arguments": '{"zone": "CET"}'}}


@pytest.fixture(scope="module")
def llama(tiny_model: TinyModel) -> LoadedModel:
    return load(ModelSettings(name="tiny", source=str(tiny_model("llama")), device="cpu"), lambda state: None)


def with_template(loaded: LoadedModel, template: str | None) -> LoadedModel:
    tokenizer = copy.deepcopy(loaded.tokenizer)
    tokenizer.chat_template = template
    return dataclasses.replace(loaded, tokenizer=tokenizer)


def prompt_of(loaded: LoadedModel, *messages: Message, template: str | None = CHATML, **changes: Any) -> EncodedPrompt:
    request = GenerationRequest(model="tiny", messages=messages, **changes)
    [prompt] = PromptBuilder(with_template(loaded, template)).build(request)
    return prompt


BOS = "<|begin_of_text|>"
CHATML_TEXT = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
LLAMA3_TEXT = (
    f"{BOS}<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
)
GEMMA_TEXT = (
    f"{BOS}<start_of_turn>user\nHi\n\nHi<end_of_turn>\n<start_of_turn>model\nHello<end_of_turn>\n"
    "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n"
)


@pytest.mark.parametrize(
    ("template", "messages", "text"),
    [
        (CHATML, (SYSTEM, USER), CHATML_TEXT),
        (LLAMA3, (USER,), LLAMA3_TEXT),
        (ZEPHYR, (SYSTEM, USER), "<|system|>\nBe brief.<|eot_id|>\n<|user|>\nHi<|eot_id|>\n<|assistant|>\n"),
        (GEMMA, (SYSTEM, USER), f"{BOS}<start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\n"),
        (GEMMA, (USER, USER, ASSISTANT, USER), GEMMA_TEXT),
        (ONE_SYSTEM, (SYSTEM, SYSTEM, USER), "system: Be brief.\n\nBe brief.|user: Hi|"),
        (
            ONE_SYSTEM,
            (SYSTEM, USER, {"role": "developer", "content": "In rhyme."}),
            "system: Be brief.\n\nIn rhyme.|user: Hi|",
        ),
        (NO_SYSTEM, (SYSTEM, USER), "U:Be brief.\n\nHi|A:"),
        (NO_SYSTEM, (SYSTEM,), "U:Be brief.|A:"),
    ],
)
def test_messages_are_written_as_the_template_wants_them(
    llama: LoadedModel, template: str, messages: tuple[Message, ...], text: str
) -> None:
    prompt = prompt_of(llama, *messages, template=template)
    assert prompt.text == text
    assert prompt.param == "messages"
    assert llama.tokenizer.decode(list(prompt.token_ids)) == text


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}, "one\ntwo"),
        ({"role": "user", "content": ["one", {"type": "input_text", "text": "two"}]}, "one\ntwo"),
        ({"role": "user", "content": []}, ""),
        ({"role": "user", "content": None}, ""),
        ({"role": "user", "content": "x", "name": None, "tool_calls": None}, "x"),
    ],
)
def test_contents_become_text(llama: LoadedModel, message: Message, text: str) -> None:
    assert f"<|im_start|>user\n{text}<|im_end|>" in prompt_of(llama, message).text


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,xxxx"}},
        {"type": "image_url", "image_url": "http://example.com/a.png"},
        {"type": "input_audio", "input_audio": {}},
        {"type": "text", "text": None},
        7,
    ],
)
def test_parts_that_are_no_text_are_refused_by_their_place(llama: LoadedModel, part: Any) -> None:
    with pytest.raises(UnsupportedParameter, match="takes text only") as caught:
        prompt_of(llama, USER, {"role": "user", "content": [{"type": "text", "text": "a"}, part]})
    assert caught.value.param == "messages[1].content[1]"


@pytest.mark.parametrize(
    ("template", "text"),
    [(CHATML, '{"name": "time", "arguments": {"zone": "CET"}}'), (JOINED_ARGUMENTS, 'time({"zone": "CET"})')],
)
def test_arguments_are_an_object_or_text_as_the_template_needs(llama: LoadedModel, template: str, text: str) -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    answer = {"role": "tool", "tool_call_id": "call_1", "content": "12:00"}
    prompt = prompt_of(llama, USER, call, answer, template=template)
    assert text in prompt.text
    assert "12:00" in prompt.text


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_of_earlier_turns_reaches_the_template_under_its_own_name(llama: LoadedModel, name: str) -> None:
    assert "<think>\nso\n</think>\n\nHello" in prompt_of(llama, USER, {**ASSISTANT, name: "so"}, USER).text


def test_tools_are_shown_unless_none_may_be_called(llama: LoadedModel) -> None:
    assert '"parameters": {"type": "object"' in prompt_of(llama, USER, tools=(TOOL,)).text
    assert "time" not in prompt_of(llama, USER, tools=(TOOL,), tool_choice="none").text


@pytest.mark.parametrize("template", [ZEPHYR, None])
def test_tools_are_refused_where_the_template_has_none(llama: LoadedModel, template: str | None) -> None:
    with pytest.raises(UnsupportedParameter, match="chat template") as caught:
        prompt_of(llama, USER, tools=(TOOL,), template=template)
    assert caught.value.param == "tools"


@pytest.mark.parametrize(
    ("changes", "is_off"),
    [
        ({"reasoning_effort": "none"}, True),
        ({"reasoning_effort": "low"}, False),
        ({}, False),
        ({"chat_template_kwargs": {"enable_thinking": False}}, True),
        ({"reasoning_effort": "high", "chat_template_kwargs": {"enable_thinking": False}}, True),
    ],
)
def test_reasoning_effort_switches_thinking(llama: LoadedModel, changes: dict[str, Any], is_off: bool) -> None:
    assert prompt_of(llama, USER, template=QWEN3, **changes).text.endswith("</think>\n\n") == is_off


def test_reasoning_effort_is_refused_where_nothing_thinks(llama: LoadedModel) -> None:
    with pytest.raises(UnsupportedParameter, match="does not think"):
        prompt_of(llama, USER, template=ZEPHYR, reasoning_effort="high")
    assert prompt_of(llama, USER, template=ZEPHYR, reasoning_effort="none").text


def test_words_of_the_template_are_the_error(llama: LoadedModel) -> None:
    template = "{{ raise_exception('Only cats may ask') }}"
    with pytest.raises(InvalidRequest, match="does not take these messages: Only cats may ask") as caught:
        prompt_of(llama, USER, template=template)
    assert caught.value.param == "messages"


@pytest.mark.parametrize("template", ["{{ messages[5].content.x }}", "{{ 1 + 'a' }}", "{% if %}"])
def test_template_that_fails_is_an_error_of_the_request(llama: LoadedModel, template: str) -> None:
    with pytest.raises(InvalidRequest, match="does not take these messages"):
        prompt_of(llama, USER, template=template)


def test_last_message_is_continued_when_asked(llama: LoadedModel) -> None:
    prompt = prompt_of(llama, USER, ASSISTANT, chat_template_kwargs={"continue_final_message": True})
    assert prompt.text.endswith("<|im_start|>assistant\nHello")
    assert prompt.continues


def test_generation_prompt_can_be_left_out(llama: LoadedModel) -> None:
    prompt = prompt_of(llama, USER, chat_template_kwargs={"add_generation_prompt": False})
    assert prompt.text.endswith("Hi<|im_end|>\n")


def test_what_is_not_a_template_variable_is_refused(llama: LoadedModel) -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        prompt_of(llama, USER, chat_template_kwargs={"tokenize": True})
    assert caught.value.param == "chat_template_kwargs.tokenize"


# Texts


def text_prompt(loaded: LoadedModel, prompt: str | tuple[int, ...], **extra: Any) -> EncodedPrompt:
    [encoded] = PromptBuilder(loaded).build(GenerationRequest(model="tiny", prompts=(prompt,), extra=extra))
    return encoded


@pytest.fixture(scope="module")
def with_bos(llama: LoadedModel) -> LoadedModel:
    """The tiny Llama with a tokenizer that begins and ends every text by itself."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = copy.deepcopy(llama.tokenizer)
    ids = [(token, tokenizer.convert_tokens_to_ids(token)) for token in (BOS, "<|eot_id|>")]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(f"{BOS} $A <|eot_id|>", special_tokens=ids)
    return dataclasses.replace(llama, tokenizer=tokenizer)


@pytest.mark.parametrize("text", ["the fox", f"{BOS}the fox"])
def test_text_begins_once_and_does_not_end(with_bos: LoadedModel, text: str) -> None:
    tokens = text_prompt(with_bos, text).token_ids
    assert with_bos.tokenizer.decode(list(tokens)) == f"{BOS}the fox"


def test_special_tokens_can_be_left_out(with_bos: LoadedModel) -> None:
    tokens = text_prompt(with_bos, "the fox", add_special_tokens=False).token_ids
    assert with_bos.tokenizer.decode(list(tokens)) == "the fox"


def test_chat_begins_once(with_bos: LoadedModel) -> None:
    [prompt] = PromptBuilder(with_bos).build(GenerationRequest(model="tiny", messages=(USER,)))
    assert with_bos.tokenizer.decode(list(prompt.token_ids)).count(BOS) == 1


def test_empty_text_is_the_beginning(llama: LoadedModel) -> None:
    assert text_prompt(llama, "").token_ids == (llama.tokenizer.bos_token_id,)


def test_token_ids_are_taken_as_they_are(llama: LoadedModel) -> None:
    tokens = tuple(llama.tokenizer("the fox", add_special_tokens=False)["input_ids"])
    prompt = text_prompt(llama, tokens)
    assert (prompt.token_ids, prompt.text, prompt.continues) == (tokens, "the fox", True)


@pytest.mark.parametrize("token", [-1, 340])
def test_token_ids_outside_the_vocabulary_are_refused(llama: LoadedModel, token: int) -> None:
    with pytest.raises(InvalidRequest, match="goes from 0 to 339") as caught:
        text_prompt(llama, (1, token))
    assert caught.value.param == "prompt"


# Models without a chat template


def test_chat_without_a_template_is_lines_and_is_said_once(
    llama: LoadedModel, caplog: pytest.LogCaptureFixture
) -> None:
    builder = PromptBuilder(with_template(llama, None))
    for _ in range(2):
        [prompt] = builder.build(GenerationRequest(model="tiny", messages=(SYSTEM, USER, ASSISTANT, USER)))
    assert prompt.text == "Be brief.\n\nUser: Hi\nAssistant: Hello\nUser: Hi\nAssistant:"
    assert prompt.stops == ("\nUser:",)
    assert caplog.text.count("has no chat template") == 1


@pytest.mark.parametrize(
    ("plain", "text"),
    [
        (LINES, "Be brief.\n\nUser: Hi\nAssistant: Hello\nUser: Hi\nAssistant:"),
        (DIALOGUE, "Be brief.</s>Hi</s>Hello</s>Hi</s>"),
        (BLENDERBOT, " Be brief.   Hi  Hello   Hi"),
        (BLENDERBOT_SMALL, "Be brief.</s> __start__ Hi</s> __start__ Hello</s> __start__ Hi"),
    ],
)
def test_plain_chat_of_a_family(plain: Any, text: str) -> None:
    turns = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Hi")]
    assert plain.write(turns, "</s>") == text


def test_plain_chat_is_chosen_by_model_type() -> None:
    assert plain_chat("gpt2", is_dialogue=True) is DIALOGUE
    assert plain_chat("gpt2", is_dialogue=False) is LINES
    assert plain_chat("blenderbot", is_dialogue=False) is BLENDERBOT


@pytest.mark.parametrize("family", ["gpt2", "blenderbot", "blenderbot_small"])
def test_dialogue_models_get_their_own_form(tiny_model: TinyModel, family: str) -> None:
    loaded = load(ModelSettings(name=family, source=str(tiny_model(family)), device="cpu"), lambda state: None)
    [prompt] = PromptBuilder(loaded).build(GenerationRequest(model="m", messages=(USER, ASSISTANT, USER)))
    if family != "blenderbot_small":
        assert prompt.token_ids[-1] == loaded.tokenizer.eos_token_id
    assert "User:" not in prompt.text


def test_encoder_decoder_reads_as_many_of_the_last_turns_as_fit(tiny_model: TinyModel) -> None:
    loaded = load(ModelSettings(name="b", source=str(tiny_model("blenderbot")), device="cpu"), lambda state: None)
    turns = [{"role": "user", "content": f"{number} {'the fox ' * 8}"} for number in range(40)]
    [prompt] = PromptBuilder(loaded).build(GenerationRequest(model="m", messages=tuple(turns)))
    assert len(prompt.token_ids) <= loaded.context_length
    assert prompt.text.rstrip().endswith(turns[-1]["content"].strip())


def test_tool_messages_are_refused_without_a_template(llama: LoadedModel) -> None:
    with pytest.raises(InvalidRequest, match="'tool'") as caught:
        prompt_of(llama, USER, {"role": "tool", "content": "x"}, template=None)
    assert caught.value.param == "messages[1].role"


@pytest.mark.parametrize("chat", [True, False])
def test_text_of_many_times_the_context_is_refused_without_reading_it_all(llama: LoadedModel, chat: bool) -> None:
    text = "word " * 100_000
    asked: dict[str, Any] = {"messages": ({"role": "user", "content": text},)} if chat else {"prompts": (text,)}
    builder = PromptBuilder(llama)
    read: list[int] = []
    encode = builder._tokenizer

    class Counting:
        def __call__(self, text: str, **options: Any) -> Any:
            read.append(len(text))
            return encode(text, **options)

        def __getattr__(self, name: str) -> Any:
            return getattr(encode, name)

    builder._tokenizer = Counting()  # type: ignore[assignment]
    with pytest.raises(ContextLengthExceeded, match=r"maximum context length is 256 tokens\. .* at least") as caught:
        builder.build(GenerationRequest(model="tiny", **asked))
    assert caught.value.param == ("messages" if chat else "prompt")
    assert sum(read) < len(text) / 10


def test_long_text_of_long_tokens_is_read_to_its_end(llama: LoadedModel) -> None:
    tokenizer = copy.deepcopy(llama.tokenizer)
    tokenizer.add_tokens(["=" * 500])
    builder = PromptBuilder(dataclasses.replace(llama, tokenizer=tokenizer))
    [prompt] = builder.build(GenerationRequest(model="tiny", prompts=("=" * 50_000,)))
    assert 100 <= len(prompt.token_ids) <= 101
