"""What `up` says when it is ready."""

from __future__ import annotations

import json
import shlex

import pytest

from modelcompose.adapters.base import ModelCard, ModelState
from modelcompose.clients.announce import announcement, curl_line

URL = "http://127.0.0.1:9000"
GOOD = ModelCard(id="good", created=0, context_length=4096, state=ModelState("ready", "bfloat16 on cpu"))
BAD = ModelCard(id="bad", created=0, state=ModelState("failed", "no such model"))


def lines(*cards: ModelCard, has_key: bool = False) -> list[str]:
    return [text for text, _ in announcement(URL, cards, 2.04, has_key=has_key)]


def test_it_names_the_url_the_models_and_a_line_to_try() -> None:
    said = lines(GOOD)
    assert f"Ready after 2.0 s: {URL}/v1" in said
    assert "  good  4,096 tokens of context, bfloat16 on cpu" in said
    assert f"  {curl_line(URL, 'good', has_key=False)}" in said


def test_a_model_that_failed_is_not_among_those_to_try() -> None:
    said = "\n".join(lines(BAD, GOOD))
    assert "bad" not in said
    assert '"model": "good"' in said


@pytest.mark.parametrize("model", ["good", "it's", 'a"b', "名前", "org/na$me"])
def test_a_shell_reads_the_curl_line_as_it_is_meant(model: str) -> None:
    words = shlex.split(curl_line(URL, model, has_key=False))
    assert words[:3] == ["curl", "-N", f"{URL}/v1/chat/completions"]
    assert json.loads(words[words.index("-d") + 1])["model"] == model


def test_the_key_is_never_printed() -> None:
    said = lines(GOOD, has_key=True)
    assert any('"Authorization: Bearer $MODEL_COMPOSE_API_KEY"' in line for line in said)


def test_the_chat_command_is_named_as_it_was_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", [".venv/bin/model-compose", "up"])
    monkeypatch.setenv("PATH", "")
    assert f"  .venv/bin/model-compose chat --url {URL}/v1" in lines(GOOD)
