"""Tokens to events: text, stop strings, thinking, tool calls, logprobs; the same however the text is cut."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import pytest
from tiny_models import TinyModel, byte_level_tokenizer

from modelcompose.adapters.base import GenerationRequest, NamedTool, Sampling
from modelcompose.adapters.events import (
    Event,
    Finish,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
)
from modelcompose.adapters.transformers.answer import Answer
from modelcompose.adapters.transformers.detokenize import Vocabulary
from modelcompose.adapters.transformers.load import LoadedModel, load
from modelcompose.adapters.transformers.output import ChoiceOutput, Logprob
from modelcompose.adapters.transformers.prompt import EncodedPrompt
from modelcompose.adapters.transformers.response_formats import FORMATS, ResponseFormat, response_format
from modelcompose.adapters.transformers.settings import ModelSettings

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer"},
                "metric": {"type": "boolean"},
                "tags": {"type": "array"},
            },
        },
    },
}
CALL = ("weather", {"city": "Paris", "days": 2})
OTHER: tuple[str, dict[str, Any]] = ("time", {})


class Said(NamedTuple):
    """What a choice came to."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[tuple[str, Any], ...] = ()


def format_of(name: str) -> ResponseFormat:
    """The format, as it is found for a model whose chat template bears its signs."""
    signs = next(form for form in FORMATS if form.name == name).signs
    tokenizer = byte_level_tokenizer(["<|end|>"], chat_template=" ".join(signs), eos_token="<|end|>")
    found = response_format(tokenizer, Vocabulary(tokenizer))
    assert found is not None
    return found


def chat(**changes: Any) -> GenerationRequest:
    return GenerationRequest(model="m", **{"messages": ({"role": "user", "content": "hi"},), **changes})


def pieces(text: str, size: int) -> Iterator[str]:
    return (text[start : start + size] for start in range(0, len(text), size))


def answer_events(
    form: ResponseFormat | None, text: str, size: int, request: GenerationRequest, prompt: str
) -> list[Event]:
    answer = Answer(request, EncodedPrompt((1,), prompt, "messages"), form, None, 0)
    end, events = 0, []
    for piece in pieces(text, size):
        end += len(piece)
        events += answer.feed(piece, end)
        if answer.is_over:
            break
    return events + answer.finish(end)


def said(events: Iterable[Event]) -> Said:
    text, reasoning = "", ""
    calls: dict[int, tuple[str, str]] = {}
    for event in events:
        match event:
            case TextDelta():
                text += event.text
            case ReasoningDelta():
                reasoning += event.text
            case ToolCallDelta():
                assert bool(event.id) == bool(event.name) == (event.index not in calls)
                name, arguments = calls.get(event.index, (event.name, ""))
                calls[event.index] = (name, arguments + event.arguments)
            case _:
                pass
    return Said(text, reasoning, tuple((name, json.loads(arguments)) for name, arguments in calls.values()))


HERMES_CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris", "days": 2}}\n</tool_call>'
XML_CALL = (
    "<tool_call>\n<function=weather>\n<parameter=city>\nParis\n</parameter>\n<parameter=days>\n2\n</parameter>\n"
    "</function>\n</tool_call>"
)
DEEPSEEK_CALL = (
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n"
    '{"city": "Paris", "days": 2}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>'
)
GEMMA_CALL = '<|channel>thought\nhm<channel|><|tool_call>call:weather{city:<|"|>Paris<|"|>,days:2}<tool_call|>'
SHORT_DEEPSEEK_CALL = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>time<｜tool▁sep｜>{}<｜tool▁call▁end｜>"
OPEN_THINK = "<|im_start|>user\n<tool_call>?<|im_end|>\n<|im_start|>assistant\n<think>\n"
CLOSED_THINK = "<|im_start|>assistant\n<think>\n\n</think>\n\n"
HARMONY = "<|start|>assistant"

