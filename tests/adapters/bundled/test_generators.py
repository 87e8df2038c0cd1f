"""The generators give what they claim, and are drawn in the words of the chat template."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from random import Random
from typing import Any

import pytest
from tokenizers import Tokenizer

from modelcompose.adapters.bundled.train import (
    cases,
    corpus,
    data,
    library,
    reports,
    reviews,
    sides,
    skills,
    tools,
    wording,
)
from modelcompose.adapters.bundled.train.batches import Encoder, make_batch
from modelcompose.adapters.bundled.train.render import Example, plain, render
from modelcompose.adapters.bundled.train.tokenizer import build, wrap


@cache
def sources() -> data.Sources:
    return data.Sources(corpus.read(), ("apple", "river"))


def many(count: int = 200) -> Iterator[Random]:
    return (Random(seed) for seed in range(count))


def asked_and_answered(messages: skills.Exchange) -> tuple[str, str]:
    return messages[0]["content"], plain(messages[-1]["content"])


def test_a_reversed_text_is_the_reverse_of_one_in_the_question() -> None:
    for random in many():
        question, answer = asked_and_answered(skills.reverse(random))
        assert answer[::-1] in question


def test_an_upper_cased_text_is_upper_case_and_in_the_question() -> None:
    for random in many():
        question, answer = asked_and_answered(skills.upper(random))
        assert answer.isupper()
        assert answer.lower() in question.lower()


def test_a_lower_cased_text_is_lower_case_and_in_the_question() -> None:
    for random in many():
        question, answer = asked_and_answered(skills.lower(random))
        assert answer.islower()
        assert answer in question.lower()
        assert answer not in question


def test_a_repeated_text_is_in_the_question() -> None:
    for random in many():
        question, answer = asked_and_answered(skills.repeat(random))
        assert answer in question


def test_sums_are_right() -> None:
    found = 0
    for random in many(400):
        _, answer = asked_and_answered(skills.arithmetic(random))
        if match := re.match(r"(\d+) ([-+*]) (\d+) = (-?\d+)", answer):
            a, sign, b, result = match.groups()
            assert {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[sign] == int(result)
            found += 1
    assert found > 300


def test_what_is_recalled_was_told_before() -> None:
    for random in many():
        messages = skills.recall(random, lambda r: [])
        told = " ".join(message["content"] for message in messages[:-1] if message["role"] == "user")
        value = messages[-1]["reasoning_content"].removeprefix("Earlier the user told me: ").removesuffix(".")
        assert value in told
        assert value in messages[-1]["content"]


def test_a_tool_call_names_an_offered_tool_and_gives_its_arguments() -> None:
    for random in many():
        offered, messages = tools.call(random)
        schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in offered}
        for call in messages[1]["tool_calls"]:
            function = call["function"]
            assert set(function["arguments"]) == set(schemas[function["name"]]["properties"])
            for name, value in function["arguments"].items():
                kind = schemas[function["name"]]["properties"][name]["type"]
                assert isinstance(value, int if kind == "integer" else str)
                assert str(value) in messages[0]["content"]


def test_telling_words_are_those_of_no_other_question() -> None:
    keywords = sources().keywords
    for random in many(60):
        block = random.choice(keywords.blocks)
        question = keywords.draw(random, block)
        asked = {word.lower() for word in wording.words_of(question or "")}
        own = {word.lower() for words in keywords.lists(block) for word in words} & asked
        assert question is None or own
        for other in keywords.blocks:
            if question and other is not block:
                assert not own <= {word.lower() for words in keywords.lists(other) for word in words}


def test_a_reworded_question_keeps_the_words_that_have_no_other() -> None:
    for random in many():
        assert "vLLM" in wording.reworded(random, "How do I use vLLM?")
        assert "recursion" in wording.reworded(random, "Explain recursion.")


def test_a_summary_has_words_of_its_text_and_is_shorter() -> None:
    for random in many():
        question, answer = asked_and_answered(reports.summary(random, sources().corpus))
        assert len(answer) < len(question)
        asked, said = set(wording.words_of(question.lower())), set(wording.words_of(answer.lower()))
        assert len(said & asked) >= len(said) / 2


def test_the_best_draft_is_one_of_the_drafts() -> None:
    for random in many(60):
        question, answer = asked_and_answered(library.choose(random, sources().corpus))
        drafts = next(json.loads(line) for line in question.split("\n") if line.startswith('["'))
        assert answer in drafts


def test_a_draft_is_not_learned_but_its_revision_is() -> None:
    for random in many(60):
        turns = library.critique(random, sources().corpus)
        assert turns[1]["weight"] == 0
        assert all("weight" not in turn for turn in turns[2:])


def test_a_recommendation_names_both_sides() -> None:
    for topic, pros, cons in sides.topics():
        assert len(pros) == len(cons) == 3
        text = sides.recommendation(topic, pros, cons)
        assert topic in text
        assert pros[0] in text
        assert cons[0] in text


def test_reviewed_code_can_be_read_by_python() -> None:
    for random in many():
        code, advice = reviews.review(random)
        ast.parse(code)
        assert advice.endswith(".")


def test_a_long_text_holds_its_answers() -> None:
    for random in many(20):
        messages = data.long_text(random, sources(), 300)
        assert len(messages[0]["content"].split()) > 200
        for message in messages[1::2]:
            assert message["content"] in messages[0]["content"].replace("\n", " ") or "\n" in message["content"]


def test_a_long_talk_is_about_as_long_as_wanted() -> None:
    for random in many(10):
        example = data.make_long(random, sources(), 800)
        assert 700 < sum(len(message["content"]) for message in example.messages) // 5 < 1300


@cache
def tokenizer() -> Tokenizer:
    random = Random(0)
    texts = [plain(text) for _ in range(300) for text, _ in render(data.make(random, sources()))]
    return build(texts, 1500, minimum=2)


def unmarked(message: dict[str, Any]) -> dict[str, Any]:
    return {key: plain(value) if isinstance(value, str) else value for key, value in message.items()}


def test_examples_are_rendered_in_the_words_of_the_chat_template() -> None:
    wrapped = wrap(tokenizer())
    for random in many(300):
        example = data.make(random, sources())
        if not example.document:
            messages = [unmarked(message) for message in example.messages]
            expected = wrapped.apply_chat_template(messages, tools=list(example.tools) or None, tokenize=False)
            assert plain("".join(text for text, _ in render(example))) == expected


def test_encoded_examples_decode_to_their_text() -> None:
    encoder = Encoder(tokenizer())
    for random in many(100):
        example = data.make(random, sources())
        text = plain("".join(piece for piece, _ in render(example)))
        assert tokenizer().decode(encoder.encode(example).tokens, skip_special_tokens=False) == text


def test_only_answers_have_the_full_weight() -> None:
    example = Example("x", ({"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}))
    encoded = Encoder(tokenizer()).encode(example)
    answer = [t for t, weight in zip(encoded.tokens, encoded.weights, strict=True) if weight == 1.0]
    assert tokenizer().decode(answer, skip_special_tokens=False) == "yes<|im_end|>"


def test_the_same_seed_gives_the_same_batch() -> None:
    encoder = Encoder(tokenizer())
    first, second = (make_batch("7", sources(), encoder, 2048) for _ in range(2))
    assert first.tokens.equal(second.tokens)
    assert first.tokens.numel() == 2048
    assert (first.weights[first.examples < 0] == 0).all()


def test_held_out_system_prompts_are_not_trained_on() -> None:
    held_out = {prompts[-1] for prompts in data.TONES.values()}
    for random in many(300):
        example = data.make_tone(random, sources())
        assert example.messages[0]["content"] not in held_out


def test_long_batches_come_late() -> None:
    encoder = Encoder(tokenizer())
    batches = (make_batch(str(number), sources(), encoder, 256, late=True) for number in range(50))
    assert any(batch.tokens.shape == (1, 4096) for batch in batches)


def test_every_case_of_the_evaluation_accepts_its_own_right_answer() -> None:
    chosen = list(cases.cases(corpus.read(), per_group=2))
    assert len({case.group for case in chosen}) > 30
    for case in chosen:
        json.dumps(case.messages)
        json.dumps(case.tools)


@pytest.mark.parametrize("text", ["I do not know who that is.", "I have no access to live data."])
def test_admitting_not_to_know_is_recognised(text: str) -> None:
    case = next(case for case in cases.cases(corpus.read(), 1) if case.group == "admits not knowing a person")
    assert case.check({"content": text})
    assert not case.check({"content": "She was born in Paris."})
