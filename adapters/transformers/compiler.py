"""`kernels.c` -> a library for this machine, made by its C compiler once and kept in the user's cache."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("kernels.c")
INCLUDED = Path(__file__).with_name("team.h")
OPTIONS = ("-O3", "-march=native", "-fopenmp-simd", "-pthread", "-fPIC")
# Of -ffast-math, what leaves infinities and what is no number as they are.
LOOSER_SUMS = ("-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math")
WIDER = {"x86_64": ("-mprefer-vector-width=512",)}
SECONDS = 60


class NotCompiled(Exception):
    """Why there is no library."""


def library() -> Path:
    """The library's file; raises NotCompiled where there is none and none can be made."""
    if not sys.platform.startswith("linux"):
        raise NotCompiled("it is done on Linux only")
    options = (*OPTIONS, *LOOSER_SUMS, *WIDER.get(platform.machine(), ()))
    sources = [file.read_bytes() for file in (SOURCE, INCLUDED)]
    made_of = b"\0".join([*sources, " ".join(options).encode(), _processor().encode()])
    path = _cache() / f"kernels-{hashlib.sha256(made_of).hexdigest()[:16]}.so"
    if not path.exists():
        _compile(path, options)
    return path


def _compile(path: Path, options: tuple[str, ...]) -> None:
    # Not just any: it is told in gcc's words what to unroll.
    compiler = os.environ.get("CC") or shutil.which("gcc")
    if compiler is None:
        raise NotCompiled("there is no C compiler; install gcc")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            made = Path(folder) / path.name
            _run(compiler, *options, "-shared", "-o", str(made), str(SOURCE), "-lm")
            made.replace(path)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotCompiled(f"{compiler} cannot be used: {error}") from error
    logger.debug("compiled %s", path)


def _run(compiler: str, *arguments: str) -> None:
    command = [*compiler.split(), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    if result.returncode:
        lines = result.stderr.strip().splitlines() or [f"exit status {result.returncode}"]
        raise NotCompiled(f"{compiler} fails: {lines[0]}")


def _cache() -> Path:
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if given.startswith("/") else Path.home() / ".cache") / "model-compose"


def _processor() -> str:
    """What the processor can do, for a home folder may be that of several machines."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return f"{platform.machine()} {found[1] if found else platform.processor()}"
