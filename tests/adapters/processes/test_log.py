"""The end of a log, and the line in it that says what went wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelcompose.adapters.processes import log as log_module
from modelcompose.adapters.processes.log import Log

TEXT = "one\n\x1b[32mINFO\x1b[0m two\r\n\n  10%|#   \r  90%|### \rlöst"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_lines_cut_anywhere(size: int, tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    data = TEXT.encode()
    for start in range(0, len(data), size):
        log.feed(data[start : start + size])
    log.close()
    assert log.tail == ["one", "INFO two", "10%|#", "90%|###", "löst"]
    assert log.last == "löst"
    assert log.path.read_bytes() == data


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "starting\nValueError: too large\nRuntimeError: Engine core failed. See root cause above.\n",
            "ValueError: too large",
        ),
        ("Error: see above\nthe end\n", None),
        ("starting\nbye\n-----\n[notice] a new pip\n", "bye"),
        ("(EngineCore pid=7) ERROR 11-20 [core.py:1] torch.OutOfMemoryError: CUDA out of memory\nexiting", None),
        ("server.py: error: unknown option --x\n    For further information visit https://x\n", None),
        ("", ""),
    ],
)
def test_the_line_that_says_what_went_wrong(text: str, line: str | None, tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    log.feed(text.encode())
    assert log.blame == (text.splitlines()[0] if line is None else line)


def test_a_long_file_is_continued_in_a_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "LARGEST_FILE", 100)
    log = Log(tmp_path / "log")
    for number in range(30):
        log.feed(f"{number:09}\n".encode())
    log.close()
    assert (tmp_path / "log.1").stat().st_size > 100
    assert log.path.read_text().endswith("000000029\n")
    assert log.path.stat().st_size <= 110
