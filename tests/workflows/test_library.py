"""The workflows that come with the program: what they read, what they ask, and what they give.

`test_library_bundled.py` runs them on the model that comes with the program.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from composing import asks, events_of
from scripted import ScriptedAdapter, Step, says

from modelcompose.adapters.base import GenerationRequest
from modelcompose.adapters.errors import ConfigError, InvalidRequest
from modelcompose.adapters.events import Event, ReasoningDelta, TextDelta, Usage
from modelcompose.adapters.transformers.settings import ModelSettings
from modelcompose.clients.compose_files import ComposeOptions, named, read
from modelcompose.workflows import library
from modelcompose.workflows.inputs import inputs_of
from modelcompose.workflows.load import Compose, load
from modelcompose.workflows.model import workflow_models
from modelcompose.workflows.runner import Runner

NAMES = (
    "best-of",
    "code-reviewer",
    "customer-support",
    "draft-critique-revise",
    "pros-and-cons",
    "summarise",
    "translate",
)
every_one = pytest.mark.parametrize("name", NAMES)


def compose_of(name: str, **env: str) -> Compose:
    path = library.path(name)
    assert path is not None
    return load([path], env=env)


class Model:
    """A model that answers whatever it is asked with `answers`, one after the other, the last one for ever."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.requests: list[GenerationRequest] = []

    def _script(self, request: GenerationRequest) -> list[Step]:
        self.requests.append(request)
        return says(*re.findall(r"\S+\s*", self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]))

    @asynccontextmanager
    async def open(self, settings: ModelSettings) -> AsyncIterator[ScriptedAdapter]:
        yield ScriptedAdapter({settings.name: self._script})

    def asked(self, number: int) -> list[tuple[str, str]]:
        return [(message["role"], message["content"]) for message in self.requests[number].messages]


async def run(name: str, model: Model, given: Any) -> Any:
    """What the library's workflow gives."""
    async with Runner(compose_of(name), open_model=model.open) as runner, runner.run(given=given) as each:
        return await each.value()


async def answer(name: str, model: Model, request: GenerationRequest) -> list[Event]:
    """The events with which it answers as a model."""
    async with Runner(compose_of(name), open_model=model.open) as runner:
        (workflow,) = workflow_models(runner)
        assert workflow.name == name
        return await events_of(workflow, request)


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def thoughts_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, ReasoningDelta))


# Files ---------------------------------------------------------------------------------------------------------------


def test_the_library_has_these() -> None:
    assert library.names() == NAMES
    assert library.path("summarize") is None


@every_one
def test_a_file_says_what_it_is_for(name: str) -> None:
    (workflow,) = compose_of(name).file.workflows
    assert workflow.id == name
    assert re.fullmatch(r"[A-Z].{20,100}\.", library.about(name))
    assert workflow.title
    assert workflow.description


@every_one
def test_the_lines_that_start_it_name_it_and_give_it_what_it_reads(name: str) -> None:
    compose = compose_of(name)
    text = compose.paths[0].read_text(encoding="utf-8")
    assert f"#     model-compose up -f {name}\n" in text
    assert f"model-compose up -f {name} -e MODEL_COMPOSE_MODEL=Qwen/Qwen3-4B\n" in text
    (given,) = re.findall(rf"#     model-compose run -f {name} --input '\{{(.*)\}}'\n", text)
    inputs = {each.name: each for each in inputs_of(compose.file.workflows[0], compose.file)}
    names = re.findall(r'"(\w+)": ', given)
    assert set(names) <= inputs.keys()
    assert {each.name for each in inputs.values() if each.required} <= set(names)


@every_one
def test_every_input_of_its_own_is_described(name: str) -> None:
    compose = compose_of(name)
    for each in inputs_of(compose.file.workflows[0], compose.file):
        assert each.description or each.name in {"messages", "temperature"}, each.name


@every_one
def test_the_bundled_model_is_used_unless_another_is_named(name: str) -> None:
    assert {component.model.provider for component in compose_of(name).file.components} == {"bundled"}  # type: ignore[union-attr]
    (component,) = compose_of(name, MODEL_COMPOSE_MODEL="Qwen/Qwen3-4B").file.components
    assert component.model.repository == "Qwen/Qwen3-4B"  # type: ignore[union-attr]


def test_all_of_them_can_be_served_together_on_one_model() -> None:
    options = ComposeOptions(files=tuple(map(Path, NAMES)))
    compose = read(options)
    assert [workflow.id for workflow in compose.file.workflows] == list(NAMES)


def test_a_name_is_the_librarys_unless_there_is_such_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert named(Path("summarise")) == library.path("summarise")
    with pytest.raises(ConfigError, match=r"neither a file 'sumarise' nor a workflow .* did you mean 'summarise'\?"):
        named(Path("sumarise"))
    (tmp_path / "summarise").write_text("", encoding="utf-8")
    assert named(Path("summarise")) == Path("summarise")
    assert named(Path("other.yml")) == Path("other.yml")


