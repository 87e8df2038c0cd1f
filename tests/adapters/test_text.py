"""Stop strings: whatever way the text is cut into pieces, the same text is shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelcompose.adapters.text import StopStrings


def shown(stops: list[str], pieces: list[str]) -> tuple[str, bool]:
    cutter = StopStrings(stops)
    text = "".join(cutter.feed(piece) for piece in pieces)
    return text + cutter.finish(), cutter.stopped


def in_pieces_of(size: int, text: str) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


@pytest.mark.parametrize(
    ("stops", "text", "expected", "stopped"),
    [
        ([], "no stops at all", "no stops at all", False),
        (["\n\n"], "one line\n\nanother", "one line", True),
        (["END"], "the end is near: EN", "the end is near: EN", False),
        (["END"], "EEND", "E", True),
        (["END"], "END", "", True),
        (["aab"], "aaab!", "a", True),
        (["abcd", "bc"], "abcd", "a", True),
        (["世界"], "你好世界！", "你好", True),
        (["👋"], "hi 👋 there", "hi ", True),
        ([""], "an empty stop string stops nothing", "an empty stop string stops nothing", False),
    ],
)
def test_stop_string_is_cut_however_the_text_comes(stops: list[str], text: str, expected: str, stopped: bool) -> None:
    for size in range(1, len(text) + 1):
        assert shown(stops, in_pieces_of(size, text)) == (expected, stopped), size


@given(
    st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
    st.lists(st.text("ab", max_size=5), max_size=8),
)
def test_result_does_not_depend_on_the_cut(stops: list[str], pieces: list[str]) -> None:
    assert shown(stops, pieces) == shown(stops, ["".join(pieces)])


def test_text_that_cannot_become_a_stop_string_is_not_held_back() -> None:
    cutter = StopStrings(["END"])
    assert cutter.feed("abc") == "abc"
    assert cutter.feed("dE") == "d"
    assert cutter.feed("x") == "Ex"


def test_nothing_is_shown_after_the_stop() -> None:
    cutter = StopStrings(["."])
    assert cutter.feed("one. two") == "one"
    assert cutter.feed("three") == ""
    assert cutter.finish() == ""
