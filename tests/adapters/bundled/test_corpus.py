"""The knowledge texts and their parser."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from modelcompose.adapters.bundled.train import corpus
from modelcompose.adapters.bundled.train.corpus import Block, CorpusError, expand, parse_block, pick, read


def test_a_question_block_has_systems_questions_held_out_ones_and_answers_in_tones() -> None:
    block = parse_block("S: You are {kind|nice}.\nQ: Hi\nQ: Hello\nH: Hey\nA: Good day.\nA[pirate]: Ahoy!\\nArr.")
    assert isinstance(block, Block)
    assert block.systems == ("You are {kind|nice}.",)
    assert block.questions == ("Hi", "Hello")
    assert block.held_out == ("Hey",)
    assert block.neutral == ("Good day.",)
    assert [(a.text, a.tone) for a in block.answers] == [("Good day.", ""), ("Ahoy!\nArr.", "pirate")]


def test_a_line_without_a_prefix_continues_the_one_before() -> None:
    block = parse_block("Q: How?\nA: def f():\n    return 1")
    assert isinstance(block, Block)
    assert block.neutral == ("def f():\n    return 1",)


def test_alternatives_expand_to_every_combination() -> None:
    assert expand("{a|b} c{ d|}") == ["a c d", "a c", "b c d", "b c"]


def test_a_picked_text_is_one_of_the_expanded_ones() -> None:
    pattern = "{What is|Explain} {the|a} moon{|?}"
    assert {pick(pattern, Random(seed)) for seed in range(60)} == set(expand(pattern))


def test_braces_without_alternatives_stay() -> None:
    assert expand('What does {"a": 1} mean?') == ['What does {"a": 1} mean?']


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello", "expected 'Q: '"),
        ("Q: hello", "without an 'A: ' line"),
        ("A: hello", "without a 'Q: ' line"),
        ("Q: hello\nA:", "empty"),
        ("Q[formal]: hello\nA: hi", "only an answer"),
        ("DOC", "without text"),
    ],
)
def test_a_wrong_block_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        parse_block(text)


def test_a_wrong_block_in_a_file_is_named_by_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Q: one\nA: two\n\nDOC\na text\n\nwrong\n", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"a\.txt:7: expected"):
        read(tmp_path)


def test_a_held_out_question_that_is_trained_on_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Q: {one|two}\nH: Two\nA: three\n", encoding="utf-8")
    with pytest.raises(CorpusError, match="also trained on"):
        corpus.check(tmp_path)


def test_the_shipped_texts_follow_the_format_and_hold_hundreds_of_questions() -> None:
    corpus.check()
    shipped = read()
    assert len(shipped.blocks) > 300
    assert shipped.documents
    assert shipped.word_lists
