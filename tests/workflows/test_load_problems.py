"""What is wrong with a compose file is said with its place, in the user's own spelling."""

from __future__ import annotations

from pathlib import Path

import pytest
from loading import mistakes

from modelcompose.workflows.load import load
from modelcompose.workflows.tree import ConfigErrors

FILES = Path(__file__).parent / "files"
BAD_FILES = [
    pytest.param(*case.split("~~~\n"), id=name)
    for name, _, case in (
        block.partition("\n")
        for block in (FILES / "problems.txt").read_text(encoding="utf-8").removeprefix("=== ").split("\n=== ")
    )
]


@pytest.mark.parametrize(("text", "problems"), BAD_FILES)
def test_a_bad_file_is_told_what_is_wrong_with_it(text: str, problems: str) -> None:
    assert "\n".join(mistakes(text)) == problems.rstrip("\n")


def test_there_are_bad_files_of_many_kinds() -> None:
    assert len(BAD_FILES) > 80


def test_all_problems_of_all_files_are_told_at_once_in_their_order() -> None:
    problems = mistakes(
        """
        controller: {port: x}
        component: {type: model, task: chat-completion, model: bundled, mesages: []}
        workflows:
          - {id: a, component: nobody, output: "${oops} and ${env.NOT_THERE}"}
          - {id: a, title: 5}
        """,
        "workflows: [{id: b, jobs: 5}]",
    )
    assert [problem.partition(": ")[0] for problem in problems] == [
        "a.yml:1:20", "a.yml:2:65", "a.yml:4:24", "a.yml:4:40", "a.yml:4:40", "a.yml:5:10", "a.yml:5:20", "b.yml:1:27",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"component: \xff\n", "a.yml:1:12: is not UTF-8 text here"),
        (b"a: b\nc: \x00\n", "a.yml:2:4: the character U+0000 is not allowed in YAML"),
        (b"\xff\xfea", "a.yml:1:1: is not UTF-8 text here"),
        (b"x" * (5 << 20), "a.yml: is larger than 4 MiB"),
        (b"[" * 1200, "a.yml:1:1: is nested too deeply"),
        (b"x: " + b"[" * 150 + b"]" * 150, "is nested more than 100 deep"),
    ],
)
def test_what_is_no_text_or_no_tree_is_refused(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "a.yml").write_bytes(data)
    with pytest.raises(ConfigErrors) as caught:
        load([tmp_path / "a.yml"], env={})
    assert words in caught.value.message


def test_aliases_that_multiply_are_stopped() -> None:
    levels = [f"x-{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 9)]
    assert "the file has more than 50000 values, aliases followed" in "\n".join(
        mistakes("\n".join(["x-0: &l0 [1, 2, 3]", *levels]))
    )


def test_a_file_that_is_not_there_or_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors, match=r"nothing\.yml: no such file"):
        load([tmp_path / "nothing.yml"], env={})
    with pytest.raises(ConfigErrors, match="cannot be read: Is a directory"):
        load([tmp_path], env={})
