"""YAML as it is meant, the environment, and several files as one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loading import CHAT, loaded, mistakes

from modelcompose.workflows.dotenv import parse_dotenv
from modelcompose.workflows.load import load
from modelcompose.workflows.references import render_deep
from modelcompose.workflows.schema import (
    ChatModelComponent,
    ComposeFile,
    HttpAction,
    HttpClientComponent,
    HubModel,
    ShellComponent,
)
from modelcompose.workflows.tree import ConfigErrors

HTTP = "component: {type: http-client, base_url: http://127.0.0.1:1, path: /, body: BODY}\n"


def body(text: str, env: dict[str, str] | None = None, dotenv: str | None = None) -> Any:
    """What a request's body, as YAML, renders to."""
    file = loaded(HTTP.replace("BODY", text), env=env, dotenv=dotenv)
    (action,) = file.components[0].actions
    assert isinstance(action, HttpAction)
    return render_deep(action.body, {"input": {"x": "given ${input.x}"}})


# YAML -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("on", "on"),
        ("yes", "yes"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("017", 17),
        ("0o17", 15),
        ("0xff", 255),
        ("-3", -3),
        ("1e-5", 1e-5),
        ("1.", 1.0),
        (".5", 0.5),
        ("1e999", "1e999"),
        (".inf", ".inf"),
        ("1_000", "1_000"),
        ('"1"', "1"),
        ("!!str 1", "1"),
        ('!!int "7"', 7),
        ("{1: a, true: b}", {"1": "a", "true": "b"}),
        ("9" * 30, int("9" * 30)),
    ],
)
def test_scalars_are_those_of_yaml_1_2(written: str, value: object) -> None:
    found = body(written)
    assert found == value
    assert type(found) is type(value)


def test_a_number_too_long_to_be_one_is_refused() -> None:
    assert "is no int" in mistakes(HTTP.replace("BODY", "9" * 5000))[0]


def test_anchors_and_merge_keys() -> None:
    assert body("[&a {x: 1, y: 2}, {<<: *a, y: 3}, {<<: [{y: 4}, *a]}]") == [
        {"x": 1, "y": 2},
        {"x": 1, "y": 3},
        {"x": 1, "y": 4},
    ]


def test_other_encodings(tmp_path: Path) -> None:
    for encoding in ("utf-8-sig", "utf-16"):
        (tmp_path / "a.yml").write_text(CHAT + "workflow: {title: Grüße}", encoding=encoding)
        assert load([tmp_path / "a.yml"], env={}).file.workflows[0].title == "Grüße"


def test_paths_are_relative_to_the_first_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.yml").write_text(CHAT, encoding="utf-8")
    (tmp_path / "sub" / "b.yml").write_text("controller: {port: 1}", encoding="utf-8")
    compose = load([tmp_path / "a.yml", tmp_path / "sub" / "b.yml"], env={})
    assert compose.folder == tmp_path
    assert compose.paths == (tmp_path / "a.yml", tmp_path / "sub" / "b.yml")
    assert compose.file.controller.port == 1


# Environment ----------------------------------------------------------------------------------------------------------


def test_a_variable_that_is_a_number_where_a_number_is_wanted() -> None:
    text = CHAT + "controller: {port: '${env.PORT | 8080}'}"
    assert loaded(text).controller.port == 8080
    assert loaded(text, env={"PORT": "9"}).controller.port == 9
    assert mistakes(text, env={"PORT": "abc"}) == ["a.yml:5:20: controller.port: must be a whole number, not 'abc'"]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("${env.A}", "a"),
        ("<${env.A}> ${env.NONE | 1}", "<a> 1"),
        ("${env.NONE | 1}", 1),
        ("${env.NONE | [1]}", [1]),
        ("${env.NONE | ${env.A}!}", "a!"),
        ("${env.EMPTY | b}", ""),
        ("${env.N as integer}", 5),
        ("${env.J as json}", {"k": ["${input.x}"]}),
        ("${input.none | ${env.A}}", "a"),
        ("${input.none | ${env.REFERENCE} and ${input.x}}", "${input.x} and given ${input.x}"),
        ("${env.NONE | ${env.J as json}}", {"k": ["${input.x}"]}),
        ("${env.NONE | <${env.J}>}", '<{"k": ["${input.x}"]}>'),
        ('${input["${env.A}"] | none}', "none"),
        ("${env.REFERENCE}", "${input.x}"),
        ("${env.REFERENCE} ${input.x}", "${input.x} given ${input.x}"),
        ("\\${env.A}", "${env.A}"),
    ],
)
def test_variables_are_literal_pieces_of_templates(written: str, value: object) -> None:
    variables = {"A": "a", "EMPTY": "", "N": "5", "J": '{"k": ["${input.x}"]}', "REFERENCE": "${input.x}"}
    assert body(f"'{written}'", variables) == value


