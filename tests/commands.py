"""`model-compose` called in the tests' own process, where a claim is not about processes: a Python less to start."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

from served import ENVIRONMENT, ROOT

from modelcompose.clients.cli import main


def call(*arguments: str, stdin: str = "", cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run `model-compose` to its end; what it starts are processes as ever."""
    out, error = io.StringIO(), io.StringIO()
    words = ["model-compose", *arguments]
    with _surroundings(words, stdin, cwd), redirect_stdout(out), redirect_stderr(error):
        try:
            main()
            code = 0
        except SystemExit as exited:
            code = exited.code if isinstance(exited.code, int) else 0
    return subprocess.CompletedProcess(words, code, out.getvalue(), error.getvalue())


@contextmanager
def _surroundings(words: list[str], stdin: str, cwd: Path) -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("modelcompose")
    handlers, level, our_level = root.handlers[:], root.level, ours.level
    environ = patch.dict(os.environ, ENVIRONMENT, clear=True)
    try:
        with environ, chdir(cwd), patch.object(sys, "argv", words), patch.object(sys, "stdin", io.StringIO(stdin)):
            yield
    finally:
        logging.captureWarnings(capture=False)
        root.handlers[:] = handlers
        root.setLevel(level)
        ours.setLevel(our_level)
