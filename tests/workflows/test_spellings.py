"""Every spelling of a compose file that is accepted, against the one it stands for."""

from __future__ import annotations

import pytest
from loading import CHAT, loaded, mistakes
from seeds_documents import SPELLINGS, Seed, every_seed

from modelcompose.workflows.load import load
from modelcompose.workflows.references import Template, render
from modelcompose.workflows.schema import BundledModel, ChatAction, HubModel, LocalModel, NamedModel
from modelcompose.workflows.spellings import slug

PLAIN = """
components:
  - id: default
    type: model
    task: chat-completion
    model: {provider: bundled}
    actions:
      - messages:
          - {role: user, content: "${input.question}"}
        params: {max_output_length: 9}
workflows:
  - id: talk
    jobs:
      - input: {question: "${input.text}"}
        output: {said: "${output}"}
"""
HTTP = """
components:
  - id: default
    type: http-client
    base_url: http://127.0.0.1:1
    actions:
      - {path: /v1/chat/completions, headers: {A: b}, body: {stream: true}, output: "${response.x}"}
workflows:
  - jobs: [{}]
"""
SERVER = """
components:
  - type: http-server
    manage:
      install: ["make a", "make b"]
      build: [[make, c]]
      start: ["serve --port 8000"]
      clean: ["make clean all"]
      working_dir: x
      env: {A: "1", B: c=d}
    actions: [{path: /}]
workflows: [{jobs: [{}]}]
"""


@every_seed
def test_an_example_is_the_same_in_all_its_spellings(seed: Seed) -> None:
    flat, action, job = (load([seed.spelled(spelling)], env={}).file for spelling in SPELLINGS)
    assert flat == action
    assert flat == job


@pytest.mark.parametrize(
    ("text", "same"),
    [
        pytest.param(
            """
            component:
              type: model
              task: chat-completion
              model: bundled
              action:
                messages:
                  - {role: user, content: "${input.question}"}
                params: {max_output_length: 9}
            workflow:
              id: talk
              job:
                input: {question: "${input.text}"}
                output: {said: "${output}"}
            """,
            PLAIN,
            id="one of each",
        ),
        pytest.param(
            """
            component:
              type: model
              task: chat-completion
              model: bundled
              messages: [{role: user, content: "${input.question}"}]
              max_output_length: 9
            workflow:
              id: talk
              input: {question: "${input.text}"}
              output: {said: "${output}"}
            """,
            PLAIN,
            id="an action's keys on the component, a job's on the workflow",
        ),
        *(
            pytest.param(PLAIN.replace("max_output_length", name), PLAIN, id=f"params.{name}")
            for name in ("max_new_tokens", "max_tokens", "max_completion_tokens")
        ),
        *(
            pytest.param(PLAIN.replace("params: {max_output_length: 9}", f"{name}: 9"), PLAIN, id=f"action.{name}")
            for name in ("max_output_length", "max_new_tokens", "max_tokens")
        ),
        pytest.param(PLAIN.replace("- input:", "- type: action\n        input:"), PLAIN, id="type: action"),
        pytest.param(PLAIN.replace("- input:", "- type: component\n        input:"), PLAIN, id="type: component"),
        pytest.param(
            PLAIN.replace("{provider: bundled}", "bundled\n    driver: huggingface\n    max_concurrent_count: 0"),
            PLAIN,
            id="driver: huggingface, and no limit",
        ),
        pytest.param(
            PLAIN + "controller:\n  adapter: {type: http-server, port: 9, base_path: /x}",
            PLAIN + "controller: {type: http-server, port: 9, base_path: /x}",
            id="controller.adapter",
        ),
        pytest.param(
            PLAIN + "controller:\n  adapters: [{type: http-server, port: 9, base_path: x/}]",
            PLAIN + "controller: {type: http-server, port: 9, base_path: /x}",
            id="controller.adapters",
        ),
        pytest.param(
            PLAIN.replace("params:", "stop: [a]\n        params:"), PLAIN.replace("9}", "9, stop: [a]}"), id="stop"
        ),
        pytest.param(
            PLAIN.replace("9}", "9, stop: [a], n: 2, min_new_tokens: 3}"),
            PLAIN.replace("9}", "9, stop_sequences: [a], num_return_sequences: 2, min_output_length: 3}"),
            id="names of other programs",
        ),
        pytest.param(
            PLAIN.replace("params:", "stream: true\n        params:"),
            PLAIN.replace("params:", "streaming: true\n        params:"),
            id="stream",
        ),
        pytest.param(
            """
            component:
              type: http-client
              base_url: http://127.0.0.1:1
              path: /v1/chat/completions
              headers: {A: b}
              body: {streaming: true}
              output: ${response.x}
            """,
            HTTP,
            id="a request on the component, streaming for stream, a file without workflows",
        ),
        pytest.param(
            """
            component:
              type: http-server
              install: [make a, make b]
              build: [make, c]
              start: serve --port 8000
              clean: [make clean all]
              working_dir: x
              env: [A=1, B=c=d]
              path: /
            """,
            SERVER,
            id="commands and environment on the component",
        ),
        pytest.param(
            SERVER.replace('"make a", "make b"', "[make a], [make b]").replace(
                "serve --port 8000", "serve --port 8000"
            ),
            SERVER,
            id="lists of one line",
        ),
        pytest.param(SERVER.replace("[[make, c]]", "[make, c]"), SERVER, id="one command of words"),
        pytest.param(
            CHAT + "workflow: {title: My Title!}\n",
            CHAT + "workflow: {id: my-title, title: My Title!}",
            id="a title as id",
        ),
        pytest.param(
            CHAT + "workflow:\n  jobs: [{id: a}, {id: b, depends_on: a}]",
            CHAT + "workflow:\n  jobs: [{id: a}, {id: b, depends_on: [a]}]",
            id="depends_on one",
        ),
        pytest.param(
            "component: {type: shell, command: [echo hello]}",
            "component: {type: shell, command: echo hello}",
            id="a list of one command line",
        ),
        pytest.param(
            "component: {type: shell, command: [sleep, 1], timeout: 1m30s}",
            'component: {type: shell, command: [sleep, "1"], timeout: 90}',
            id="numbers among words, and a duration",
        ),
        pytest.param(
            HTTP.replace("base_url", "retry: 5\n    base_url"),
            HTTP.replace("base_url", "retry: {attempts: 5}\n    base_url"),
            id="retry as a number",
        ),
        pytest.param(CHAT + "controller: {webui: true}", CHAT, id="webui: true"),
        pytest.param(CHAT + "controller:\nworkflow:\n", CHAT, id="keys left empty"),
        pytest.param(
            "x-base: &base {task: chat-completion}\ncomponent: {<<: *base, type: model, model: bundled}", CHAT, id="x-"
        ),
    ],
)
def test_spellings_that_mean_the_same(text: str, same: str) -> None:
    assert loaded(text) == loaded(same)