TABLE: list[tuple[str, str, str, Said]] = [
    # format, end of the prompt, what the model writes, what it comes to
    ("hermes", "", "Hello <b>there</b>", Said("Hello <b>there</b>")),
    ("hermes", "", "<think>\nhm\n\nso\n</think>\n\nHi", Said("Hi", "hm\n\nso")),
    ("hermes", "", "<think></think>Hi", Said("Hi")),
    ("hermes", OPEN_THINK, "hm\n</think>\n\nHi", Said("Hi", "hm")),
    ("hermes", OPEN_THINK, "never done", Said("", "never done")),
    ("hermes", CLOSED_THINK, "Hi", Said("Hi")),
    ("hermes", "Assistant: <think>\n", "hm</think>Hi", Said("Hi", "hm")),
    ("hermes", "", HERMES_CALL, Said(calls=(CALL,))),
    ("hermes", "", f"I look.\n{HERMES_CALL}\n", Said("I look.\n", calls=(CALL,))),
    ("hermes", "", f"{HERMES_CALL}\n{HERMES_CALL}", Said(calls=(CALL, CALL))),
    ("hermes", "", f"<think>\nhm\n</think>\n\n{HERMES_CALL}", Said("", "hm", (CALL,))),
    ("hermes", "", '<tool_call>{"name": "time"}</tool_call>', Said(calls=(OTHER,))),
    ("hermes", "", '<tool_call>{"name": "time", "arguments": null}</tool_call>', Said(calls=(OTHER,))),
    ("hermes", "", '<tool_call>{"name": "time", "arguments": "{}"}</tool_call>', Said(calls=(OTHER,))),
    ("hermes", "", '<tool_call>{"arguments": {}, "name": "time"}</tool_call>', Said(calls=(OTHER,))),
    ("hermes", "", '<tool_call>{"name": "time", "arguments": {}}}</tool_call>', Said(calls=(OTHER,))),
    (
        "hermes",
        "",
        '<tool_call>{"name": "weather", "arguments": {"city": "a \\"}</b>"}}',
        Said(calls=(("weather", {"city": 'a "}</b>'}),)),
    ),
    ("hermes", "", "a <tool_call>\nbroken\n</tool_call> b", Said("a <tool_call>\nbroken\n</tool_call> b")),
    ("hermes", "", 'x <tool_call>{"name": "we', Said('x <tool_call>{"name": "we')),
    ("hermes", "", '<tool_call>{"name": 3}</tool_call>', Said('<tool_call>{"name": 3}</tool_call>')),
    ("hermes", "", "an open <tool_", Said("an open <tool_")),
    ("qwen3.5", OPEN_THINK, f"hm\n</think>\n\n{XML_CALL}", Said("", "hm", (CALL,))),
    ("qwen3.5", CLOSED_THINK, f"{XML_CALL}\n{XML_CALL}", Said(calls=(CALL, CALL))),
    (
        "qwen3.5",
        CLOSED_THINK,
        (
            "<tool_call>\n<function=weather>\n<parameter=city>\n12\n</parameter>\n<parameter=metric>\nTrue\n</parameter>\n"
            "<parameter=tags>\n[1, 2]\n</parameter>\n<parameter=days>\nmany\n</parameter>\n</function>\n</tool_call>"
        ),
        Said(calls=(("weather", {"city": "12", "metric": True, "tags": [1, 2], "days": "many"}),)),
    ),
    ("llama3", "", '{"name": "weather", "parameters": {"city": "Paris", "days": 2}}', Said(calls=(CALL,))),
    (
        "llama3",
        "",
        '<|python_tag|>{"name": "time", "parameters": {}}; {"name": "time", "parameters": {}}',
        Said(calls=(OTHER, OTHER)),
    ),
    ("llama3", "", '{"answer": 42}', Said('{"answer": 42}')),
    ("llama3", "", 'Use {"name": "time", "parameters": {}}', Said('Use {"name": "time", "parameters": {}}')),
    ("llama3", "", '{"name": "Bob"}', Said('{"name": "Bob"}')),
    (
        "mistral",
        "",
        '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Paris", "days": 2}}]',
        Said(calls=(CALL,)),
    ),
    (
        "mistral",
        "",
        'So:[TOOL_CALLS][{"name": "time", "arguments": {}}, {"name": "time", "arguments": {}}]</s>',
        Said("So:", calls=(OTHER, OTHER)),
    ),
    ("mistral", "", "[THINK]hm[/THINK]Hi", Said("Hi", "hm")),
    (
        "mistral-named",
        "",
        '[TOOL_CALLS]weather[ARGS]{"city": "Paris", "days": 2}[TOOL_CALLS]time[ARGS]{}',
        Said(calls=(CALL, OTHER)),
    ),
    ("deepseek", "<｜Assistant｜><think>\n", f"hm\n</think>\n\n{DEEPSEEK_CALL}", Said("", "hm", (CALL,))),
    ("deepseek", "<｜Assistant｜></think>", SHORT_DEEPSEEK_CALL, Said(calls=(OTHER,))),
    (
        "gpt-oss",
        HARMONY,
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Hi",
        Said("Hi", "hm"),
    ),
    (
        "gpt-oss",
        HARMONY,
        (
            "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary to=functions.weather "
            '<|constrain|>json<|message|>{"city": "Paris", "days": 2}<|call|>'
        ),
        Said("", "hm", (CALL,)),
    ),
    ("gemma4", "<|turn>model\n", GEMMA_CALL, Said("", "hm", (CALL,))),
    (
        "glm",
        "",
        (
            "<think>hm</think>\n<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n"
            "<arg_key>days</arg_key>\n<arg_value>2</arg_value>\n</tool_call>"
        ),
        Said("", "hm", (CALL,)),
    ),
    ("phi4", "", '<|tool_call|>[{"name": "time", "arguments": {}}]<|/tool_call|>', Said(calls=(OTHER,))),
    ("think", "<|assistant|>\n<think>\n", "hm</think>Hi", Said("Hi", "hm")),
    ("mistral-think", "[/INST]", "[THINK]hm[/THINK]Hi", Said("Hi", "hm")),
]


