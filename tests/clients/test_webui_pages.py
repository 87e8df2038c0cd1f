"""Forms, diagrams, runs and the view of the server, as the Web UI shows them; and its process."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from modelcompose.adapters.runs import FieldPiece, InputCard, JobCard, JobNews, TextPiece
from modelcompose.clients.compose_files import ComposeOptions
from modelcompose.clients.plan import UpOptions, plan_of
from modelcompose.clients.webui.api import Began, Ended, Told
from modelcompose.clients.webui.diagram import diagram, layout
from modelcompose.clients.webui.forms import WrongInput, fields, given
from modelcompose.clients.webui.glance import Counts, Model, counts, glance, rate
from modelcompose.clients.webui.process import environment
from modelcompose.clients.webui.running import Progress, jobs_shown, result
from modelcompose.clients.webui.stops import Stops
from modelcompose.server.memory import Memory

CARDS = [
    InputCard("system_prompt", "text", False, None, "How it speaks"),
    InputCard("user_prompt", "text", True, None, None),
    InputCard("temperature", "number", False, 0.7, None),
    InputCard("count", "integer", False, None, None),
    InputCard("is_short", "boolean", False, True, None),
    InputCard("is_open", "boolean", False, None, None),
    InputCard("data", "json", False, {"a": 1}, None),
    InputCard("names", "list", False, None, None),
]


def test_each_input_gets_a_field_of_its_kind() -> None:
    form = fields(CARDS)
    assert [field.kind for field in form] == ["text", "text", "number", "number", "check", "choice", "json", "json"]
    assert [field.label for field in form[:2]] == ["System prompt", "User prompt (required)"]
    assert [label for label, _ in form[5].choices] == ["leave open", "yes", "no"]
    assert (form[0].help, form[2].hint, form[4].start, form[6].hint) == ("How it speaks", "0.7", True, '{"a": 1}')


def test_what_is_left_empty_is_left_out() -> None:
    values = ["", "Hello!", None, 3.0, True, "no", "", ""]
    assert given(fields(CARDS), [*values[:5], "", *values[6:]]) == {
        "user_prompt": "Hello!",
        "count": 3,
        "is_short": True,
    }


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["", " ", None, None, True, "", "", ""], "fill in: User prompt"),
        (["", "a", None, 2.5, True, "", "", ""], "Count has to be a whole number"),
        (["", "a", None, None, True, "", "", "{"], "Names has to be JSON"),
        (["", "a", None, None, True, "", "", "{}"], "Names has to be a JSON list"),
    ],
)
def test_what_cannot_be_is_named(values: list[Any], message: str) -> None:
    with pytest.raises(WrongInput, match=message):
        given(fields(CARDS), values)


def test_json_fields_give_values() -> None:
    values = ["", "a", None, None, False, "true", "[1]", '["x"]']
    found = given(fields(CARDS), values)
    assert (found["is_short"], found["is_open"], found["data"], found["names"]) == (False, True, [1], ["x"])


JOBS = [
    JobCard("pros", "talker"),
    JobCard("cons", "talker"),
    JobCard("words", "counter", ("pros", "cons")),
    JobCard("advice", "talker", ("pros", "cons", "words")),
]


def test_a_job_stands_behind_those_it_waits_for() -> None:
    boxes = {box.title: box for box in layout(JOBS)}
    assert {title: box.column for title, box in boxes.items()} == {
        "Input": 0, "pros": 1, "cons": 1, "words": 2, "advice": 3, "Output": 4,
    }  # fmt: skip
    assert boxes["advice"].after == ("words",)
    assert boxes["words"].row == 0.5
    assert boxes["Output"].after == ("advice",)


def test_the_diagram_is_a_drawing_that_says_what_it_shows() -> None:
    jobs = [JobCard("a<b", "a component with a very long name"), JobCard("b", "c", ("a<b",))]
    drawing = ElementTree.fromstring(diagram(jobs, {"b": "failed"}))
    (svg,) = drawing.iter("svg")
    assert svg.get("aria-label") == "Jobs: a<b; b after a<b, failed"
    texts = [text.text for text in drawing.iter("text")]
    assert texts == ["Input", "a<b", "a component with…", "b", "failed", "Output"]
    assert len([path for path in drawing.iter("path") if path.get("class") == "line"]) == 3
    assert "http" not in diagram(jobs)


def test_a_run_is_followed_to_its_end() -> None:
    run = Progress(jobs=("a", "b"))
    news: list[Told] = [Began("task_1"), JobNews("a", "processing"), JobNews("a", "completed")]
    for at, told in enumerate(news):
        run = run.told(told, float(at))
    assert (run.task, run.states, run.times) == ("task_1", {"a": "completed"}, {"a": 1.0})
    streaming = run.told(JobNews("b", "processing"), 3.0).told(TextPiece("# Ti"), 4.0).told(TextPiece("tle"), 5.0)
    assert "<h1>Title</h1>" in result(streaming)
    assert "runs" in jobs_shown(streaming)
    field = run.told(FieldPiece("generated", "a"), 4.0).told(FieldPiece("generated", "b"), 4.0)
    assert "<h3>Generated</h3>" in result(field)
    assert ">ab<" in result(field)
    done = streaming.told(Ended({"generated": "# Title", "n": 1}), 6.0)
    assert "Done after 6.0 s" in result(done)
    assert set(done.states.values()) == {"completed"}
    failed = streaming.told(Ended(error="<no>", job="b"), 6.0)
    assert failed.states == {"a": "completed", "b": "failed"}
    assert "&lt;no&gt;" in result(failed)
    assert streaming.cancelled(6.0).states == {"a": "completed", "b": "cancelled"}


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        ("plain <text>", 'class="plain">plain &lt;text&gt;'),
        ("- a\n- b", "<li>a</li>"),
        ('{"a": 1}', "json"),
        ({"generated": "words"}, "<h3>Generated</h3>"),
        ([1, 2], "json"),
        (None, "null"),
    ],
)
def test_an_output_is_shown_in_the_form_that_fits_it(output: Any, shown: str) -> None:
    assert shown in result(Progress(jobs=(), state="completed", output=output))


def test_rates_and_memory_come_from_the_metrics() -> None:
    def at(seconds: float, tokens: int) -> Counts:
        text = f'modelcompose_model_generated_tokens_total{{model="m"}} {tokens}\n'
        return counts(f'{text}modelcompose_model_running{{model="m"}} 2\n', seconds)

    before, now = at(1.0, 10), at(3.0, 50)
    assert (rate("m", before, now), rate("m", None, now), now.of("m", "running")) == (20.0, 0.0, 2.0)
    registry = CollectorRegistry()
    registry.register(Memory())
    memory = counts(generate_latest(registry).decode(), 0.0).memory
    assert memory.keys() == {"server", "children", "machine", "available"}
    assert 1e7 < memory["server"] < memory["machine"]


@pytest.mark.parametrize(
    ("state", "word", "act"),
    [("ready", "Ready", "Unload"), ("loading", "Loading", "Unload"), ("failed", "Failed", "Load"),
     ("unloaded", "Idle", "Load")],
)  # fmt: skip
def test_a_model_is_shown_with_its_state(state: str, word: str, act: str) -> None:
    models = [Model("m", state, "because <it> is so", 0.5), Model("w", "ready")]
    shown = glance(models, ["w"], None, Counts(0.0))
    assert re.search(rf'class="pill {state}" role="status">{word}<', shown)
    assert f'aria-label="{act} m"' in shown
    assert "because &lt;it&gt; is so" in shown
    assert shown.count('class="card"') == 1
    assert ("50%" in shown) is (state == "loading")


def test_the_figures_of_all_models_are_added_up() -> None:
    of = {"running": 2.0, "waiting": 3.0, "generated_tokens": 10.0}
    memory = {"server": 2e8, "children": 1.3e9, "machine": 1.6e10}
    before, now = (Counts(at, {"a": of, "b": {**of, "generated_tokens": 10 * at}}, memory) for at in (1.0, 3.0))
    shown = glance([Model("a", "ready"), Model("b", "ready")], [], before, now)
    tiles = re.findall(r'class="tile"><dt>(.*?)</dt><dd>(.*?)</dd>', shown)
    assert tiles == [
        ("Tokens a second", "10"),
        ("Running", "4"),
        ("Waiting in the queue", "6"),
        ("Memory", "1.5 GB<small> of 16.0 GB</small>"),
    ]


def test_what_is_loaded_elsewhere_has_no_button() -> None:
    assert "data-act" not in glance([Model("m", "ready", is_ours=False)], [], None, Counts(0.0))


async def test_new_work_begins_when_the_old_has_ended() -> None:
    stops, told = Stops(), list[str]()

    async def work(name: str) -> None:
        async with stops.working("s") as stop:
            told.append(f"{name} begins")
            await stop.wait()
            await asyncio.sleep(0)
            told.append(f"{name} ends")

    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        tasks.create_task(work("a"))
        await asyncio.sleep(0)
        assert stops.is_working("s")
        tasks.create_task(work("b"))
        await asyncio.sleep(0.05)
        stops.stop("another")
        await stops.ended("s")
        assert not stops.is_working("s")
    assert told == ["a begins", "a ends", "b begins", "b ends"]


def test_the_process_gets_no_key_and_is_told_to_be_quiet() -> None:
    env = environment({"MODEL_COMPOSE_API_KEY": "secret", "GRADIO_SHARE": "True", "HOME": "/h", "NO_PROXY": "x"})
    assert "secret" not in env.values()
    assert "GRADIO_SHARE" not in env
    assert (env["GRADIO_ANALYTICS_ENABLED"], env["NO_PROXY"], env["HOME"]) == ("False", "*", "/h")


@pytest.mark.parametrize(
    ("said", "place"),
    [
        ("", ("127.0.0.1", 8081)),
        ("webui: false", None),
        ("webui: {driver: gradio, port: 9}", ("127.0.0.1", 9)),
        ("webui: {host: 0.0.0.0}", ("0.0.0.0", 8081)),
    ],
)
def test_the_file_says_where_it_is_served(said: str, place: tuple[str, int] | None, tmp_path: Path) -> None:
    file = tmp_path / "model-compose.yml"
    component = "{type: model, task: chat-completion, model: bundled}"
    file.write_text(f"controller: {{{said}}}\ncomponent: {component}\nworkflow: {{id: w}}\n", encoding="utf-8")
    assert plan_of(UpOptions(compose=ComposeOptions(files=(file,)))).webui == place


def test_where_it_is_served() -> None:
    plan = plan_of(UpOptions(has_file=False, host="0.0.0.0"))
    assert plan.webui == ("0.0.0.0", 8081)
    assert plan_of(UpOptions(has_file=False, webui_port=9)).webui == ("127.0.0.1", 9)
    assert plan_of(UpOptions(has_file=False, has_webui=False)).webui is None
