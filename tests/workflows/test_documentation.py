"""docs/workflows.md is true: its files load, its lines run, its tables are what there is.

`test_documentation_server.py` runs it against a server.
"""

from __future__ import annotations

import asyncio
import json
import re
import shlex
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from composing import asks, echoing, events_of
from documents import Block, blocks, tables
from scripted import ScriptedAdapter
from served import a_free_port
from upstream import deltas, streams, upstream

from modelcompose.adapters.errors import ModelUnavailable
from modelcompose.adapters.events import TextDelta
from modelcompose.adapters.transformers.settings import ModelSettings
from modelcompose.clients.validate import summary
from modelcompose.workflows import library
from modelcompose.workflows.inputs import inputs_of
from modelcompose.workflows.load import load
from modelcompose.workflows.model import workflow_models
from modelcompose.workflows.runner import Runner
from modelcompose.workflows.schema import BaseModelComponent, BundledModel, NamedModel
from modelcompose.workflows.tree import ConfigErrors

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "workflows.md").read_text(encoding="utf-8")


class Line(NamedTuple):
    """A `model-compose run` line, and the file that it is about."""

    file: Block
    workflow: str | None
    given: Any


def files() -> list[Block]:
    return blocks(PAGE, "yaml")


def lines(command: str) -> Iterator[tuple[Block, list[str]]]:
    """The words behind `model-compose COMMAND` in every such line, with the last file before it."""
    file = files()[0]
    for block in blocks(PAGE, "yaml", "sh"):
        if block.language == "yaml":
            file = block
            continue
        for line in block.text.replace("\\\n", "").splitlines():
            words = shlex.split(line, comments=True)
            if words[:2] == ["model-compose", command]:
                yield file, words[2:]


def runs() -> Iterator[Line]:
    """The lines that run a workflow of a file of the page."""
    for file, words in lines("run"):
        *name, option, given = words
        if option == "--input" and "-f" not in name:
            yield Line(file, name[0] if name else None, json.loads(given))


@asynccontextmanager
async def opened(settings: ModelSettings) -> AsyncIterator[ScriptedAdapter]:
    yield ScriptedAdapter({settings.name: echoing})


def written(folder: Path, text: str) -> Path:
    path = folder / "model-compose.yml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("file", files(), ids=lambda file: f"line {file.line}")
def test_every_file_loads_and_can_be_run_at_once(file: Block, tmp_path: Path) -> None:
    compose = load([written(tmp_path, file.text)], env={})
    for component in compose.file.components:
        if isinstance(component, BaseModelComponent):
            assert isinstance(component.model, BundledModel)


@pytest.mark.parametrize("line", [*runs()], ids=lambda line: f"line {line.file.line}, {json.dumps(line.given)[:50]}")
async def test_every_line_that_runs_a_workflow_works(line: Line, tmp_path: Path) -> None:
    async with upstream(streams(*deltas("a", "b"), b"data: [DONE]\n\n")) as server:
        text = line.file.text.replace("8123", str(a_free_port()))
        compose = load([written(tmp_path, text)], env={"REMOTE_URL": server.url})
        async with Runner(compose, open_model=opened) as runner:
            value = await value_of(runner, line)
    assert value not in (None, "", [], {})
    if line.workflow == "word-count":
        assert value == 5
    if "http-server" in text:
        assert value == text


async def value_of(runner: Runner, line: Line) -> Any:
    """What the run gives, once the servers that it needs are there."""
    while True:
        try:
            async with runner.run(line.workflow, line.given) as run:
                return await run.value()
        except ModelUnavailable:
            await asyncio.sleep(0.1)


def test_every_file_has_a_line_that_runs_it() -> None:
    unused = {file.line for file in files()} - {line.file.line for line in runs()}
    checked = {file.line for file, _ in lines("validate")}
    asked = {file.line for file in files() if "model: support" in file.text}
    assert unused == checked | asked


def test_what_validate_prints_is_shown(tmp_path: Path) -> None:
    (shown,) = [block.text for block in blocks(PAGE, "text") if block.text.startswith("Models")]
    (file,) = [file for file in files() if "  id: ask\n" in file.text]
    printed = "\n".join(summary(load([written(tmp_path, file.text)], env={})))
    assert printed.startswith(shown)


def test_the_problems_it_shows_are_reported_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (
        "component:\n  type: model\n  task: chat-completion\n  mesages: []\n  model: bundled\n"
        "workflow:\n  jobs:\n    - id: draft\n    - id: final\n      input: {text: '${jobs.draf.output}'}\n"
    )
    Path("model-compose.yml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigErrors) as caught:
        load([Path("model-compose.yml")], env={})
    (shown,) = [block.text for block in blocks(PAGE, "text") if "problems" in block.text]
    assert shown == f"{caught.value.message}\n{len(caught.value.problems)} problems\n"


async def test_an_openai_client_gets_what_the_mapping_says(tmp_path: Path) -> None:
    (file,) = [file for file in files() if "model: support" in file.text]
    async with Runner(load([written(tmp_path, file.text)], env={}), open_model=opened) as runner:
        (model,) = workflow_models(runner)
        assert model.name == "support"
        request = asks("My order is late.", extra={"metadata": {"mood": "Be brief."}})
        events = await events_of(model, request)
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["You said: ", "My order is late."]


def test_the_file_of_the_readme_runs_as_its_lines_say(tmp_path: Path) -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    (file,) = blocks(page, "yaml")
    compose = load([written(tmp_path, file.text)], env={})
    read = {
        workflow.id: [each.name for each in inputs_of(workflow, compose.file)] for workflow in compose.file.workflows
    }
    assert read == {"customer-support": ["customer_question"], "code-reviewer": ["code_to_review"]}
    assert all(f'"{names[0]}": ' in page for names in read.values())


def test_the_table_of_the_library_is_the_library() -> None:
    (table,) = [table for table in tables(PAGE) if table.heading == "Workflows that come along"]
    assert [(name.strip("`"), about) for name, about in table.rows] == [
        (name, library.about(name)) for name in library.names()
    ]


def test_a_name_with_hyphens_is_made_of_the_title(tmp_path: Path) -> None:
    (file,) = [file for file in files() if "title: Batch" in file.text]
    assert load([written(tmp_path, file.text)], env={}).file.workflows[0].id == "batch-text-generation"
    assert "`batch-text-generation`" in PAGE


def test_a_model_may_be_any_of_this_server(tmp_path: Path) -> None:
    assert "`model: {name: ...}`" in PAGE
    text = files()[0].text.replace("model: bundled", "model: {name: support}")
    (component,) = load([written(tmp_path, text)], env={}).file.components
    assert isinstance(component, BaseModelComponent)
    assert component.model == NamedModel(name="support")


def test_it_can_be_read_in_ten_minutes() -> None:
    """Without the code, at the pace of somebody who learns: a hundred and eighty words a minute."""
    words = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL).split()
    assert len(words) < 1800
