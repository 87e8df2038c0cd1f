"""Runs: order, concurrency, repetition, failure, cancelling, limits, and what goes through untouched."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from composing import chat, one, runner, text, value_of
from scripted import ScriptedAdapter, Step, says

from modelcompose.adapters.base import GenerationRequest
from modelcompose.adapters.errors import ComposeError, ConfigError, InvalidRequest, ModelNotFound
from modelcompose.adapters.events import Accepted, Finish, TextDelta, Usage
from modelcompose.workflows.components.streams import ItemStream, ModelStream, is_sent_as_stream
from modelcompose.workflows.jobs import JobFinished, JobStarted, JobText, Outcome
from modelcompose.workflows.load import Compose
from modelcompose.workflows.model import WorkflowModel
from modelcompose.workflows.run import RunCancelled
from modelcompose.workflows.runner import Runner
from modelcompose.workflows.schema import ComposeFile


def prompt_of(request: GenerationRequest) -> str:
    content = request.prompts[0] if request.prompts else request.messages[-1]["content"]
    assert isinstance(content, str)
    return content


def repeats(request: GenerationRequest) -> list[Step]:
    return says("<", prompt_of(request), ">")


def jobs(*all_jobs: dict[str, Any], components: Any = (), **workflow: Any) -> dict[str, Any]:
    return {"components": components or [chat()], "workflows": [{"jobs": list(all_jobs), **workflow}]}


TWO = jobs(
    {"id": "draft", "input": {"prompt": "${input.topic}"}},
    {"id": "final", "input": {"prompt": "about ${jobs.draft.output}"}},
)


async def test_a_job_gets_what_the_one_before_it_said() -> None:
    scripts = ScriptedAdapter({"m": repeats})
    assert await value_of(TWO, {"topic": "cats"}, scripts) == "<about <cats>>"


async def test_a_wrong_value_is_the_clients_fault_only_if_the_client_sent_it() -> None:
    cast = jobs(
        {"id": "draft", "input": {"prompt": "${input.topic as text}"}},
        {"id": "final", "input": {"prompt": "${jobs.draft.output as integer}"}},
    )
    with pytest.raises(ComposeError, match=r"job 'final': 'jobs.draft.output' must be") as caught:
        await value_of(cast, {"topic": "cats"}, ScriptedAdapter({"m": repeats}))
    assert not isinstance(caught.value, InvalidRequest)
    sent = jobs({"id": "draft", "input": {"prompt": "${input.topic as integer}"}})
    with pytest.raises(InvalidRequest, match=r"'input.topic' must be|'topic' must be"):
        await value_of(sent, {"topic": "cats"}, ScriptedAdapter({"m": repeats}))


async def test_what_happens_is_told_in_order() -> None:
    async with runner(TWO, ScriptedAdapter({"m": repeats})) as opened, opened.run(given={"topic": "cats"}) as run:
        told = [each async for each in run.happenings()]
        assert told[:-1] == [
            JobStarted("draft"),
            JobText("draft", "draft", "<"),
            JobText("draft", "draft", "cats"),
            JobText("draft", "draft", ">"),
            JobFinished("draft", "<cats>"),
            JobStarted("final"),
        ]
        assert isinstance(told[-1], Outcome)
        assert run.jobs["draft"] == "completed"
        assert await run.value() == "<about <cats>>"
        assert run.jobs == {"draft": "completed", "final": "completed"}
        assert run.state == "completed"
        assert run.usage == Usage(6, 6)


async def test_jobs_that_need_nothing_of_each_other_run_at_the_same_time() -> None:
    both = asyncio.Barrier(2)

    def script(name: str) -> list[Step]:
        event = asyncio.Event()

        async def meet() -> None:
            await both.wait()
            event.set()

        tasks.append(asyncio.create_task(meet()))
        return [event, *says(name)]

    tasks: list[asyncio.Task[None]] = []
    form = jobs(
        {"id": "a", "component": "a"},
        {"id": "b", "component": "b"},
        {"id": "c", "input": {"prompt": "${jobs.a.output}+${jobs.b.output}"}, "component": "c"},
        components=[chat("a"), chat("b"), chat("c")],
    )
    scripts = ScriptedAdapter({"a": lambda _: script("A"), "b": lambda _: script("B"), "c": repeats})
    async with asyncio.timeout(5):
        assert await value_of(form, {"prompt": "x"}, scripts) == "<A+B>"


async def test_depends_on_is_enough_to_wait() -> None:
    form = jobs({"id": "last", "depends_on": ["first"]}, {"id": "first"})
    scripts = ScriptedAdapter({"m": repeats})
    async with runner(form, scripts) as opened, opened.run(given={"prompt": "x"}) as run:
        await run.value()
        assert list(run.jobs) == ["first", "last"]
    assert len(scripts.requests) == 2


async def test_an_output_may_need_jobs_that_the_last_one_does_not() -> None:
    form = jobs(
        {"id": "slow", "component": "slow"},
        {"id": "last", "component": "m"},
        components=[chat("slow"), chat()],
        output={"both": "${jobs.slow.output} ${jobs.last.output}"},
    )
    scripts = ScriptedAdapter({"slow": [0.05, *says("slow")], "m": repeats})
    assert await value_of(form, {"prompt": "x"}, scripts) == {"both": "slow <x>"}


async def test_a_job_that_nobody_waits_for_is_done_too_and_may_fail_the_run() -> None:
    last = {"id": "last", "component": "m"}
    form = jobs({"id": "aside", "component": "aside"}, last, components=[chat("aside"), chat()])
    scripts = ScriptedAdapter({"aside": [0.02, *says("x")], "m": repeats})
    async with runner(form, scripts) as opened, opened.run(given={"prompt": "x"}) as run:
        assert await run.value() == "<x>"
        assert run.jobs["aside"] == "completed"
    scripts = ScriptedAdapter({"aside": [0.02, ComposeError("broke")], "m": [TextDelta("a"), asyncio.Event()]})
    async with runner(form, scripts) as opened, opened.run(given={"prompt": "x"}) as run:
        stream = await run.outcome()
        parts = stream.parts
        assert await anext(parts) == TextDelta("a")
        with pytest.raises(ComposeError, match="job 'aside': broke"):
            await anext(parts)
    assert scripts.closed_early == 2


# What goes through untouched -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "workflow",
    [
        {},
        {"output": "${output}"},
        {"output": "${output as text}"},
        {"output": "${jobs.default.output}"},
        {"job": {"output": "${output}"}},
        {"job": {"output": {"a": "${output}"}}, "output": "${output.a}"},
    ],
)
async def test_a_stream_goes_through_whole_references(workflow: dict[str, Any]) -> None:
    more = asyncio.Event()
    scripts = ScriptedAdapter({"m": [TextDelta("a"), more, *says("b")]})
    async with runner(one(chat(), **workflow), scripts) as opened, opened.run(given={"prompt": "x"}) as run:
        stream = await run.outcome()
        assert isinstance(stream, ModelStream)
        assert not is_sent_as_stream(stream)
        parts = stream.parts
        assert await anext(parts) == TextDelta("a")
        more.set()
        assert len([part async for part in parts]) == 3


async def test_a_stream_goes_through_under_a_name() -> None:
    output = {"generated": "${output}", "topic": "${input.prompt}", "list": [1, {"x": "${input.no}"}]}
    scripts = ScriptedAdapter({"m": says("a", "b")})
    async with runner(one(chat(), output=output), scripts) as opened, opened.run(given={"prompt": "x"}) as run:
        outcome = await run.outcome()
        assert isinstance(outcome["generated"], ModelStream)
        rest = {"topic": "x", "list": [1, {"x": None}]}
        assert {name: outcome[name] for name in rest} == rest
        assert await run.value() == {"generated": "ab", **rest}


@pytest.mark.parametrize(
    ("workflow", "value"),
    [
        ({"output": "It said: ${output}"}, "It said: 12"),
        ({"output": "${output as number}"}, 12),
        ({"output": {"a": "${output}", "b": "${output}"}}, {"a": "12", "b": "12"}),
        ({"output": {"a": "${output}", "b": "${jobs.default.output as integer}"}}, {"a": "12", "b": 12}),
        ({"output": "${output.nothing | none}"}, "none"),
        ({"output": {"fixed": True}}, {"fixed": True}),
        ({"output": "${input.nothing | ${output}}"}, "12"),
        ({"job": {"output": {"a": ["${output}"]}}, "output": "${output.a[0]}!"}, "12!"),
    ],
)
async def test_everything_else_waits_for_the_value(workflow: dict[str, Any], value: Any) -> None:
    scripts = ScriptedAdapter({"m": says("1", "2")})
    async with runner(one(chat(), **workflow), scripts) as opened, opened.run(given={"prompt": "x"}) as run:
        assert await run.outcome() == value
        assert await run.value() == value
    assert scripts.closed_early == 0


@pytest.mark.parametrize(
    ("component", "workflow"),
    [
        (chat(), {"output": "${output as stream/text}"}),
        (chat(), {"output": "${output as text;sse-text}"}),
        (chat(streaming=True), {}),
        (chat(output="${result[]}"), {}),
        (chat(output="${item}"), {}),
    ],
)
async def test_a_declared_stream_is_sent_as_one(component: dict[str, Any], workflow: dict[str, Any]) -> None:
    scripts = ScriptedAdapter({"m": says("a", "b")})
    async with runner(one(component, **workflow), scripts) as opened, opened.run(given={"prompt": "x"}) as run:
        outcome = await run.outcome()
        assert is_sent_as_stream(outcome)
        assert [item async for item in outcome.items()] == ["a", "b"]


@pytest.mark.parametrize(
    ("output", "items"),
    [
        ("${input.x as text;sse-text}", ["whole"]),
        ("${input.list as stream/json}", [1, {"a": 2}]),
    ],
)
async def test_a_value_that_is_there_already_is_sent_as_the_stream_it_is_declared(
    output: str, items: list[Any]
) -> None:
    scripts = ScriptedAdapter({"m": says("a", "b")})
    given = {"prompt": "x", "x": "whole", "list": [1, {"a": 2}]}
    async with (
        runner(one(chat(), output=output), scripts) as opened,
        opened.run(given=given) as run,
    ):
        outcome = await run.outcome()
        assert is_sent_as_stream(outcome)
        assert [item async for item in outcome.items()] == items


async def test_nothing_is_no_stream() -> None:
    workflow = one(chat(), output="${input.nothing as stream/text}")
    scripts = ScriptedAdapter({"m": says("a")})
    async with runner(workflow, scripts) as opened, opened.run(given={"prompt": "x"}) as run:
        assert await run.outcome() is None


@pytest.mark.parametrize("output", ["(${result[]})", "(${item})"])
async def test_each_piece_of_a_models_answer_can_be_rendered(output: str) -> None:
    component = chat(output=output)
    scripts = ScriptedAdapter({"m": says("a", "b")})
    async with runner(one(component), scripts) as opened, opened.run(given={"prompt": "x"}) as run:
        outcome = await run.outcome()
        assert isinstance(outcome, ItemStream)
        assert await run.value() == "(a)(b)"


async def test_item_is_each_of_several_whole_answers() -> None:
    output = {"said": "${item}", "by": "${index | nobody}"}
    component = text(output=output, params={"num_return_sequences": 2}, echo=False)
    both: list[Step] = [TextDelta("a", 0), TextDelta("b", 1), Finish("stop", 0), Finish("stop", 1), Usage(1, 2)]
    assert await value_of(one(component), {"prompt": "x"}, ScriptedAdapter({"m": both})) == [
        {"said": "a", "by": "nobody"},
        {"said": "b", "by": "nobody"},
    ]


async def test_the_items_of_a_text_begin_with_its_prompt() -> None:
    scripts = ScriptedAdapter({"m": says("a", "b")})
    async with runner(one(text(streaming=True)), scripts) as opened, opened.run(given={"prompt": "x"}) as run:
        assert [item async for item in (await run.outcome()).items()] == ["x", "a", "b"]
        assert run.output == "xab"


# Repetition -----------------------------------------------------------------------------------------------------------

BATCH = one(
    text(echo=False), job={"repeat_count": "${input.batch_size}", "input": {"prompt": "${input.prompts[${index}]}"}}
)


async def test_repetitions_are_in_order_whichever_is_done_first() -> None:
    def script(request: GenerationRequest) -> list[Step]:
        return [0.03 if prompt_of(request) == "a" else 0.0, *repeats(request)]

    scripts = ScriptedAdapter({"m": script})
    given = {"batch_size": 3, "prompts": ["a", "b", "c"]}
    assert await value_of(BATCH, given, scripts) == ["<a>", "<b>", "<c>"]


@pytest.mark.parametrize(("count", "value"), [("2", ["<a>", "<b>"]), (0, []), (1, ["<a>"])])
async def test_the_output_of_repetitions_is_a_list(count: Any, value: list[str]) -> None:
    scripts = ScriptedAdapter({"m": repeats})
    assert await value_of(BATCH, {"batch_size": count, "prompts": ["a", "b"]}, scripts) == value


@pytest.mark.parametrize(
    ("count", "words"), [(1001, "between 0 and 1000"), (-1, "between"), ("many", "integer"), (None, "batch_size")]
)
async def test_a_wrong_count_is_named(count: Any, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        await value_of(BATCH, {"batch_size": count, "prompts": ["a"]}, ScriptedAdapter({"m": repeats}))


async def test_the_first_repetition_to_fail_ends_the_others() -> None:
    def script(request: GenerationRequest) -> list[Step]:
        return [ComposeError("no b")] if prompt_of(request) == "b" else [asyncio.Event()]

    scripts = ScriptedAdapter({"m": script})
    with pytest.raises(ComposeError, match="no b"):
        await value_of(BATCH, {"batch_size": 3, "prompts": ["a", "b", "c"]}, scripts)
    assert scripts.closed_early == 3


async def test_repetitions_of_an_earlier_job_are_told_apart() -> None:
    form = jobs(
        {"id": "drafts", "repeat_count": 2, "input": {"prompt": "${index}"}, "output": "n${index}: ${output}"},
        {"id": "best", "input": {"prompt": "${jobs.drafts.output}"}},
    )
    async with runner(form, ScriptedAdapter({"m": repeats})) as opened, opened.run() as run:
        told = [each async for each in run.happenings()]
        labels = {each.label for each in told if isinstance(each, JobText)}
        assert labels == {"drafts[0]", "drafts[1]"}
        assert await run.value() == '<["n0: <0>", "n1: <1>"]>'


# Failure and cancelling -----------------------------------------------------------------------------------------------


async def test_the_first_job_to_fail_ends_the_others_and_is_named() -> None:
    form = jobs(
        {"id": "a", "component": "good"},
        {"id": "b", "component": "bad"},
        {"id": "c", "component": "m", "depends_on": ["a", "b"]},
        components=[chat("good"), chat("bad"), chat()],
    )
    scripts = ScriptedAdapter(
        {
            "good": [TextDelta("x"), asyncio.Event()],
            "bad": [0.01, InvalidRequest("too long", param="messages")],
            "m": [],
        }
    )
    async with runner(form, scripts) as opened, opened.run(given={"prompt": "x"}) as run:
        with pytest.raises(InvalidRequest, match="job 'b': too long") as caught:
            await run.value()
        assert caught.value.param == "messages"
        assert run.state == "failed"
        assert run.failure is not None
        assert run.failure.job == "b"
        assert run.jobs == {"a": "cancelled", "b": "failed", "c": "cancelled"}
    assert scripts.closed_early == 2
    assert len(scripts.requests) == 2


async def test_the_only_job_need_not_be_named() -> None:
    scripts = ScriptedAdapter({"m": [InvalidRequest("too long")]})
    with pytest.raises(InvalidRequest, match=r"^too long$"):
        await value_of(one(chat()), {"prompt": "x"}, scripts)


async def test_what_nobody_expected_is_logged_and_raised(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ZeroDivisionError):
        await value_of(one(chat()), {"prompt": "x"}, ScriptedAdapter({"m": [ZeroDivisionError("bug")]}))
    assert "job 'default' failed" in caplog.text


async def test_a_call_that_is_cancelled_from_elsewhere_fails_the_job() -> None:
    class Vanishing(ScriptedAdapter):
        async def generate(self, request: GenerationRequest) -> Any:
            for event in says("x"):
                yield event
                raise asyncio.CancelledError

    form = jobs({"id": "a"}, {"id": "b", "depends_on": ["a"]})
    with pytest.raises(ComposeError, match="cancelled from elsewhere"):
        async with asyncio.timeout(5):
            await value_of(form, {"prompt": "x"}, Vanishing({"m": []}))


async def test_cancelling_a_run_ends_its_calls_and_tells_the_reader() -> None:
    scripts = ScriptedAdapter({"m": [TextDelta("a"), asyncio.Event()]})
    async with runner(one(chat()), scripts) as opened, opened.run(given={"prompt": "x"}) as run:
        parts = (await run.outcome()).parts
        assert await anext(parts) == TextDelta("a")
        run.cancel()
        with pytest.raises(RunCancelled):
            await anext(parts)
        assert run.state == "cancelled"
        assert run.jobs == {"default": "cancelled"}
    assert scripts.closed_early == 1


async def test_a_run_that_is_cancelled_before_it_began_ends() -> None:
    async with runner(one(chat()), ScriptedAdapter({"m": []})) as opened, opened.run(given={"prompt": "x"}) as run:
        run.cancel()
        with pytest.raises(RunCancelled):
            await run.value()
        assert run.state == "cancelled"


async def test_leaving_a_run_in_the_middle_leaves_no_task() -> None:
    scripts = ScriptedAdapter({"m": [TextDelta("a"), asyncio.Event()]})
    async with runner(TWO, scripts) as opened:
        async with opened.run(given={"topic": "x"}) as run:
            async for each in run.happenings():
                if isinstance(each, JobText):
                    break
        assert asyncio.all_tasks() == {asyncio.current_task()}
    assert scripts.closed_early == 1


async def test_a_reader_that_is_slow_slows_the_model() -> None:
    sent = 0

    def endless(request: GenerationRequest) -> Iterator[Step]:
        nonlocal sent
        while True:
            sent += 1
            yield TextDelta("x")

    async with (
        runner(one(chat()), ScriptedAdapter({"m": endless})) as opened,
        opened.run(given={"prompt": "x"}) as run,
    ):
        parts = (await run.outcome()).parts
        for _ in range(10):
            await anext(parts)
        await asyncio.sleep(0.05)
        assert sent < 1000


# Limits ---------------------------------------------------------------------------------------------------------------


async def test_a_component_s_limit_holds_until_streams_are_over() -> None:
    running = most = 0

    def script(request: GenerationRequest) -> Iterator[Step]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        yield 0.01
        yield from repeats(request)
        running -= 1

    form = one({**chat(), "max_concurrent_count": 2})
    async with runner(form, ScriptedAdapter({"m": script})) as opened:

        async def ask(n: int) -> Any:
            async with opened.run(given={"prompt": str(n)}) as run:
                stream = await run.outcome()
                await asyncio.sleep(0.005)
                return await stream.value()

        assert await asyncio.gather(*map(ask, range(9))) == [f"<{n}>" for n in range(9)]
    assert most == 2


async def test_a_stream_that_is_left_gives_its_place_back() -> None:
    form = one({**chat(), "max_concurrent_count": 1})
    scripts = ScriptedAdapter({"m": [TextDelta("a"), asyncio.Event()]})
    async with runner(form, scripts) as opened, asyncio.timeout(5):
        for _ in range(3):
            async with opened.run(given={"prompt": "x"}) as run:
                assert await anext((await run.outcome()).parts) == TextDelta("a")
    assert scripts.closed_early == 3


async def test_a_file_s_limit_is_on_runs_and_not_on_workflows_inside_them() -> None:
    form = nested()
    form["controller"] = {"max_concurrent_count": 1}
    scripts = ScriptedAdapter({"m": [0.01, *says("a")]})
    async with (
        runner(form, scripts) as opened,
        opened.run("outer", {"prompt": "x"}) as first,
        opened.run("outer", {"prompt": "y"}) as second,
    ):
        await asyncio.sleep(0)
        assert second.state == "pending"
        assert await first.value() == {"generated": "a"}
        assert await second.value() == {"generated": "a"}


async def test_a_component_that_calls_itself_through_a_workflow_does_not_wait_for_itself() -> None:
    form = nested()
    form["components"][1]["max_concurrent_count"] = 1
    form["workflows"].append({"id": "outmost", "jobs": [{"component": "sub", "action": "middle"}]})
    form["components"][1]["actions"].append({"id": "middle", "workflow": "outer"})
    async with (
        asyncio.timeout(5),
        runner(form, ScriptedAdapter({"m": says("a")})) as opened,
        opened.run("outmost", {"prompt": "x"}) as run,
    ):
        assert await run.value() == {"generated": "a"}


async def test_a_last_job_does_not_keep_its_component_from_a_job_that_the_output_needs() -> None:
    a = {"id": "a", "input": {"prompt": "A"}}
    b = {"id": "b", "input": {"prompt": "B"}}
    form = jobs(a, b, output={"a": "${jobs.a.output}", "b": "${jobs.b.output}"})
    form["components"][0]["max_concurrent_count"] = 1
    for order in ([a, b], [b, a]):
        form["workflows"][0]["jobs"] = order
        async with asyncio.timeout(5):
            assert await value_of(form, {}, ScriptedAdapter({"m": repeats})) == {"a": "<A>", "b": "<B>"}


# Workflows in workflows -----------------------------------------------------------------------------------------------


def nested() -> dict[str, Any]:
    return {
        "components": [chat(), {"id": "sub", "type": "workflow", "actions": [{"workflow": "inner"}]}],
        "workflows": [
            {"id": "inner", "jobs": [{"component": "m"}], "output": {"generated": "${output}"}},
            {"id": "outer", "jobs": [{"component": "sub", "action": "default"}]},
        ],
    }


async def test_a_workflow_hands_on_the_stream_of_one_inside_it() -> None:
    more = asyncio.Event()
    scripts = ScriptedAdapter({"m": [Accepted(), TextDelta("a"), more, *says("b")]})
    async with runner(nested(), scripts) as opened, opened.run("outer", {"prompt": "x"}) as run:
        outcome = await run.outcome()
        parts = outcome["generated"].parts
        assert [await anext(parts), await anext(parts)] == [Accepted(), TextDelta("a")]
        more.set()
        assert await run.value() == {"generated": "ab"}
        assert run.usage == Usage(3, 1)


async def test_leaving_ends_the_workflow_inside_too() -> None:
    scripts = ScriptedAdapter({"m": [TextDelta("a"), asyncio.Event()]})
    async with runner(nested(), scripts) as opened:
        async with opened.run("outer", {"prompt": "x"}) as run:
            await run.outcome()
        assert asyncio.all_tasks() == {asyncio.current_task()}
    assert scripts.closed_early == 1


async def test_what_fails_inside_fails_outside() -> None:
    with pytest.raises(ComposeError, match="broke"):
        async with (
            runner(nested(), ScriptedAdapter({"m": [ComposeError("broke")]})) as opened,
            opened.run("outer", {"prompt": "x"}) as run,
        ):
            await run.value()


async def test_a_workflow_that_calls_itself_ends_with_a_clear_error() -> None:
    compose = Compose(ComposeFile.model_validate(one(chat("w"), id="w")), Path.cwd(), ())
    async with Runner(compose, lambda name: model) as opened, asyncio.timeout(5):
        model = WorkflowModel(opened, opened.workflow("w"))
        async with opened.run("w", {"prompt": "x"}) as run:
            with pytest.raises(ConfigError, match=r"more than 16 deep: .*w -> w"):
                await run.value()


# Inputs ---------------------------------------------------------------------------------------------------------------


async def test_a_missing_input_is_named_before_anything_runs() -> None:
    scripts = ScriptedAdapter({"m": repeats})
    async with runner(TWO, scripts) as opened:
        with pytest.raises(InvalidRequest, match="'topic'") as caught:
            opened.run(given={})
        assert caught.value.param == "topic"
        with pytest.raises(InvalidRequest, match="object"):
            opened.run(given="cats")
    assert scripts.requests == []


async def test_a_hyphen_is_as_good_as_an_underscore() -> None:
    messages = [{"role": "user", "content": "${input.user_prompt}"}]
    scripts = ScriptedAdapter({"m": repeats})
    assert await value_of(one(chat(messages=messages)), {"user-prompt": "x"}, scripts) == "<x>"
    both = {"user-prompt": "x", "user_prompt": "y"}
    assert await value_of(one(chat(messages=messages)), both, scripts) == "<y>"


@pytest.mark.parametrize("is_written_on_the_job", [False, True])
async def test_a_workflows_input_lies_over_the_callers(is_written_on_the_job: bool) -> None:
    component = chat(
        messages=[{"role": "user", "content": "${input.user_prompt} ${input.tone}"}],
        params={"temperature": "${input.temperature | 0.7}"},
    )
    made = {"input": {"user_prompt": "Q: ${input.question}", "tone": "kind"}}
    form = one(component, **({"job": made} if is_written_on_the_job else made))
    scripts = ScriptedAdapter({"m": repeats})
    assert await value_of(form, {"question": "why", "temperature": 0.1, "tone": "rude"}, scripts) == "<Q: why kind>"
    assert scripts.requests[0].sampling.temperature == 0.1


async def test_an_unknown_workflow_is_named_with_those_that_are_there() -> None:
    async with runner(nested(), ScriptedAdapter({})) as opened:
        with pytest.raises(ModelNotFound, match="'other'; this file has: inner, outer"):
            opened.run("other")
        with pytest.raises(ModelNotFound, match="no default workflow"):
            opened.run()


# Many -----------------------------------------------------------------------------------------------------------------


async def test_two_hundred_streamed_runs_are_neither_lost_nor_mixed() -> None:
    def script(request: GenerationRequest) -> Iterator[Step]:
        for piece in repeats(request):
            yield piece
            yield 0.005

    async with runner(TWO, ScriptedAdapter({"m": script})) as opened:

        async def ask(n: int) -> str:
            async with opened.run(given={"topic": str(n)}) as run:
                return "".join([item async for item in (await run.outcome()).items()])

        answers = await asyncio.gather(*map(ask, range(200)))
    assert answers == [f"<about <{n}>>" for n in range(200)]


async def test_memory_does_not_grow_with_runs() -> None:
    scripts = ScriptedAdapter({"m": repeats})
    async with runner(TWO, scripts) as opened:

        async def many(count: int) -> int:
            for n in range(count):
                async with opened.run(given={"topic": str(n)}) as run:
                    if n % 3:
                        await run.value()
                    else:
                        await run.outcome()
            scripts.requests.clear()
            gc.collect()
            return len(gc.get_objects())

        before = await many(100)
        after = await many(2000)
    assert after - before < 200


async def test_what_lies_under_a_workflows_input_is_an_input_too() -> None:
    component = chat(params={"temperature": "${input.temperature as number | 0.7}"})
    form = one(component, input={"prompt": "Q: ${input.question}"})
    async with runner(form) as opened:
        inputs = {each.name: each for each in opened.inputs["default"]}
    assert list(inputs) == ["system_prompt", "question", "temperature"]
    assert inputs["question"].required
    assert (inputs["temperature"].type, inputs["temperature"].default) == ("number", 0.7)