@pytest.mark.parametrize(
    ("written", "model"),
    [
        ("bundled", BundledModel()),
        ("HuggingFaceTB/SmolLM3-3B", HubModel(repository="HuggingFaceTB/SmolLM3-3B")),
        ("gpt2", HubModel(repository="gpt2")),
        ("./models/mine", LocalModel(path="./models/mine")),
        ("../mine", LocalModel(path="../mine")),
        ("/srv/mine", LocalModel(path="/srv/mine")),
        ("~/mine", LocalModel(path="~/mine")),
        ("{repository: a/b, revision: main}", HubModel(repository="a/b", revision="main")),
        ("{provider: huggingface, repository: a/b, token: x}", HubModel(repository="a/b", token="x")),
        ("{path: mine}", LocalModel(path="mine")),
        ("{name: support}", NamedModel(name="support")),
    ],
)
def test_a_model_is_named_or_described(written: str, model: object) -> None:
    file = loaded(CHAT.replace("bundled", written) + "workflow: {id: other}")
    assert file.components[0].model == model  # type: ignore[union-attr]


def test_adapters_may_be_objects_of_weight_one() -> None:
    text = CHAT + "  peft_adapters: [a/b, {type: lora, name: x, model: c/d, weight: 1.0}]"
    assert loaded(text).components[0].peft_adapters == ("a/b", "c/d")  # type: ignore[union-attr]
    assert mistakes(text.replace("1.0", "0.7")) == [
        "a.yml:5:66: component.peft_adapters[1].weight: adapters are applied with weight 1; others are not supported"
    ]


def test_a_component_without_an_action_takes_the_usual_inputs() -> None:
    (action,) = loaded(CHAT).components[0].actions
    assert isinstance(action, ChatAction)
    templates = [message["content"] for message in action.messages]
    scope = {"input": {"system_prompt": "s", "user_prompt": "u"}}
    assert [render(template, scope) for template in templates if isinstance(template, Template)] == ["s", "u"]


def test_a_file_without_workflows_has_one_for_its_component() -> None:
    (workflow,) = loaded(CHAT).workflows
    assert (workflow.id, len(workflow.jobs), workflow.jobs[0].component) == ("default", 1, None)


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Chat with vLLM server", "chat-with-vllm-server"),
        ("  A/B: c_d ", "a-b-c-d"),
        ("与 vLLM 聊天", "与-vllm-聊天"),
        ("!?", ""),
    ],
)
def test_a_title_becomes_a_name(title: str, name: str) -> None:
    assert slug(title) == name