@given(st.text(st.characters(codec="utf-8"), max_size=60))
@settings(max_examples=60)
def test_a_variable_is_never_parsed_and_never_changes_structure(value: str) -> None:
    assert body("['${env.V}', 'a ${env.V} b', {k: '${input.none | ${env.V}}'}]", {"V": value}) == [
        value,
        f"a {value} b",
        {"k": value},
    ]


def test_the_environment_counts_over_dotenv_and_dotenv_files_over_each_other(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text(HTTP.replace("BODY", "'${env.A} ${env.B} ${env.C | none}'"), encoding="utf-8")
    (tmp_path / ".env").write_text("A=dot\nB=dot\nC=dot", encoding="utf-8")
    (tmp_path / "one").write_text("A=one\nB=one", encoding="utf-8")
    (tmp_path / "two").write_text("A=two\nB=two", encoding="utf-8")
    assert _body(load([tmp_path / "a.yml"], env={"B": "env"}).file) == "dot env dot"
    files = [tmp_path / "one", tmp_path / "two"]
    assert _body(load([tmp_path / "a.yml"], env={"B": "env"}, env_files=files).file) == "two env none"
    with pytest.raises(ConfigErrors, match="three: no such file"):
        load([tmp_path / "a.yml"], env={}, env_files=[tmp_path / "three"])


def _body(file: ComposeFile) -> Any:
    (component,) = file.components
    assert isinstance(component, HttpClientComponent)
    return render_deep(component.actions[0].body, {})


def test_what_is_not_set_and_has_no_default_is_told_once_for_each_place() -> None:
    problems = mistakes(HTTP.replace("BODY", "['${env.A} ${env.HOMEE}', '${env.x.y}']"), env={"HOME": "/"})
    assert [problem.partition(": component.")[2] for problem in problems] == [
        "body[0]: the environment variable 'A' is not set; set it, here or in .env, or give a default: ${env.A | ...}",
        "body[0]: the environment variable 'HOMEE' is not set; did you mean 'HOME'?",
        "body[1]: 'env.x.y' is no variable; write ${env.NAME}",
    ]
    assert "must be an integer" in mistakes(HTTP.replace("BODY", "'${env.A as integer}'"), env={"A": "b"})[0]


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=b", "b"),
        ("export A = b", "b"),
        ("A=b # c", "b"),
        ("A=b#c", "b#c"),
        ("A=", ""),
        ("A=  ", ""),
        ("A=# c", ""),
        ("A='b # c'", "b # c"),
        ("A='b\\n$c' # d", "b\\n$c"),
        ('A="b\\n\\"c\\" \\\\"', 'b\n"c" \\'),
        ('A="b\nc"', "b\nc"),
        ("A: b", "b"),
        ("A=b=c", "b=c"),
        ("A=${B}", "${B}"),
        ("\n# x\n\n  A=b\r\n", "b"),
        ("B=1\nA=b\nC=2", "b"),
    ],
)
def test_dotenv_lines(line: str, value: str) -> None:
    found, problems = parse_dotenv(line, ".env")
    assert problems == []
    assert found["A"] == value


def test_dotenv_lines_that_are_none() -> None:
    found, problems = parse_dotenv("A\nB=1\n=x\nC='open\nD=2\n", ".env")
    assert found == {"B": "1", "D": "2"}
    assert [str(problem) for problem in problems] == [
        ".env:3:1: expected NAME=VALUE",
        ".env:4:1: expected NAME=VALUE",
    ]


@given(st.text(max_size=80))
@settings(max_examples=200)
def test_any_text_can_be_read_as_dotenv(text: str) -> None:
    found, problems = parse_dotenv(text, ".env")
    assert len(found) + len(problems) <= text.count("\n") + text.count("\r") + 1


# Several files --------------------------------------------------------------------------------------------------------


def test_a_later_file_counts_over_an_earlier_one() -> None:
    file = loaded(
        CHAT + "  params: {temperature: 1, top_p: 0.5}\n  stop_sequences: [a, b]\ncontroller: {port: 1, host: h}",
        "component: {model: gpt2, params: {temperature: 0}, stop_sequences: [c]}\ncontroller: {port: 2}",
    )
    (component,) = file.components
    assert isinstance(component, ChatModelComponent)
    params = component.actions[0].params
    assert component.model == HubModel(repository="gpt2")
    assert (params.temperature, params.top_p, params.stop_sequences) == (0, 0.5, ["c"])
    assert (file.controller.port, file.controller.host) == (2, "h")


