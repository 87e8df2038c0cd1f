"""The shipped model: a handful of greedy answers."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from modelcompose.adapters.bundled import MODEL_FOLDER
from modelcompose.adapters.bundled.train.cases import Case, Reply
from modelcompose.adapters.bundled.train.evaluate import SEED_PROMPTS, SEED_TEXTS, Model
from modelcompose.adapters.bundled.train.render import Message

WEATHER: Message = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "The city"}},
            "required": ["city"],
        },
    },
}


@cache
def model() -> Model:
    torch.set_num_threads(1)
    return Model(MODEL_FOLDER)


def answer(user: str, system: str = "", tools: list[Message] | None = None, thinks: bool = False) -> Reply:
    messages = [{"role": "system", "content": system}] if system else []
    case = Case("", [*messages, {"role": "user", "content": user}], lambda reply: True, tools or [], thinks)
    return model().replies([case])[0]


@pytest.mark.parametrize(("system", "user"), SEED_PROMPTS)
def test_prompts_of_the_examples_get_whole_sentences(system: str, user: str) -> None:
    content = str(answer(user, system)["content"])
    assert len(content.split()) > 4
    assert content.strip()[-1] in ".!?`)\"'" or "\n" in content


@pytest.mark.parametrize(
    ("system", "user", "words"),
    [
        (
            "You are a customer support agent. Be helpful, patient, and professional.",
            "My order has not arrived.",
            "order",
        ),
        (SEED_PROMPTS[5][0], "def add(a, b): return a - b", "return a + b"),
        ("You are a pirate.", "What is the capital of France?", "Arr!"),
        ("Your name is Zorblat.", "What is your name?", "Zorblat"),
    ],
)
def test_a_role_is_taken(system: str, user: str, words: str) -> None:
    assert words in str(answer(user, system)["content"])


def test_answers_are_shorter_when_they_are_to_be_brief() -> None:
    question = "Explain quantum computing in simple terms."
    brief = str(answer(question, "Be brief.")["content"])
    assert 0 < len(brief) < len(str(answer(question)["content"]))


def test_a_name_is_recalled_two_exchanges_later() -> None:
    said = ("My name is Blorvik.", "Nice to meet you, Blorvik!", "Add 2 and 3.", "2 + 3 = 5", "What is my name?")
    talk: list[Message] = [{"role": ("user", "assistant")[turn % 2], "content": text} for turn, text in enumerate(said)]
    (reply,) = model().replies([Case("", talk, lambda reply: True)])
    assert "Blorvik" in str(reply["content"])


def test_a_story_goes_on() -> None:
    (story,) = model().complete(SEED_TEXTS[:1])
    assert len(story.split()) > 15


def test_an_unseen_word_is_repeated() -> None:
    assert answer("Repeat: blorvik")["content"] == "blorvik"


def test_a_fitting_tool_is_called_with_its_argument() -> None:
    calls = answer("What is the weather in Paris?", tools=[WEATHER])["tool_calls"]
    assert [call["function"] for call in calls] == [{"name": "get_weather", "arguments": {"city": "Paris"}}]


def test_no_tool_is_called_when_none_fits() -> None:
    assert "tool_calls" not in answer("Explain quantum computing in simple terms.", tools=[WEATHER])


def test_thinking_comes_before_the_answer_when_asked_for() -> None:
    reply = answer("Explain quantum computing in simple terms.", thinks=True)
    assert reply["reasoning_content"]
    assert reply["content"]


def test_the_folder_is_small_and_has_a_card_with_scores() -> None:
    assert sum(path.stat().st_size for path in MODEL_FOLDER.iterdir()) < 40_000_000
    card = (MODEL_FOLDER / "README.md").read_text(encoding="utf-8")
    assert "| held-out prompts | right |" in card
