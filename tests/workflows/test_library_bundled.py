"""The library on the model that comes with the program: all of it served at once, run, and asked as models."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import httpx2
import pytest
from served import Served

from modelcompose.workflows import library

pytestmark = pytest.mark.timeout(120)

GIVEN: dict[str, dict[str, Any]] = {
    "best-of": {"task": "Name a cafe by the sea.", "drafts": 2},
    "code-reviewer": {"code_to_review": "for i in range(1, len(items)):\n    print(items[i])"},
    "customer-support": {"customer_question": "My order is late."},
    "draft-critique-revise": {"task": "Name a cafe by the sea."},
    "pros-and-cons": {"topic": "local models"},
    "summarise": {
        "text": "Our school has a new library. It has two thousand books and ten quiet places to read. Children may "
        "use it every day after lunch."
    },
    "translate": {"text": "hello", "language": "French"},
}
SENSE = {
    "code-reviewer": "first item",
    "customer-support": "order",
    "pros-and-cons": "model",
    "summarise": "library",
    "translate": "bonjour",
}
"""A word of the answers that the small model has learned."""

EARLIER_JOBS = {
    "best-of": ("drafts[0]", "drafts[1]", "drafts[2]"),
    "draft-critique-revise": ("draft", "critique"),
    "pros-and-cons": ("pros", "cons"),
}
"""They are shown as reasoning; the model may have thoughts of its own besides."""


class Answer(NamedTuple):
    """What a workflow said as a model, what it showed of its work, and the tokens it took."""

    text: str
    thought: str
    completion_tokens: int


def output_of(name: str, server: Served) -> Any:
    """What the runs API answers."""
    body = {"workflow_id": name, "input": GIVEN[name]}
    answer = httpx2.post(f"{server.url}/api/workflows/runs", json=body, timeout=100)
    assert answer.status_code == 200, answer.text
    return answer.json()["output"]


def answer_of(name: str, server: Served) -> Answer:
    """What it streams to an OpenAI client."""
    said = next(value for value in GIVEN[name].values() if isinstance(value, str))
    text, thought, tokens = "", "", 0
    stream = server.client().chat.completions.create(
        model=name,
        messages=[{"role": "user", "content": said}],
        stream=True,
        stream_options={"include_usage": True},
        timeout=100,
    )
    for chunk in stream:
        tokens = chunk.usage.completion_tokens if chunk.usage else tokens
        for choice in chunk.choices:
            text += choice.delta.content or ""
            thought += getattr(choice.delta, "reasoning_content", None) or ""
    return Answer(text, thought, tokens)


class Asked(NamedTuple):
    """What is on its way, by the name of the workflow."""

    outputs: dict[str, Future[Any]]
    answers: dict[str, Future[Answer]]


@pytest.fixture(scope="module")
def asked(workflow_server: Served) -> Iterator[Asked]:
    """All of them are asked at once, which takes the model hardly longer than one."""
    names = library.names()
    with ThreadPoolExecutor(2 * len(names)) as pool:
        outputs = {name: pool.submit(output_of, name, workflow_server) for name in names}
        answers = {name: pool.submit(answer_of, name, workflow_server) for name in names}
        yield Asked(outputs, answers)


@pytest.mark.parametrize("name", library.names())
def test_it_can_be_run(name: str, asked: Asked) -> None:
    output = asked.outputs[name].result()
    parts = output if isinstance(output, dict) else {"generated": output}
    assert parts["generated"].strip()
    said = " ".join(value for value in parts.values() if isinstance(value, str))
    assert SENSE.get(name, "").lower() in said.lower()


@pytest.mark.parametrize("name", library.names())
def test_it_can_be_asked_as_a_model(name: str, asked: Asked, workflow_server: Served) -> None:
    assert name in [model.id for model in workflow_server.client().models.list()]
    answer = asked.answers[name].result()
    assert answer.text.strip()
    assert answer.completion_tokens > 0
    assert all(f"{job}:\n" in answer.thought for job in EARLIER_JOBS.get(name, ()))


def test_a_role_remembers_the_conversation(workflow_server: Served) -> None:
    answer = workflow_server.client().chat.completions.create(
        model="customer-support",
        messages=[
            {"role": "user", "content": "My name is Anna."},
            {"role": "assistant", "content": "Nice to meet you, Anna!"},
            {"role": "user", "content": "What is my name?"},
        ],
    )
    assert "Anna" in (answer.choices[0].message.content or "")
