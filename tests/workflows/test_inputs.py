"""What a workflow reads of its input."""

from __future__ import annotations

from typing import Any

import pytest
from loading import CHAT, loaded

from modelcompose.workflows.inputs import Input, inputs_of

TEXT = "component: {type: model, task: text-generation, model: bundled}\n"
SHELL = "component: {id: c, type: shell, command: 'echo ${input.x}'}\n"


def read(text: str) -> list[Input]:
    """The inputs of a file's first workflow."""
    file = loaded(text)
    return list(inputs_of(file.workflows[0], file))


def told(text: str) -> list[tuple[str, str, bool, Any]]:
    return [(each.name, each.type, each.required, each.default) for each in read(text)]


@pytest.mark.parametrize(
    ("text", "inputs"),
    [
        pytest.param(
            CHAT, [("system_prompt", "text", False, None), ("user_prompt", "text", True, None)], id="the usual inputs"
        ),
        pytest.param(TEXT, [("prompt", "text", True, None)], id="the usual prompt"),
        pytest.param(
            CHAT + "workflow:\n  input: {system_prompt: Be kind., user_prompt: '${input.question}'}",
            [("question", "text", True, None)],
            id="through the job's input",
        ),
        pytest.param(
            CHAT + "workflow:\n  input: {user_prompt: '${input.q}'}\n  jobs: [{id: a}, {id: b}]",
            [("system_prompt", "text", False, None), ("q", "text", True, None)],
            id="through the workflow's input",
        ),
        pytest.param(
            CHAT + "workflow:\n  input: {q: '${input.w}'}\n  jobs: [{id: a, input: {user_prompt: 'Say ${input.q}'}}]",
            [("system_prompt", "text", False, None), ("w", "text", True, None)],
            id="through both",
        ),
        pytest.param(
            CHAT + "workflow: {input: '${input.chat}'}", [("chat", "object", True, None)], id="through an object"
        ),
        pytest.param(
            CHAT + "workflow: {input: {user_prompt: '${input.q | hi}', unused: '${input.z}'}}",
            [("system_prompt", "text", False, None), ("q", "text", False, "hi")],
            id="a default on the way, and what nothing reads",
        ),
        pytest.param(CHAT + "  messages: ${input.messages}", [("messages", "list", True, None)], id="all messages"),
        pytest.param(
            CHAT + "  messages: ['${input.history}', {role: user, content: '${input.q}'}]",
            [("history", "list", False, None), ("q", "text", True, None)],
            id="messages spliced in",
        ),
        pytest.param(
            CHAT + "  messages: [{role: system, content: hi}, '${input.history}']",
            [("history", "list", True, None)],
            id="messages spliced in, and no other of the user",
        ),
        pytest.param(
            """
            component:
              type: model
              task: chat-completion
              model: bundled
              messages:
                - role: system
                  content: ${input.system_prompt | "You are a helpful assistant."}
                - role: user
                  content: ${input.conversation_history[0].content}
                - role: assistant
                  content: ${input.conversation_history[0].response}
                - role: user
                  content: ${input.user_prompt}
            """,
            [
                ("system_prompt", "text", False, "You are a helpful assistant."),
                ("conversation_history", "list", False, None),
                ("user_prompt", "text", True, None),
            ],
            id="several turns",
        ),
        pytest.param(
            """
            component:
              type: model
              task: chat-completion
              model: bundled
              messages:
                - role: system
                  content: |
                    You are a ${input.role | "helpful assistant"}.
                    ${input.additional_instructions}
                - {role: user, content: "${input.user_prompt}"}
            """,
            [
                ("role", "text", False, "helpful assistant"),
                ("additional_instructions", "text", False, None),
                ("user_prompt", "text", True, None),
            ],
            id="text around references",
        ),
        pytest.param(
            """
            workflow:
              jobs:
                - id: generate-multiple
                  repeat_count: ${input.batch_size}
                  input:
                    prompt: ${input.prompts[${index}]}
            component: {type: model, task: text-generation, model: bundled, text: "${input.prompt as text}"}
            """,
            [("batch_size", "integer", True, None), ("prompts", "list", True, None)],
            id="a batch",
        ),
        pytest.param(
            TEXT.replace("bundled", "bundled, text: '${input.template | \"About: ${input.topic}\"}'"),
            [("topic", "text", False, None), ("template", "text", False, None)],
            id="a default with a reference",
        ),
        pytest.param(
            TEXT.replace(
                "}", ", params: {top_k: '${input.k}', do_sample: '${input.d}', temperature: '${input.t | 1}'}}"
            ),
            [
                ("prompt", "text", True, None),
                ("t", "number", False, 1),
                ("k", "integer", False, None),
                ("d", "boolean", False, None),
            ],
            id="parameters",
        ),
        pytest.param(
            """
            component:
              type: http-client
              base_url: http://${input.host | localhost}
              path: /${input.name}
              headers: {authorization: "Bearer ${input.key}"}
              params: {q: "${input.q | 5}"}
              body: {a: "${input.a}", b: "${input.b as list}", c: "${input.c | {}}"}
              output: ${input.suffix}
            """,
            [
                ("name", "text", True, None),
                ("a", "json", True, None),
                ("b", "list", True, None),
                ("c", "object", False, {}),
                ("q", "text", False, 5),
                ("key", "text", False, None),
                ("host", "text", False, "localhost"),
                ("suffix", "json", False, None),
            ],
            id="a request",
        ),
        pytest.param(
            SHELL + "workflow: {jobs: [{id: a}, {id: b, input: {x: '${jobs.a.output}'}}]}",
            [("x", "text", True, None)],
            id="what a job before gives is no input",
        ),
        pytest.param(
            SHELL + "workflow: {jobs: [{id: a, input: {x: '${input.x | 1}'}}, {id: b}]}",
            [("x", "text", True, None)],
            id="needed in one place",
        ),
        pytest.param(
            """
            components:
              - {id: say, type: shell, command: "echo ${input.words as text @(what to say)} ${input.n | 3}"}
              - {id: inner, type: workflow, workflow: inner, input: {words: "${input.text}", n: "${input.count}"}}
            workflows:
              - {id: outer, component: inner}
              - {id: inner, component: say}
            """,
            [("text", "text", True, None), ("count", "text", False, 3)],
            id="a workflow within",
        ),
        pytest.param(
            """
            components:
              - {id: say, type: shell, command: "echo ${input.words}"}
              - {id: inner, type: workflow, workflow: inner}
            workflows:
              - {id: outer, component: inner, input: {words: "${input.a.b}"}}
              - {id: inner, component: say}
            """,
            [("a", "object", True, None)],
            id="a workflow that is given the job's input",
        ),
        pytest.param("component: {type: shell, command: date}", [], id="nothing"),
    ],
)
def test_inputs(text: str, inputs: list[tuple[str, str, bool, Any]]) -> None:
    assert told(text) == inputs


def test_descriptions() -> None:
    assert read("component: {type: shell, command: 'echo ${input.x @(what to say)} ${input.x}'}") == [
        Input("x", "text", required=True, description="what to say")
    ]