@pytest.mark.parametrize(("name", "prompt", "text", "expected"), TABLE)
def test_answer_is_read_the_same_however_it_is_cut(name: str, prompt: str, text: str, expected: Said) -> None:
    form = format_of(name)
    for size in (*range(1, 12), len(text)):
        assert said(answer_events(form, text, size, chat(tools=(WEATHER,)), prompt)) == expected, size


@pytest.mark.parametrize(
    "changes", [{}, {"tools": (WEATHER,), "tool_choice": "none"}], ids=["no tools", "tool_choice none"]
)
def test_markup_of_calls_is_text_where_no_call_may_be_made(changes: dict[str, Any]) -> None:
    events = answer_events(format_of("hermes"), f"<think>hm</think>{HERMES_CALL}", 3, chat(**changes), "")
    assert said(events) == Said(HERMES_CALL, "hm")


def test_arguments_are_sent_as_they_come() -> None:
    events = answer_events(format_of("hermes"), HERMES_CALL, 4, chat(tools=(WEATHER,)), "")
    deltas = [event for event in events if isinstance(event, ToolCallDelta)]
    assert deltas[0].name == "weather"
    assert deltas[0].id.startswith("call_")
    assert len(deltas) > 5
    assert [delta.id for delta in deltas[1:]] == [""] * (len(deltas) - 1)
    assert "".join(delta.arguments for delta in deltas) == '{"city": "Paris", "days": 2}'


def test_calls_have_ids_of_their_own() -> None:
    events = answer_events(format_of("hermes"), HERMES_CALL * 3, 50, chat(tools=(WEATHER,)), "")
    ids = [event.id for event in events if isinstance(event, ToolCallDelta) and event.id]
    assert len(set(ids)) == 3
    assert {event.index for event in events if isinstance(event, ToolCallDelta)} == {0, 1, 2}


@pytest.mark.parametrize("text", [HERMES_CALL * 2, HERMES_CALL + "\nand more"])
def test_only_one_call_where_parallel_calls_are_off(text: str) -> None:
    request = chat(tools=(WEATHER,), parallel_tool_calls=False)
    for size in range(1, 80, 7):
        assert said(answer_events(format_of("hermes"), text, size, request, "")) == Said(calls=(CALL,))


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("<think>a STOP b</think>one STOP two", "STOP", Said("one ", "a STOP b")),
        ("one ST", "STOP", Said("one ST")),
        (f"one{HERMES_CALL}", "Paris", Said("one", calls=(CALL,))),
    ],
)
def test_stop_strings_cut_the_answer_only(text: str, stop: str, expected: Said) -> None:
    request = chat(tools=(WEATHER,), sampling=Sampling(stop=(stop,)))
    for size in range(1, len(text) + 1):
        assert said(answer_events(format_of("hermes"), text, size, request, "")) == expected


