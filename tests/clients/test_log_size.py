"""The log of `up -d` stays small."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from modelcompose.clients.log_size import begin_anew, older
from modelcompose.clients.logs import since

WRITER = "import sys\nfor line in sys.stdin: print(line, end='', flush=True)"


def test_a_large_log_is_begun_anew_and_what_was_in_it_is_kept_once(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    with log.open("ab") as output:
        writer = subprocess.Popen([sys.executable, "-c", WRITER], stdin=subprocess.PIPE, stdout=output, text=True)
    assert writer.stdin is not None
    with writer, log.open(encoding="utf-8") as follower:
        shown = []
        size = 0
        for text in ("one one one", "two", "three three", "four"):
            writer.stdin.write(f"{text}\n")
            writer.stdin.flush()
            lines: list[str] = []
            while not lines:
                more = since(follower, size)
                try:
                    while True:
                        lines.append(next(more))
                except StopIteration as ended:
                    size = ended.value
            shown += lines
            begin_anew(log, 10)
        assert shown == ["one one one\n", "two\n", "three three\n", "four\n"]
        writer.stdin.close()
    assert older(log).read_text(encoding="utf-8") == "two\nthree three\n"
    assert log.read_text(encoding="utf-8") == "four\n"


def test_a_small_log_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("x" * 10, encoding="utf-8")
    assert not begin_anew(tmp_path / "a.log", 10)
    assert not older(tmp_path / "a.log").exists()
