"""Every example runs as it is, but for the port, and prints an answer."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from served import ENVIRONMENT, ROOT

if TYPE_CHECKING:
    from served import Served

FOLDER = ROOT / "clients" / "examples"
PROGRAMS = {".py": sys.executable, ".sh": "sh", ".mjs": "node"}
EXAMPLES = sorted(file.name for file in FOLDER.iterdir() if file.is_file() and file.name != "__init__.py")


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs(name: str, served: Served, tmp_path: Path) -> None:
    program = PROGRAMS[Path(name).suffix]
    if shutil.which(program) is None:
        pytest.skip(f"there is no {program} here")
    source = (FOLDER / name).read_text(encoding="utf-8")
    assert "http://127.0.0.1:8080/v1" in source
    copy = tmp_path / name
    copy.write_text(source.replace("http://127.0.0.1:8080", served.url), encoding="utf-8")
    ended = subprocess.run(
        [program, str(copy)], env=ENVIRONMENT, capture_output=True, text=True, timeout=50, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.strip()
