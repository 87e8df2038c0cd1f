"""curl, as in the README."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from served import Served

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")


def curl(served: Served, path: str, body: dict[str, Any] | None = None) -> str:
    command = ["curl", "-sSN", f"{served.url}{path}"]
    if body is not None:
        command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=True).stdout


def events(text: str) -> list[str]:
    """The data of server-sent events; each is one `data:` line and a blank line."""
    blocks = text.split("\n\n")
    assert blocks.pop() == ""
    assert all(block.startswith("data: ") and "\n" not in block for block in blocks)
    return [block.removeprefix("data: ") for block in blocks]


def test_chat_streams_as_server_sent_events(served: Served) -> None:
    body = {"model": "bundled", "messages": [{"role": "user", "content": "Hello!"}], "stream": True, "max_tokens": 6}
    *chunks, last = events(curl(served, "/v1/chat/completions", body))
    assert last == "[DONE]"
    assert {json.loads(chunk)["object"] for chunk in chunks} == {"chat.completion.chunk"}


def test_text_completion_streams_as_server_sent_events(served: Served) -> None:
    body = {"model": "bundled", "prompt": "Once upon a time in a distant galaxy", "stream": True, "max_tokens": 6}
    *chunks, last = events(curl(served, "/v1/completions", body))
    assert last == "[DONE]"
    assert {json.loads(chunk)["object"] for chunk in chunks} == {"text_completion"}


def test_whole_answers_are_one_json_document(served: Served) -> None:
    chat = {"model": "bundled", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 6}
    assert json.loads(curl(served, "/v1/chat/completions", chat))["choices"][0]["message"]["role"] == "assistant"
    text = {"model": "bundled", "prompt": "Once upon a time", "max_tokens": 6}
    assert json.loads(curl(served, "/v1/completions", text))["choices"][0]["text"]


def test_models_are_listed(served: Served) -> None:
    assert [model["id"] for model in json.loads(curl(served, "/v1/models"))["data"]] == ["bundled"]
