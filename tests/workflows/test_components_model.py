"""Model components: messages, prompts, parameters, and what their answers become."""

from __future__ import annotations

from typing import Any

import pytest
from composing import asks, chat, one, text, value_of
from scripted import ScriptedAdapter, Step, says

from modelcompose.adapters.base import GenerationRequest, Sampling
from modelcompose.adapters.errors import InvalidRequest, ModelUnavailable
from modelcompose.adapters.events import Finish, TextDelta, ToolCallDelta, Usage
from modelcompose.workflows.components.params import honour


def adapter() -> ScriptedAdapter:
    return ScriptedAdapter({"m": says("Hel", "lo")})


async def asked(component: dict[str, Any], given: Any) -> GenerationRequest:
    """What the model is asked when the component is called with this input."""
    scripts = adapter()
    await value_of(one(component), given, scripts)
    return scripts.requests[0]


async def test_a_chat_gives_its_text() -> None:
    assert await value_of(one(chat()), {"prompt": "Hi"}, adapter()) == "Hello"


async def test_a_system_message_without_content_is_left_out() -> None:
    request = await asked(chat(), {"prompt": "Hi"})
    assert request.messages == ({"role": "user", "content": "Hi"},)
    request = await asked(chat(), {"prompt": "Hi", "system_prompt": ""})
    assert request.messages[0] == {"role": "system", "content": ""}


async def test_a_conversation_is_spliced_into_the_messages() -> None:
    turns = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}, {"role": "user", "content": "3"}]
    messages = [{"role": "system", "content": "S"}, "${input.messages}", {"role": "user", "content": "${input.more}"}]
    request = await asked(chat(messages=messages), {"messages": turns, "more": "4"})
    assert request.messages == ({"role": "system", "content": "S"}, *turns, {"role": "user", "content": "4"})


@pytest.mark.parametrize("messages", ["${input.messages}", ["${input.messages}"]])
async def test_messages_may_be_one_template(messages: Any) -> None:
    turns = [{"role": "user", "content": "1"}, {"role": "assistant", "content": None, "tool_calls": [{"id": "c"}]}]
    assert (await asked(chat(messages=messages), {"messages": turns})).messages == tuple(turns)


async def test_messages_may_be_one_message() -> None:
    request = await asked(chat(messages={"role": "user", "content": "${input.n}"}), {"n": 5})
    assert request.messages == ({"role": "user", "content": "5"},)


async def test_parts_of_a_content_stay_parts() -> None:
    parts = [{"type": "image_url", "image_url": {"url": "data:,"}}]
    assert (await asked(chat(), {"prompt": parts})).messages[0]["content"] == parts


async def test_no_user_message_is_a_missing_input() -> None:
    messages = [{"role": "system", "content": "${input.a}"}, {"role": "user", "content": "${input.turns[0].said}"}]
    with pytest.raises(InvalidRequest, match=r"turns\[0\]\.said") as caught:
        await value_of(one(chat(messages=messages)), {"turns": []}, adapter())
    assert caught.value.param == "turns[0].said"


async def test_a_message_must_be_one() -> None:
    with pytest.raises(InvalidRequest, match="'role'"):
        await value_of(one(chat(messages="${input.messages}")), {"messages": ["Hi"]}, adapter())


async def test_parameters_reach_the_model() -> None:
    params = {
        "max_length": 2048,
        "max_output_length": "${input.max as integer | 64}",
        "min_output_length": 2,
        "temperature": "${input.temperature as number | 0.7}",
        "top_p": 0.9,
        "top_k": 50,
        "repetition_penalty": 1.1,
        "seed": "${input.seed}",
        "do_sample": True,
        "pad_token_id": 50256,
        "stop_sequences": ["\n", "END"],
    }
    request = await asked(chat(params=params), {"prompt": "Hi", "seed": "7"})
    assert request.sampling == Sampling(
        max_length=2048,
        is_cut_to_fit=True,
        max_tokens=64,
        min_tokens=2,
        temperature=0.7,
        top_p=0.9,
        top_k=50,
        repetition_penalty=1.1,
        seed=7,
        stop=("\n", "END"),
    )


async def test_not_sampling_is_greedy_whatever_the_temperature() -> None:
    request = await asked(
        chat(params={"do_sample": "${input.sample}", "temperature": 0.7}), {"prompt": "", "sample": False}
    )
    assert request.sampling.temperature == 0


