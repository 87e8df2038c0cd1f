"""A workflow as a model: what a request becomes, and what the client sees."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import pytest
from composing import answer, asks, chat, echoing, events_of, one, runner, text
from scripted import ScriptedAdapter, Step, says
from upstream import deltas, replies, streams, upstream

from modelcompose.adapters.base import (
    ChoiceConstraint,
    GenerationRequest,
    JsonConstraint,
    Message,
    ModelCard,
    ModelState,
    NamedTool,
    Sampling,
)
from modelcompose.adapters.errors import ContextLengthExceeded, InvalidRequest, ModelUnavailable, UnsupportedParameter
from modelcompose.adapters.events import (
    Accepted,
    Event,
    Finish,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    Usage,
    collect,
)
from modelcompose.workflows.model import workflow_models

USER = [{"role": "user", "content": "${input.user_prompt}"}]
SEED = [{"role": "system", "content": "${input.system_prompt}"}, *USER]
TOOL = {"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}
TURNS: tuple[Message, ...] = (
    {"role": "system", "content": "Be brief."},
    {"role": "developer", "content": "Be kind."},
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": "1."},
    {"role": "user", "content": "Two?"},
    {"role": "assistant", "content": "2."},
    {"role": "user", "content": [{"type": "text", "text": "Three"}, {"type": "text", "text": "?"}]},
)


def steps(*jobs: dict[str, Any], **workflow: Any) -> dict[str, Any]:
    return {"components": [chat(messages=USER)], "workflows": [{"id": "w", "jobs": list(jobs), **workflow}]}


def two(**workflow: Any) -> dict[str, Any]:
    return steps(
        {"id": "draft", "input": {"user_prompt": "${input.question}"}},
        {"id": "final", "input": {"user_prompt": "better: ${jobs.draft.output}"}},
        **workflow,
    )


async def asked(form: dict[str, Any], request: GenerationRequest) -> GenerationRequest:
    """What the last model call is asked when the workflow gets this request."""
    scripts = ScriptedAdapter({"m": says("a")})
    await answer(form, scripts, request)
    return scripts.requests[-1]


def spoken(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


# The request becomes the input ---------------------------------------------------------------------------------------


async def test_the_seeds_workflow_gets_the_system_prompt_and_the_last_turn() -> None:
    request = await asked(one(chat(messages=SEED)), asks(TURNS))
    assert request.messages == (
        {"role": "system", "content": "Be brief.\n\nBe kind."},
        {"role": "user", "content": "Three\n?"},
    )


async def test_messages_are_the_whole_conversation() -> None:
    long = tuple({"role": ("user", "assistant")[n % 2], "content": str(n)} for n in range(41))
    assert (await asked(one(chat(messages="${input.messages}")), asks(long))).messages == long


async def test_the_history_is_the_turns_before_the_last() -> None:
    messages = [
        {"role": "user", "content": "${input.conversation_history[0].content}"},
        {"role": "assistant", "content": "${input.conversation_history[0].response}"},
        {"role": "assistant", "content": "${input.conversation_history[-1].response}"},
        *USER,
    ]
    request = await asked(one(chat(messages=messages)), asks(TURNS))
    assert [message["content"] for message in request.messages] == ["One?", "1.", "2.", "Three\n?"]
    request = await asked(one(chat(messages=messages)), asks("Hi"))
    assert request.messages == ({"role": "user", "content": "Hi"},)


@pytest.mark.parametrize("name", ["prompt", "user_prompt", "question", "user-prompt"])
async def test_the_last_turn_is_the_prompt_or_the_only_input_left(name: str) -> None:
    content = f'${{input["{name}"]}} in ${{input.language | English}}'
    messages = [{"role": "user", "content": content}]
    assert (await asked(one(chat(messages=messages)), asks("Hi"))).messages[0]["content"] == "Hi in English"


async def test_what_is_still_missing_is_named() -> None:
    messages = [{"role": "user", "content": "${input.topic} in ${input.language}"}]
    scripts = ScriptedAdapter({"m": says("a")})
    with pytest.raises(InvalidRequest, match="'topic' and 'language'") as caught:
        await answer(one(chat(messages=messages)), scripts, asks("Hi"))
    assert caught.value.param == "topic"
    request = asks("cats", extra={"input": {"language": "Greek"}})
    assert (await asked(one(chat(messages=messages)), request)).messages[0]["content"] == "cats in Greek"
    request = asks("cats", extra={"metadata": {"language": "Greek", "other": "x"}})
    assert (await asked(one(chat(messages=messages)), request)).messages[0]["content"] == "cats in Greek"


async def test_a_conversation_without_a_user_is_missing_its_prompt() -> None:
    with pytest.raises(InvalidRequest, match="'user_prompt'"):
        await asked(one(chat(messages=SEED)), asks(({"role": "system", "content": "x"},)))


async def test_an_input_named_like_a_parameter_gets_it() -> None:
    params = {"temperature": "${input.temperature as number | 0.7}", "max_output_length": "${input.max_tokens | 100}"}
    form = one(chat(messages=USER, params=params))
    sampling = (await asked(form, asks("Hi", sampling=Sampling(temperature=0.1, max_tokens=5)))).sampling
    assert (sampling.temperature, sampling.max_tokens) == (0.1, 5)
    sampling = (await asked(form, asks("Hi"))).sampling
    assert (sampling.temperature, sampling.max_tokens) == (0.7, 100)


async def test_an_explicit_mapping_sees_messages_request_and_metadata() -> None:
    mapping = {
        "customer_question": "${messages[-1].content}",
        "temperature": "${request.temperature | 0.2}",
        "format": "${request.response_format.type}",
        "who": "${metadata.who}",
    }
    form = one(
        chat(
            messages=[{"role": "user", "content": "${input.user_prompt} (${input.who}, ${input.format})"}],
            params={"temperature": "${input.temperature | 0.7}"},
        ),
        input={"user_prompt": "Q: ${input.customer_question}"},
        openai={"model": "support", "input": mapping},
    )
    request = asks(TURNS, constraint=JsonConstraint(), extra={"metadata": {"who": "me"}})
    got = await asked(form, request)
    assert got.messages[0]["content"] == "Q: Three\n? (me, json_object)"
    assert got.sampling.temperature == 0.2


async def test_a_text_completion_is_a_conversation_of_one_turn() -> None:
    request = GenerationRequest(model="w", prompts=("Hi",))
    assert (await asked(one(chat(messages=SEED)), request)).messages == ({"role": "user", "content": "Hi"},)
    assert (await asked(one(text()), request)).prompts == ("Hi",)
    assert (await asked(one(text()), asks(TURNS))).prompts == ("Three\n?",)


async def test_token_ids_are_refused() -> None:
    with pytest.raises(UnsupportedParameter, match="'prompt'"):
        await asked(one(text()), GenerationRequest(model="w", prompts=((1, 2),)))


# The output becomes the answer ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "workflow",
    [
        {},
        {"output": {"generated": "${output}"}},
        {"output": {"generated": "${output}", "topic": "${input.user_prompt}"}},
        {"output": {"said": "${output as text}"}},
        {"output": {"a": {"b": "${output}"}}, "openai": {"output": "${output.a.b}"}},
        {"output": {"a": {"b": "${output}"}}, "openai": {"output": "${jobs.default.output}"}},
        {"output": "${output as stream/text}"},
    ],
)
async def test_the_models_own_events_come_through(workflow: dict[str, Any]) -> None:
    logprobs = (TokenLogprob("a", -0.5, b"a"),)
    own: list[Event] = [
        Accepted(),
        ReasoningDelta("hm"),
        TextDelta("a", logprobs=logprobs),
        ToolCallDelta(0, "c", "now"),
        Finish("length"),
    ]
    scripts = ScriptedAdapter({"m": [*own, Usage(5, 3, cached_tokens=2)]})
    events = await answer(one(chat(messages=USER), **workflow), scripts, asks("Hi"))
    assert events == [*own, Usage(5, 3, cached_tokens=2)]


@pytest.mark.parametrize(
    ("workflow", "said"),
    [
        ({"output": "It said: ${output}"}, "It said: ab"),
        ({"output": {"n": 1, "words": "say ${output}"}}, "say ab"),
        ({"output": {"x": "${output}", "y": "${input.user_prompt}"}}, '{"x": "ab", "y": "Hi"}'),
        ({"output": ["${output}"]}, '["ab"]'),
        ({"output": {"n": 5}}, '{"n": 5}'),
        ({"output": "${input.nothing}"}, ""),
        ({"output": {"a": "${output}", "b": 1}, "openai": {"output": "${output.b}"}}, "1"),
        ({"output": "x${output}", "openai": {"output": "${jobs.default.output} ${input.user_prompt}"}}, "ab Hi"),
        ({"output": {"a": 1}, "openai": {"output": "${jobs.default.output}"}}, "ab"),
    ],
)
async def test_other_outputs_are_one_delta(workflow: dict[str, Any], said: str) -> None:
    scripts = ScriptedAdapter({"m": says("a", "b")})
    events = await answer(one(chat(messages=USER), **workflow), scripts, asks("Hi"))
    assert events == [TextDelta(said), Finish("stop"), Usage(3, 2)]


async def test_a_completion_does_not_repeat_the_prompt_unless_asked() -> None:
    scripts = ScriptedAdapter({"m": echoing})
    form = one(text(), output={"generated": "${output}"})
    completion = GenerationRequest(model="w", prompts=("Hi",))
    assert spoken(await answer(form, scripts, completion)) == "You said: Hi"
    assert not scripts.requests[-1].echo
    await answer(form, scripts, GenerationRequest(model="w", prompts=("Hi",), echo=True))
    assert scripts.requests[-1].echo


async def test_several_prompts_are_answered_in_order() -> None:
    def script(request: GenerationRequest) -> Iterator[Step]:
        for choice in range(request.n):
            yield TextDelta(f"{request.prompts[0]!s}{choice}", choice)
        for choice in range(request.n):
            yield Finish("stop", choice)
        yield Usage(1, request.n)

    request = GenerationRequest(model="w", prompts=("a", "b"), n=2)
    events = await answer(one(text()), ScriptedAdapter({"m": script}), request)
    assert [type(event) for event in events].count(Usage) == 1
    completion = await collect(replayed(events))
    assert [choice.text for choice in completion.choices] == ["a0", "a1", "b0", "b1"]
    assert all(choice.finish_reason == "stop" for choice in completion.choices)
    assert completion.usage == Usage(2, 4)


async def replayed(events: list[Event]) -> Any:
    for event in events:
        yield event


async def test_an_upstream_servers_stream_is_handed_on_as_it_comes() -> None:
    more = asyncio.Event()
    async with upstream(streams(*deltas("a"), more, *deltas("b"))) as server:
        action = {"stream_format": "json", "output": "${response[].choices[0].delta.content}", "body": {}}
        component = {"type": "http-client", "base_url": server.url, "actions": [action]}
        async with runner(one(component, output="${output as text;sse-text}")) as opened:
            (model,) = workflow_models(opened)
            events = model.generate(asks("Hi"))
            assert await anext(events) == TextDelta("a")
            more.set()
            assert [event async for event in events] == [TextDelta("b"), Finish("stop"), Usage(0, 0)]


@pytest.mark.parametrize(
    ("said", "told"),
    [("length", "length"), ("content_filter", "content_filter"), ("tool_calls", "stop"), (None, "stop")],
)
async def test_why_an_upstream_servers_stream_ended_is_handed_on(said: str | None, told: str) -> None:
    last = json.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": said}]})
    async with upstream(streams(*deltas("a"), f"data: {last}\n\ndata: [DONE]\n\n".encode())) as server:
        action = {"stream_format": "json", "output": "${response[].choices[0].delta.content}", "body": {}}
        component = {"type": "http-client", "base_url": server.url, "actions": [action]}
        async with runner(one(component, output={"generated": "${output as text}"})) as opened:
            (model,) = workflow_models(opened)
            events = [event async for event in model.generate(asks("Hi"))]
    assert [event.reason for event in events if isinstance(event, Finish)] == [told]


@pytest.mark.parametrize(("said", "told"), [("length", "length"), ("tool_calls", "stop"), (None, "stop")])
async def test_why_an_upstream_servers_whole_answer_ended_is_handed_on(said: str | None, told: str) -> None:
    body = {"choices": [{"message": {"content": "a"}, "finish_reason": said}]}
    async with upstream(replies(body)) as server:
        action = {"output": "${response.choices[0].message.content}", "body": {}}
        component = {"type": "http-client", "base_url": server.url, "actions": [action]}
        async with runner(one(component)) as opened:
            (model,) = workflow_models(opened)
            assert (await events_of(model, asks("Hi")))[-2:] == [Finish(told), Usage(0, 0)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (one(chat(messages=USER, output="${item}")), "ab"),
        (one(chat(messages=USER, output="<${result[]}>")), "<a><b>"),
        (one(chat(messages=USER), output="Answer: ${output}"), "Answer: ab"),
        (one(chat(messages=USER), openai={"output": "Said: ${output}"}), "Said: ab"),
        (
            {
                "components": [chat(messages=USER, output="${item}"), {"id": "call", "type": "workflow"}],
                "workflows": [
                    {"id": "w", "jobs": [{"component": "call"}], "output": "Answer: ${output}"},
                    {"id": "inner", "default": True, "jobs": [{"component": "m"}]},
                ],
            },
            "Answer: ab",
        ),
    ],
)
async def test_why_a_model_ended_is_told_whatever_becomes_of_its_words(form: dict[str, Any], words: str) -> None:
    scripts = ScriptedAdapter({"m": [TextDelta("a"), TextDelta("b"), Finish("length"), Usage(1, 2)]})
    events = await answer(form, scripts, asks("Hi"))
    assert spoken(events) == words
    assert [event for event in events if isinstance(event, Finish)] == [Finish("length")]


async def test_why_the_last_model_ended_says_nothing_of_another_jobs_words() -> None:
    def script(request: GenerationRequest) -> list[Step]:
        is_last = request.messages[0]["content"].startswith("better")
        return [TextDelta("b"), Finish("length"), Usage(1, 1)] if is_last else says("first")

    form = two(output="${jobs.draft.output}!")
    events = await answer(form, ScriptedAdapter({"m": script}), asks("Hi"))
    assert (spoken(events), events[-2]) == ("first!", Finish("stop"))


# Several jobs ---------------------------------------------------------------------------------------------------------


async def test_the_last_jobs_first_token_comes_while_its_model_still_speaks() -> None:
    more = asyncio.Event()

    def script(request: GenerationRequest) -> list[Step]:
        is_last = request.messages[0]["content"].startswith("better")
        return [TextDelta("fi"), more, *says("nal")] if is_last else says("first")

    scripts = ScriptedAdapter({"m": script})
    async with runner(two(), scripts) as opened:
        (model,) = workflow_models(opened)
        events = model.generate(asks("why"))
        async with asyncio.timeout(5):
            assert [await anext(events), await anext(events)] == [Accepted(), TextDelta("fi")]
            more.set()
            assert [event async for event in events] == [TextDelta("nal"), Finish("stop"), Usage(6, 2)]
    assert scripts.requests[1].messages[0]["content"] == "better: first"


async def test_the_earlier_jobs_are_shown_as_reasoning() -> None:
    more = asyncio.Event()

    def script(request: GenerationRequest) -> list[Step]:
        is_last = request.messages[0]["content"].startswith("better")
        return says("final") if is_last else [TextDelta("fir"), more, *says("st")]

    async with runner(two(openai={"show_jobs": True}), ScriptedAdapter({"m": script})) as opened:
        (model,) = workflow_models(opened)
        events = model.generate(asks("why"))
        assert [await anext(events), await anext(events)] == [Accepted(), ReasoningDelta("draft:\nfir")]
        more.set()
        rest = [event async for event in events]
    assert rest == [ReasoningDelta("st"), ReasoningDelta("\n\n"), TextDelta("final"), Finish("stop"), Usage(6, 2)]


async def test_jobs_at_the_same_time_are_shown_one_after_the_other() -> None:
    a, b = asyncio.Event(), asyncio.Event()

    def script(request: GenerationRequest) -> list[Step]:
        match request.messages[0]["content"]:
            case "A":
                return [TextDelta("a1"), a, *says("a2")]
            case "B":
                return [0.01, *says("b1", "b2"), b]
            case _:
                return says("end")

    form = steps(
        {"id": "a", "input": {"user_prompt": "A"}},
        {"id": "b", "input": {"user_prompt": "B"}},
        {"id": "n", "component": "sh"},
        {"id": "c", "depends_on": ["n"], "input": {"user_prompt": "${jobs.a.output} ${jobs.b.output}"}},
        openai={"show_jobs": True},
    )
    form["components"][0]["default"] = True
    form["components"].append({"id": "sh", "type": "shell", "actions": [{"command": "sleep 0.1; echo hi"}]})
    async with runner(form, ScriptedAdapter({"m": script})) as opened:
        (model,) = workflow_models(opened)
        asyncio.get_running_loop().call_later(0.05, b.set)
        asyncio.get_running_loop().call_later(0.3, a.set)
        events = await events_of(model, asks("go"))
    shown = "".join(event.text for event in events if isinstance(event, ReasoningDelta))
    assert shown.startswith("a:\na1a2\n\nb:\nb1b2\n\nn:\n")
    assert '"hi\\n"' in shown
    assert spoken(events) == "end"


async def test_leaving_ends_the_running_job() -> None:
    scripts_of_both: list[list[Step]] = [[asyncio.Event()], [TextDelta("x"), asyncio.Event()]]
    for pieces in scripts_of_both:
        scripts = ScriptedAdapter({"m": pieces})
        async with runner(two(openai={"show_jobs": True}), scripts) as opened:
            (model,) = workflow_models(opened)
            events = model.generate(asks("why"))
            async with aclosing(events):  # type: ignore[type-var]
                first = asyncio.ensure_future(anext(events))
                await asyncio.sleep(0.01)
                if first.done():
                    assert first.result() == Accepted()
                else:
                    first.cancel()
                    await asyncio.wait({first})
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert model.cards()[0].counters.cancelled == 1
            assert model.cards()[0].counters.running == 0
        assert scripts.closed_early == 1


async def test_leaving_in_the_middle_of_the_answer_ends_the_model_call() -> None:
    scripts = ScriptedAdapter({"m": [TextDelta("a"), asyncio.Event()]})
    async with runner(one(chat(messages=USER)), scripts) as opened:
        (model,) = workflow_models(opened)
        async with aclosing(model.generate(asks("Hi"))) as events:  # type: ignore[type-var]
            assert await anext(events) == TextDelta("a")
        assert asyncio.all_tasks() == {asyncio.current_task()}
    assert scripts.closed_early == 1


# Refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [ContextLengthExceeded("too long", param="messages"), ModelUnavailable("loading", retry_after=2)]
)
async def test_what_the_only_model_refuses_is_a_refusal(error: Exception) -> None:
    scripts = ScriptedAdapter({"m": [error]})
    async with runner(one(chat(messages=USER)), scripts) as opened:
        (model,) = workflow_models(opened)
        with pytest.raises(type(error)) as caught:
            await anext(model.generate(asks("Hi")))
        assert caught.value is error


async def test_what_the_first_model_refuses_is_a_refusal_that_names_the_job() -> None:
    scripts = ScriptedAdapter({"m": [ModelUnavailable("loading", retry_after=2)]})
    async with runner(two(), scripts) as opened:
        (model,) = workflow_models(opened)
        with pytest.raises(ModelUnavailable, match="job 'draft': loading") as caught:
            await anext(model.generate(asks("Hi")))
        assert caught.value.retry_after == 2


async def test_what_a_later_job_refuses_comes_in_mid_stream() -> None:
    def script(request: GenerationRequest) -> list[Step]:
        is_last = request.messages[0]["content"].startswith("better")
        return [ContextLengthExceeded("too long")] if is_last else says("first")

    async with runner(two(), ScriptedAdapter({"m": script})) as opened:
        (model,) = workflow_models(opened)
        events = model.generate(asks("Hi"))
        assert await anext(events) == Accepted()
        with pytest.raises(ContextLengthExceeded, match="job 'final': too long"):
            await anext(events)


WISHES: dict[str, dict[str, Any]] = {
    "tools": {"tools": (TOOL,), "tool_choice": NamedTool("now")},
    "response_format": {"constraint": ChoiceConstraint(("a", "b"))},
    "stop": {"sampling": Sampling(stop=("END",))},
    "logprobs": {"logprobs": 2},
    "n": {"n": 2},
    "logit_bias": {"sampling": Sampling(logit_bias={1: 5.0})},
}


@pytest.mark.parametrize("wish", WISHES)
async def test_wishes_go_to_the_last_model_call_whose_answer_is_handed_on(wish: str) -> None:
    script: list[Step] = [TextDelta("a"), TextDelta("b", 1), Finish("stop"), Finish("stop", 1), Usage(1, 2)]
    scripts = ScriptedAdapter({"m": lambda request: script if request.n == 2 else says("a")})
    request = asks("Hi", **WISHES[wish])
    await answer(two(output={"generated": "${output}"}), scripts, request)
    first, last = scripts.requests
    for name, value in WISHES[wish].items():
        assert getattr(last, name) == value
        assert getattr(first, name) != value


@pytest.mark.parametrize("wish", WISHES)
@pytest.mark.parametrize(
    "workflow",
    [
        {"output": "It said: ${output}"},
        {"output": {"a": "${output}", "b": "${input.user_prompt}"}},
        {"output": {"a": "${output}"}, "openai": {"output": "${output.a}!"}},
        {"job": {"repeat_count": 2}},
    ],
)
async def test_wishes_are_refused_by_name_where_it_is_not(wish: str, workflow: dict[str, Any]) -> None:
    scripts = ScriptedAdapter({"m": says("a")})
    with pytest.raises(UnsupportedParameter, match=f"'{wish}'") as caught:
        await answer(one(chat(messages=USER), **workflow), scripts, asks("Hi", **WISHES[wish]))
    assert caught.value.param == wish
    assert scripts.requests == []


async def test_wishes_go_through_a_workflow_inside_a_workflow() -> None:
    form = {
        "components": [
            chat(messages=USER),
            {"id": "sub", "type": "workflow", "actions": [{"workflow": "inner", "output": "${result.generated}"}]},
        ],
        "workflows": [
            {"id": "outer", "jobs": [{"component": "sub"}]},
            {"id": "inner", "jobs": [{"component": "m"}], "output": {"generated": "${output}"}},
        ],
    }
    assert (await asked(form, asks("Hi", tools=(TOOL,)))).tools == (TOOL,)


async def test_a_wish_that_is_an_input_need_not_be_refused() -> None:
    form = one(chat(messages=USER, tools="${input.tools}"))
    assert (await asked(form, asks("Hi", tools=(TOOL,)))).tools == (TOOL,)


async def test_parameters_that_nothing_can_honour_do_not_stop_a_chat_program() -> None:
    form = one({"type": "shell", "actions": [{"command": "echo ${input.prompt}", "output": "${result.stdout}"}]})
    request = asks("Hi", sampling=Sampling(temperature=0.5, max_tokens=5, presence_penalty=1.0, seed=1))
    assert spoken(await answer(form, ScriptedAdapter({}), request)) == "Hi\n"


async def test_the_files_parameters_win_and_limits_add_up() -> None:
    form = one(chat(messages=USER, params={"temperature": 0.2, "max_output_length": 100, "stop_sequences": "A"}))
    wishes = Sampling(temperature=1.5, max_tokens=10, seed=3, stop=("B",))
    sampling = (await asked(form, asks("Hi", sampling=wishes))).sampling
    assert sampling == Sampling(temperature=0.2, max_tokens=10, seed=3, stop=("A", "B"))


# Cards ----------------------------------------------------------------------------------------------------------------


async def test_a_card_counts_and_tells_of_the_local_models() -> None:
    card = ModelCard(id="m", created=0, state=ModelState("loading", "reading weights"))
    local = ScriptedAdapter({"bundled": says("a", "b")}, [card])

    class Opened:
        async def __aenter__(self) -> ScriptedAdapter:
            return local

        async def __aexit__(self, *_: object) -> None:
            pass

    opened_for = []

    def open_model(settings: Any) -> Opened:
        opened_for.append(settings)
        return Opened()

    form = one({**chat(messages=USER), "model": {"provider": "bundled"}})
    form["components"].append({**form["components"][0], "id": "other"})
    form["components"].append({**form["components"][0], "id": "long", "max_model_len": 64})
    form["workflows"][0]["jobs"][0]["component"] = "m"
    async with runner(form, open_model=open_model) as opened:
        (model,) = workflow_models(opened)
        assert model.cards()[0].state == card.state
        assert await events_of(model, asks("Hi")) == says("a", "b")
        counters = model.cards()[0].counters
        assert (counters.requests, counters.running, counters.generated_tokens) == (1, 0, 2)
        assert len(opened.local_models) == 2
    assert [settings.max_model_len for settings in opened_for] == [None, 64]
    assert {settings.name for settings in opened_for} == {"bundled"}


async def test_a_workflow_may_ask_a_workflow_by_its_model_name() -> None:
    scripts = ScriptedAdapter({"m": says("a", "b")})
    form = {
        "components": [chat(messages=USER), chat("inner", messages=USER)],
        "workflows": [
            {"id": "outer", "jobs": [{"component": "inner"}]},
            {"id": "inner", "jobs": [{"component": "m"}]},
        ],
    }
    models: dict[str, Any] = {"m": scripts}
    async with runner(form, find=models.get) as opened:
        models.update({model.name: model for model in workflow_models(opened)})
        events = await events_of(models["outer"], asks("Hi", n=1, logprobs=1))
    assert events == says("a", "b")
    assert scripts.requests[0].logprobs == 1


async def test_two_hundred_clients_at_once_each_get_their_own_answer() -> None:
    def script(request: GenerationRequest) -> Iterator[Step]:
        for event in echoing(request):
            yield event
            yield 0.005

    async with runner(two(), ScriptedAdapter({"m": script})) as opened:
        (model,) = workflow_models(opened)

        async def ask(n: int) -> str:
            return spoken(await events_of(model, asks(str(n))))

        answers = await asyncio.gather(*map(ask, range(200)))
    assert answers == [f"You said: better: You said: {n}" for n in range(200)]