# With a real tokenizer


@pytest.fixture(scope="module")
def qwen3(tiny_model: TinyModel) -> LoadedModel:
    return load(ModelSettings(name="qwen3", source=str(tiny_model("qwen3")), device="cpu"), lambda state: None)


def outputs(
    loaded: LoadedModel, request: GenerationRequest, text: str | Sequence[int], reason: FinishReason = "stop"
) -> list[Event]:
    tokens = loaded.tokenizer(text, add_special_tokens=False)["input_ids"] if isinstance(text, str) else text
    output = ChoiceOutput(loaded, request, EncodedPrompt((1,), "", "messages" if request.is_chat else "prompt"))
    events: list[Event] = []
    for place, token in enumerate(tokens):
        logprob = None if request.logprobs is None else Logprob(-float(place), ((token, -float(place)), (9, -7.0)))
        events += output.feed(token, logprob)
        if output.stopped:
            break
    return events + output.finish(reason)


def test_characters_of_several_tokens_come_out_whole(qwen3: LoadedModel) -> None:
    text = "naïve 你好，世界 👩‍👩‍👧 ende"
    tokens = qwen3.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(tokens) > len(text)
    deltas = [event.text for event in outputs(qwen3, chat(), text) if isinstance(event, TextDelta)]
    assert "".join(deltas) == text
    assert not any("\N{REPLACEMENT CHARACTER}" in delta for delta in deltas)


def test_character_that_is_never_finished_is_marked_at_the_end(qwen3: LoadedModel) -> None:
    tokens = qwen3.tokenizer("a你", add_special_tokens=False)["input_ids"][:-1]
    assert said(outputs(qwen3, chat(), tokens)).text == "a\N{REPLACEMENT CHARACTER}"


def test_special_tokens_are_never_shown(qwen3: LoadedModel) -> None:
    assert said(outputs(qwen3, chat(), "a<|im_start|>b<|im_end|><|endoftext|>")).text == "ab"
    assert said(outputs(qwen3, GenerationRequest(model="m", prompts=("x",)), "a<|im_end|>b")).text == "ab"


def test_stop_string_that_is_a_special_token_stops(qwen3: LoadedModel) -> None:
    request = chat(sampling=Sampling(stop=("<|im_start|>",)))
    assert said(outputs(qwen3, request, "one<|im_start|>two")).text == "one"


def test_text_completion_is_not_read_for_thinking_or_calls(qwen3: LoadedModel) -> None:
    text = f"<think>hm</think>{HERMES_CALL}"
    request = GenerationRequest(model="m", prompts=("x",), tools=(WEATHER,))
    assert said(outputs(qwen3, request, text)) == Said(text)


@pytest.mark.parametrize(
    ("text", "reason", "expected"),
    [
        ("Hi", "stop", "stop"),
        ("Hi", "length", "length"),
        (HERMES_CALL, "stop", "tool_calls"),
        (HERMES_CALL, "length", "length"),
    ],
)
def test_finish_reason(qwen3: LoadedModel, text: str, reason: FinishReason, expected: str) -> None:
    assert outputs(qwen3, chat(tools=(WEATHER,)), text, reason)[-1] == Finish(expected)  # type: ignore[arg-type]


def test_forced_call_is_a_call(qwen3: LoadedModel) -> None:
    request = chat(tools=(WEATHER,), tool_choice=NamedTool("weather"))
    assert said(outputs(qwen3, request, HERMES_CALL)).calls == (CALL,)


def test_tokens_of_the_thinking_are_counted_with_their_marks(qwen3: LoadedModel) -> None:
    output = ChoiceOutput(qwen3, chat(), EncodedPrompt((1,), "", "messages"))
    thinking, answer = (
        qwen3.tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("<think>hm so</think>", "Hello")
    )
    for token in (*thinking, *answer):
        output.feed(token)
    assert output.reasoning_tokens == len(thinking)