# Roles ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "given", "role"),
    [
        ("customer-support", "customer_question", "You are a customer support agent. Be helpful, patient, and"),
        ("code-reviewer", "code_to_review", "You are a senior software engineer. Review code for bugs, style, and"),
    ],
)
async def test_a_role_answers_one_question_or_a_conversation(name: str, given: str, role: str) -> None:
    model = Model("I am sorry.")
    assert await run(name, model, {given: "Where is it?"}) == "I am sorry."
    assert model.asked(0)[0][1].startswith(role)
    assert model.asked(0)[1:] == [("user", "Where is it?")]
    turns = (
        {"role": "user", "content": "Where is it?"},
        {"role": "assistant", "content": "Where is what?"},
        {"role": "user", "content": "The thing."},
    )
    assert text_of(await answer(name, model, asks(turns))) == "I am sorry."
    assert model.asked(1)[0][1].startswith(role)
    assert model.asked(1)[1:] == [("user", "Where is it?"), ("assistant", "Where is what?"), ("user", "The thing.")]
    with pytest.raises(InvalidRequest, match=given):
        await run(name, model, {})


# One call ------------------------------------------------------------------------------------------------------------


async def test_summarise() -> None:
    model = Model("It is short.")
    assert await run("summarise", model, {"text": "A long text."}) == "It is short."
    assert model.asked(0) == [("user", "Summarize this text in one sentence:\n\nA long text.")]
    assert model.requests[0].sampling.temperature == 0.2
    request = asks("A long text.", extra={"metadata": {"length": "ten words"}})
    assert text_of(await answer("summarise", model, request)) == "It is short."
    assert model.asked(1) == [("user", "Summarize this text in ten words:\n\nA long text.")]


async def test_translate() -> None:
    model = Model("hola")
    assert await run("translate", model, {"text": "hello"}) == "hola"
    assert model.asked(0) == [("user", "Translate 'hello' to Spanish.")]
    await answer("translate", model, asks("hello", extra={"input": {"language": "French"}}))
    assert model.asked(1) == [("user", "Translate 'hello' to French.")]
    assert [request.sampling.temperature for request in model.requests] == [0, 0]


# Several calls -------------------------------------------------------------------------------------------------------


async def test_draft_critique_revise_hands_each_step_what_came_before() -> None:
    model = Model("A draft.", "Too short.", "A longer draft.")
    output = await run("draft-critique-revise", model, {"task": "Write."})
    assert output == {"generated": "A longer draft.", "draft": "A draft.", "critique": "Too short."}
    assert model.asked(0) == [("user", "Write.")]
    assert model.asked(1)[:2] == [("user", "Write."), ("assistant", "A draft.")]
    assert [role for role, _ in model.asked(2)] == ["user", "assistant", "user", "assistant", "user"]
    assert model.asked(2)[3] == ("assistant", "Too short.")


async def test_draft_critique_revise_as_a_model_streams_the_last_text_and_shows_the_others() -> None:
    events = await answer("draft-critique-revise", Model("A draft.", "Too short.", "A longer draft."), asks("Write."))
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["A ", "longer ", "draft."]
    assert thoughts_of(events) == "draft:\nA draft.\n\ncritique:\nToo short.\n\n"
    assert events[-1] == Usage(9, 7)


async def test_best_of_makes_as_many_drafts_as_are_wanted_and_picks_one() -> None:
    model = Model("One.", "Two.", "Three.", "Two.")
    output = await run("best-of", model, {"task": "Name it."})
    assert output == {"generated": "Two.", "drafts": ["One.", "Two.", "Three."]}
    assert [request.sampling.temperature for request in model.requests] == [1.0, 1.0, 1.0, 0]
    ((_, asked),) = model.asked(3)
    assert '["One.", "Two.", "Three."]' in asked
    assert asked.startswith("Name it.\n\n")
    assert len((await run("best-of", Model("A"), {"task": "Name it.", "drafts": "5"}))["drafts"]) == 5


async def test_pros_and_cons_asks_both_sides_at_once_and_joins_them() -> None:
    model = Model("Good.", "Bad.", "Take it.")
    output = await run("pros-and-cons", model, {"topic": "local models"})
    assert output == {"generated": "Take it.", "pros": "Good.", "cons": "Bad."}
    assert model.asked(0) == [("user", "What are the advantages of local models?")]
    assert model.asked(1) == [("user", "What are the disadvantages of local models?")]
    ((_, asked),) = model.asked(2)
    assert asked.startswith(
        "These are the advantages of local models:\n\nGood.\n\nThese are the disadvantages:\n\nBad."
    )
    events = await answer("pros-and-cons", Model("Good.", "Bad.", "Take it."), asks("local models"))
    assert text_of(events) == "Take it."
    assert thoughts_of(events) == "pros:\nGood.\n\ncons:\nBad.\n\n"
