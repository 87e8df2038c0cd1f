"""The order of jobs, their last one, and what they call."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loading import CHAT, loaded

from modelcompose.adapters.errors import ConfigError
from modelcompose.workflows.graph import (
    action_of,
    component_of,
    cycle_in,
    default_workflow,
    dependencies_of,
    model_name,
    plan,
)
from modelcompose.workflows.schema import ComposeFile, Job, Workflow


def workflow(jobs: dict[str, dict[str, Any]], **fields: Any) -> Workflow:
    return Workflow.model_validate({"jobs": [{"id": id, **job} for id, job in jobs.items()], **fields})


def test_a_reference_is_a_dependency_wherever_it_stands() -> None:
    needed = dependencies_of(
        workflow(
            {
                "a": {},
                "b": {"input": {"x": ["${jobs.a.output}"]}},
                "c": {"output": "${output} ${input.x | ${jobs.b.output}}"},
                "d": {"repeat_count": "${jobs.a.output.count as integer}"},
                "e": {"depends_on": ["d"], "input": "${input.list[${jobs.c.output}]}"},
                "f": {"input": '${jobs["a"].output}'},
            }
        )
    )
    assert needed == {
        "a": frozenset(),
        "b": frozenset("a"),
        "c": frozenset("b"),
        "d": frozenset("a"),
        "e": frozenset("cd"),
        "f": frozenset("a"),
    }


def test_jobs_come_after_those_they_wait_for_and_otherwise_as_written() -> None:
    steps = plan(workflow({"d": {"depends_on": ["c"]}, "b": {}, "c": {"depends_on": ["b"]}, "a": {}}))
    assert [job.id for job in steps.jobs] == ["b", "a", "c", "d"]


@pytest.mark.parametrize(
    ("jobs", "output", "terminal"),
    [
        ({"a": {}}, None, "a"),
        ({"b": {"depends_on": ["a"]}, "a": {}}, None, "b"),
        ({"a": {}, "b": {}}, None, "b"),
        ({"a": {}, "b": {}}, "${jobs.a.output}", "a"),
        ({"a": {}, "b": {}}, "${jobs.a.output} ${jobs.b.output}", "b"),
        ({"a": {}, "b": {"depends_on": ["a"]}}, "${jobs.a.output}", "b"),
    ],
)
def test_the_last_job_is_the_one_that_no_other_waits_for(jobs: dict[str, Any], output: str, terminal: str) -> None:
    assert plan(workflow(jobs, output=output)).terminal == terminal


@pytest.mark.parametrize(
    ("jobs", "message"),
    [
        ({"a": {"depends_on": ["a"]}}, "the jobs of workflow 'default' wait for each other: a -> a"),
        ({"a": {"depends_on": ["b"]}, "b": {"input": "${jobs.a.output}"}}, "a -> b -> a"),
        ({"a": {"depends_on": ["b"]}}, "workflow 'default' has no job 'b'"),
    ],
)
def test_a_graph_that_cannot_be_run(jobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(workflow(jobs))


@given(st.dictionaries(st.sampled_from("abcdefg"), st.frozensets(st.sampled_from("abcdefg")), max_size=7))
@settings(max_examples=200)
def test_there_is_an_order_or_a_circle(needed: dict[str, frozenset[str]]) -> None:
    needed = {id: others & needed.keys() for id, others in needed.items()}
    if cycle := cycle_in(needed):
        assert cycle[0] == cycle[-1]
        assert all(later in needed[earlier] for earlier, later in pairwise(cycle))
    elif needed:
        ids = [job.id for job in plan(workflow({id: {"depends_on": sorted(each)} for id, each in needed.items()})).jobs]
        assert all(ids.index(other) < ids.index(id) for id, others in needed.items() for other in others)
        assert sorted(ids) == sorted(needed)


def test_long_chains_are_no_trouble() -> None:
    chain = {f"j{n}": {"depends_on": [f"j{n - 1}"] if n else []} for n in range(2000)}
    assert plan(workflow(chain)).terminal == "j1999"


TWO = """
components:
  - {id: a, type: model, task: chat-completion, model: bundled, default: true}
  - id: b
    type: model
    task: chat-completion
    model: bundled
    actions: [{id: draft}, {id: default}]
  - id: c
    type: model
    task: chat-completion
    model: bundled
    actions: [{id: only}]
"""


def file() -> ComposeFile:
    return loaded(TWO)


@pytest.mark.parametrize(
    ("job", "component", "action"),
    [
        ({}, "a", "default"),
        ({"component": "b"}, "b", "default"),
        ({"component": "b", "action": "draft"}, "b", "draft"),
        ({"component": "c"}, "c", "only"),
    ],
)
def test_what_a_job_calls(job: dict[str, Any], component: str, action: str) -> None:
    form = Job.model_validate(job)
    called = component_of(form, file())
    assert (called.id, action_of(form, called).id) == (component, action)


def test_the_default_workflow_and_the_names_of_models() -> None:
    one = loaded(CHAT + "workflow: {id: w, openai: {model: m}}")
    two = loaded(CHAT + "workflows: [{id: a}, {id: b, default: true}]")
    none = loaded(CHAT + "workflows: [{id: a}, {id: b}]")
    assert [getattr(default_workflow(each), "id", None) for each in (one, two, none)] == ["w", "b", None]
    assert [model_name(each) for each in (*one.workflows, *two.workflows)] == ["m", "a", "b"]


@pytest.mark.parametrize(
    ("workflow", "name"),
    [
        ("{id: w, openai: {model: support}, title: T}", "support"),
        ("{id: w, title: T}", "w"),
        ("{title: Chat with vLLM Server!}", "chat-with-vllm-server"),
        ("{title: 生成聊天消息}", "生成聊天消息"),
        ("{description: Nameless}", "default"),
    ],
)
def test_a_workflow_is_a_model_by_its_name_there_its_id_or_its_title(workflow: str, name: str) -> None:
    assert [model_name(each) for each in loaded(f"{CHAT}workflow: {workflow}").workflows] == [name]