def shown(events: Iterable[Event]) -> Iterator[tuple[str, tuple[TokenLogprob, ...]]]:
    for event in events:
        if isinstance(event, TextDelta | ReasoningDelta):
            assert event.logprobs is not None
            yield event.text, event.logprobs


@pytest.mark.parametrize(
    ("text", "stop"),
    [
        ("hello, how are you?", ()),
        ("你好 ab", ()),
        ("hello STO more", ("STOP",)),
        ("one<|im_start|> two", ()),
        ("<think>how so</think>\n\nhello", ()),
        ("the fox jumps", ("jum",)),
    ],
)
def test_logprobs_come_with_the_text_they_belong_to(qwen3: LoadedModel, text: str, stop: tuple[str, ...]) -> None:
    events = outputs(qwen3, chat(logprobs=1, sampling=Sampling(stop=stop)), text)
    showed, tokens = "", ""
    for delta, logprobs in shown(events):
        showed += delta
        tokens += b"".join(logprob.raw for logprob in logprobs if not logprob.token.startswith("<|")).decode()
        assert tokens.startswith(showed), "a token comes with the first of its text"
    assert tokens.rstrip() == showed or stop


@pytest.mark.parametrize(("text", "tokens"), [("the lazy dog", "the lazy d"), ("the dog", "the d")])
def test_logprobs_end_with_the_token_that_a_stop_string_cuts(qwen3: LoadedModel, text: str, tokens: str) -> None:
    events = outputs(qwen3, chat(logprobs=0, sampling=Sampling(stop=("dog",))), text)
    assert "".join(logprob.token for _, logprobs in shown(events) for logprob in logprobs) == tokens


def test_likeliest_tokens_are_told_by_name(qwen3: LoadedModel) -> None:
    [(_, [first, *_])] = list(shown(outputs(qwen3, chat(logprobs=2), "the")))[:1]
    assert first.logprob == 0.0
    assert [(top.logprob) for top in first.top] == [0.0, -7.0]
    assert first.top[0].token == first.token


def test_echo_is_the_prompt_with_its_logprobs(qwen3: LoadedModel) -> None:
    tokens = tuple(qwen3.tokenizer("the fox", add_special_tokens=False)["input_ids"])
    request = GenerationRequest(model="m", prompts=("the fox",), echo=True, logprobs=0)
    output = ChoiceOutput(qwen3, request, EncodedPrompt(tokens, "the fox", "prompt", continues=True))
    [event] = output.echo([Logprob(None), *(Logprob(-1.0) for _ in tokens[1:])])
    assert isinstance(event, TextDelta)
    assert event.text == "the fox"
    assert event.logprobs is not None
    assert [logprob.logprob for logprob in event.logprobs] == [None, *[-1.0] * (len(tokens) - 1)]


def test_unusable_response_template_of_a_tokenizer_falls_back_to_the_table(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = byte_level_tokenizer(["<|end|>"], chat_template="<think>", eos_token="<|end|>")
    tokenizer.response_template = {"fields": {}}
    found = response_format(tokenizer, Vocabulary(tokenizer))
    assert found is not None
    assert found.thinking_marks == ("<think>", "</think>")
    assert "response_template is not usable" in caplog.text


def test_response_template_of_the_tokenizer_comes_first() -> None:
    tokenizer = byte_level_tokenizer(["<|end|>"], chat_template="<think>", eos_token="<|end|>")
    tokenizer.response_template = {
        "start_anchor": "A:",
        "fields": {"thinking": {"open": "((", "close": "))"}, "content": {}},
    }
    found = response_format(tokenizer, Vocabulary(tokenizer))
    assert said(answer_events(found, "((hm))Hi <think>", 1, chat(), "A:")) == Said("Hi <think>", "hm")


def test_model_without_marks_has_no_format() -> None:
    tokenizer = byte_level_tokenizer(["<|end|>"], chat_template="{{ messages }}", eos_token="<|end|>")
    assert response_format(tokenizer, Vocabulary(tokenizer)) is None
