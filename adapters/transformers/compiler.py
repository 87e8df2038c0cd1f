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
OPTIONS = ("-O3", "-march=native", "-fopenmp", "-fPIC")
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
    source = SOURCE.read_bytes()
    made_of = b"\0".join([source, " ".join(options).encode(), _processor().encode()])
    path = _cache() / f"kernels-{hashlib.sha256(made_of).hexdigest()[:16]}.so"
    if not path.exists():
        _compile(path, options)
    return path


def _compile(path: Path, options: tuple[str, ...]) -> None:
    # Not just any: clang's OpenMP would be a second one beside PyTorch's.
    compiler = os.environ.get("CC") or shutil.which("gcc")
    if compiler is None:
        raise NotCompiled("there is no C compiler; install gcc")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            object_file, made = Path(folder) / "kernels.o", Path(folder) / path.name
            _run(compiler, *options, "-c", "-o", str(object_file), str(SOURCE))
            # Without OpenMP's library: the one that PyTorch has loaded is to be taken, wherever that lies.
            _run(compiler, "-shared", "-o", str(made), str(object_file), "-lm")
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


def openmp() -> Path:
    """The library that runs PyTorch's threads in this process; raises NotCompiled if it has none of a known kind."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        if found := re.search(r"/.*/lib(?:gomp|iomp5)\b.*\.so.*", line):
            return Path(found[0])
    raise NotCompiled("PyTorch does without OpenMP here")


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
