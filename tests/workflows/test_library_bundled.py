"""The library on the model that comes with the program: all of it served at once, run, and asked as models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from served import Served, a_free_port, serving

from modelcompose.workflows import library

pytestmark = pytest.mark.timeout(120)

GIVEN: dict[str, dict[str, Any]] = {
    "best-of": {"task": "Write a short story about a robot.", "drafts": 2},
    "code-reviewer": {"code_to_review": "for i in range(1, len(items)):\n    print(items[i])"},
    "customer-support": {"customer_question": "My order is late."},
    "draft-critique-revise": {"task": "Write a short story about a robot."},
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


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """All of the library."""
    options = [word for name in library.names() for word in ("-f", name)]
    with serving(tmp_path_factory.mktemp("library"), a_free_port(), *options) as served:
        served.wait_until_ready()
        yield served


@pytest.mark.parametrize("name", library.names())
def test_it_can_be_run(name: str, server: Served) -> None:
    body = {"workflow_id": name, "input": GIVEN[name]}
    answer = httpx2.post(f"{server.url}/api/workflows/runs", json=body, timeout=100)
    assert answer.status_code == 200, answer.text
    output = answer.json()["output"]
    parts = output if isinstance(output, dict) else {"generated": output}
    assert parts["generated"].strip()
    said = " ".join(value for value in parts.values() if isinstance(value, str))
    assert SENSE.get(name, "").lower() in said.lower()


@pytest.mark.parametrize("name", library.names())
def test_it_can_be_asked_as_a_model(name: str, server: Served) -> None:
    client = server.client().with_options(timeout=100)
    assert name in [model.id for model in client.models.list()]
    said = next(value for value in GIVEN[name].values() if isinstance(value, str))
    answered, thought, usage = "", "", None
    stream = client.chat.completions.create(
        model=name,
        messages=[{"role": "user", "content": said}],
        stream=True,
        stream_options={"include_usage": True},
    )
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            answered += choice.delta.content or ""
            thought += getattr(choice.delta, "reasoning_content", None) or ""
    assert answered.strip()
    assert usage is not None
    assert usage.completion_tokens > 0
    assert all(f"{job}:\n" in thought for job in EARLIER_JOBS.get(name, ()))


def test_a_role_remembers_the_conversation(server: Served) -> None:
    answer = server.client().chat.completions.create(
        model="customer-support",
        messages=[
            {"role": "user", "content": "My name is Anna."},
            {"role": "assistant", "content": "Nice to meet you, Anna!"},
            {"role": "user", "content": "What is my name?"},
        ],
    )
    assert "Anna" in (answer.choices[0].message.content or "")