def test_things_with_ids_are_merged_by_id() -> None:
    file = loaded(
        "components:\n  - {id: a, type: shell, command: a}\n  - {id: b, type: shell, command: b}\n"
        "workflow: {id: w, jobs: [{id: one, component: a}, {id: two, component: b}]}",
        "components:\n  - {id: b, timeout: 3}\n  - {id: c, type: shell, command: c}\n"
        "workflow: {id: w, title: W, jobs: [{id: two, depends_on: one}]}",
    )
    shells = [component for component in file.components if isinstance(component, ShellComponent)]
    assert [(shell.id, shell.timeout) for shell in shells] == [("a", 600), ("b", 3), ("c", 600)]
    (workflow,) = file.workflows
    assert workflow.title == "W"
    assert [(job.id, job.component, job.depends_on) for job in workflow.jobs] == [
        ("one", "a", ()),
        ("two", "b", ("one",)),
    ]


def test_files_may_be_spelled_differently() -> None:
    file = loaded(
        "component: {type: http-client, base_url: http://u, action: {path: /, body: {a: 1, b: 2}}}",
        "components: [{body: {b: 3}, headers: {A: b}}]",
        "controller: {adapter: {port: 7}}",
    )
    (component,) = file.components
    assert isinstance(component, HttpClientComponent)
    assert component.actions[0].body == {"a": 1, "b": 3}
    assert component.headers == {"A": "b"}
    assert file.controller.port == 7


def test_three_files_the_last_of_which_resets_and_replaces() -> None:
    file = loaded(
        CHAT + "  params: {temperature: 1}\n  tools: [x]\ncontroller: {host: h, port: 1}\nworkflow: {id: a}",
        "controller: {port: 2}",
        "component: {tools: !reset [], params: !override {top_p: 1}}\ncontroller: !reset null\nworkflow: {id: b}",
    )
    (component,) = file.components
    assert isinstance(component, ChatModelComponent)
    assert component.actions[0].tools is None
    assert component.actions[0].params.temperature is None
    assert (file.controller.host, file.controller.port) == ("127.0.0.1", 8080)
    assert [workflow.id for workflow in file.workflows] == ["a", "b"]


def test_a_variable_may_be_missing_where_a_later_file_does_without() -> None:
    text = CHAT + "controller: {port: '${env.NOT_SET}'}"
    assert mistakes(text)
    assert loaded(text, "controller: {port: 5}").controller.port == 5


def test_a_problem_is_told_in_the_file_it_is_in() -> None:
    assert mistakes(CHAT, "component: {mesages: []}", "controller:\n  port: x") == [
        "b.yml:1:13: component.mesages: unknown key; did you mean 'messages'?",
        "c.yml:2:9: controller.port: must be a whole number, not 'x'",
    ]


# Anything -------------------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(
    "component components workflow workflows controller adapter adapters webui id type task model params messages "
    "text prompt action actions jobs job input output depends_on repeat_count openai manage start install env retry "
    "command path body headers port stream_format default title x-y << timeout peft_adapters provider name".split()
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 70000),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(
        "model shell http-server http-client workflow chat-completion text-generation bundled a ./a default lora "
        "${input.x} ${jobs.a.output} ${env.A} ${env.B|1} ${output ${x as y} \\${ ${input.a[${index}]|{}} echo".split()
    ),
)
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=4), inner, max_size=5)
)
COMPONENTS = st.fixed_dictionaries(
    {"type": st.sampled_from(["model", "shell", "http-client", "http-server", "workflow"])},
    optional={
        "task": st.sampled_from(["chat-completion", "text-generation", "x"]),
        "model": SCALARS | TREES,
        **dict.fromkeys("id messages prompt params action actions command start manage env body retry".split(), TREES),
    },
)
FILES = st.fixed_dictionaries(
    {},
    optional={
        "component": COMPONENTS,
        "components": st.lists(COMPONENTS, max_size=3) | TREES,
        "workflow": st.dictionaries(WORDS, TREES, max_size=4),
        "workflows": TREES,
        "controller": TREES,
    },
)


@given(st.lists(FILES | TREES, min_size=1, max_size=2))
@settings(max_examples=120)
def test_any_tree_loads_or_is_refused_with_places(trees: list[Any]) -> None:
    _loads_or_is_refused(*(json.dumps(tree) for tree in trees))


@given(
    st.text("component: [] {} ${input.x|} - & * ! # \" ' \n \t < > % @ ~ 0 - --- a".replace(" ", "") + " ", max_size=60)
)
@settings(max_examples=150)
def test_any_text_loads_or_is_refused_with_places(text: str) -> None:
    _loads_or_is_refused(text)
    _loads_or_is_refused(CHAT + text)


def _loads_or_is_refused(*texts: str) -> None:
    for problem in mistakes(*texts, env={"A": "${input.x}"}):
        assert problem.startswith(("a.yml:", "b.yml:"))
        assert "Template(" not in problem
        assert "is-instance" not in problem