@pytest.mark.parametrize(
    ("params", "given", "words"),
    [
        ({"temperature": "${input.t}"}, "warm", r"'input.t' must be a number, not 'warm'"),
        ({"temperature": "${input.t}"}, -1, r"'input.t' must be between 0 and 100, not -1"),
        ({"top_k": "${input.t}"}, 1.5, r"'input.t' must be an integer, not '1.5'"),
        ({"stop_sequences": "${input.t}"}, {"a": 1}, "'stop_sequences' must be a text or a list"),
        ({"do_sample": "${input.t}"}, "perhaps", "'input.t' must be a boolean"),
    ],
)
async def test_a_wrong_parameter_is_named(params: dict[str, Any], given: Any, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        await value_of(one(chat(params=params)), {"prompt": "Hi", "t": given}, adapter())


async def test_a_value_with_a_reference_in_it_is_left_as_it_is() -> None:
    request = await asked(chat(params={"stop_sequences": "${input.stop}"}), {"prompt": "${input.x}", "stop": "${y}"})
    assert request.messages[0]["content"] == "${input.x}"
    assert request.sampling.stop == ("${y}",)


async def test_tools_of_the_action_reach_the_model_and_calls_come_back() -> None:
    tool = {"type": "function", "function": {"name": "now", "parameters": {}}}
    script: list[Step] = [
        ToolCallDelta(0, "c1", "now"),
        ToolCallDelta(0, arguments="{}"),
        Finish("tool_calls"),
        Usage(1, 1),
    ]
    scripts = ScriptedAdapter({"m": script})
    value = await value_of(one(chat(tools=[tool])), {"prompt": "Hi"}, scripts)
    assert scripts.requests[0].tools == (tool,)
    assert value["tool_calls"] == [{"id": "c1", "type": "function", "function": {"name": "now", "arguments": "{}"}}]


async def test_several_answers_are_a_list() -> None:
    script: list[Step] = [TextDelta("b", 1), TextDelta("a", 0), Finish("stop", 0), Finish("stop", 1), Usage(1, 2)]
    scripts = ScriptedAdapter({"m": script})
    assert await value_of(one(chat(params={"num_return_sequences": 2})), {"prompt": "Hi"}, scripts) == ["a", "b"]
    assert scripts.requests[0].n == 2


async def test_a_text_begins_with_its_prompt_unless_told_otherwise() -> None:
    assert await value_of(one(text()), {"prompt": "Once "}, adapter()) == "Once Hello"
    assert await value_of(one(text(echo=False)), {"prompt": "Once "}, adapter()) == "Hello"
    assert await value_of(one(text(echo="${input.whole}")), {"prompt": "Once "}, adapter()) == "Once Hello"


def each_prompt(request: GenerationRequest) -> list[Step]:
    count = len(request.prompts) * request.n
    return [*(TextDelta(str(n), n) for n in range(count)), *(Finish("stop", n) for n in range(count)), Usage(1, 1)]


@pytest.mark.parametrize(
    ("prompts", "n", "value"),
    [
        (["a", "b"], 1, ["a0", "b1"]),
        (["a"], 1, ["a0"]),
        (["a", "b"], 2, [["a0", "a1"], ["b2", "b3"]]),
        ("a", 2, ["a0", "a1"]),
    ],
)
async def test_a_list_of_prompts_gives_a_list(prompts: Any, n: int, value: Any) -> None:
    scripts = ScriptedAdapter({"m": each_prompt})
    form = one(text(params={"num_return_sequences": n}))
    assert await value_of(form, {"prompt": prompts}, scripts) == value


async def test_no_prompt_is_a_missing_input() -> None:
    with pytest.raises(InvalidRequest, match="'prompt'") as caught:
        await value_of(one(text()), {}, adapter())
    assert caught.value.param == "prompt"


async def test_a_model_that_no_server_has_told_of_is_named() -> None:
    with pytest.raises(ModelUnavailable, match="'nobody'"):
        await value_of(one(chat("nobody")), {"prompt": "Hi"}, adapter())


def test_a_clients_wishes_fill_what_the_action_leaves_open() -> None:
    own = GenerationRequest(model="m", sampling=Sampling(temperature=0.2, max_tokens=100, stop=("A",)))
    wishes = asks(
        "Hi", n=2, logprobs=1, sampling=Sampling(temperature=1.5, max_tokens=10, top_p=0.5, seed=1, stop=("B", "A"))
    )
    made = honour(own, wishes)
    assert made.sampling == Sampling(temperature=0.2, max_tokens=10, top_p=0.5, seed=1, stop=("A", "B"))
    assert (made.model, made.n, made.logprobs) == ("m", 2, 1)


def test_the_body_s_input_and_metadata_do_not_go_on_to_the_model() -> None:
    own = GenerationRequest(model="m")
    assert honour(own, asks("Hi", extra={"input": {}, "metadata": {}, "vendor": 1})).extra == {"vendor": 1}
