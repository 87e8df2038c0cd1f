"""The environment that commands run in: this program's own virtual environment and import path stay out of it."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..errors import ConfigError
from .process import Command

OURS = ("PYTHONPATH", "PYTHONHOME", "__PYVENV_LAUNCHER__", "MODEL_COMPOSE_API_KEY")

_PIP = re.compile(r"(?:^|[;&|(\n]|\bpython[\d.]*\s+-m)\s*pip3?\s+install\b")
_CHOOSES_ITSELF = re.compile(r"pyenv|conda|mamba|venv|virtualenv|activate|\buv\b|poetry|pipenv|pipx|docker|podman")
_ASK_VERSION = "import sys; print('%d.%d.%d' % sys.version_info[:3])"


def clean(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` as it was before this program's virtual environment was activated."""
    env = {name: value for name, value in environ.items() if name not in OURS}
    bin = os.path.realpath(Path(sys.prefix) / "bin")
    if sys.prefix != sys.base_prefix:
        places = env.get("PATH", os.defpath).split(os.pathsep)
        env["PATH"] = os.pathsep.join(place for place in places if os.path.realpath(place) != bin)
        if _is_same(env.get("VIRTUAL_ENV"), sys.prefix):
            del env["VIRTUAL_ENV"]
            env.pop("VIRTUAL_ENV_PROMPT", None)
    return env


def activated(env: Mapping[str, str], venv: Path) -> dict[str, str]:
    """`env` with a virtual environment's programs first."""
    path = os.pathsep.join((str(venv / "bin"), env.get("PATH", os.defpath)))
    return {**env, "PATH": path, "VIRTUAL_ENV": str(venv)}


def needs_environment(commands: Iterable[Command], env: Mapping[str, str]) -> bool:
    """Whether commands install with pip and leave it open where to; a user's active environment is an answer."""
    if env.get("VIRTUAL_ENV") or env.get("CONDA_PREFIX"):
        return False
    texts = [command if isinstance(command, str) else " ".join(command) for command in commands]
    return any(map(_PIP.search, texts)) and not any(map(_CHOOSES_ITSELF.search, texts))


def venv_command(venv: Path, python: str) -> Command:
    """What makes a virtual environment."""
    return (python, "-m", "venv", str(venv))


async def find_python(wanted: str | None) -> str:
    """The interpreter for a version (`3.11`), or of a path; this program's own if None. Raises ConfigError."""
    return await asyncio.to_thread(_find_python, wanted)


def _find_python(wanted: str | None) -> str:
    own = str(Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}")
    own = own if Path(own).exists() else sys.executable
    if wanted is None or _fits(".".join(map(str, sys.version_info[:3])), wanted):
        return own
    if "/" in wanted:
        given = str(Path(wanted).expanduser())
        if _version(given):
            return given
        raise ConfigError(f"'{wanted}' is no Python")
    names = (f"python{wanted}", f"python{wanted.rpartition('.')[0]}", "python3", "python")
    found = [path for name in names if (path := shutil.which(name, path=clean(os.environ)["PATH"]))]
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    found += [str(each) for each in sorted(pyenv.glob(f"{wanted}*/bin/python"), reverse=True)]
    for path in found:
        if _fits(_version(path), wanted):
            return path
    raise ConfigError(
        f"there is no Python {wanted} here; install it (with pyenv: pyenv install {wanted}), give its path, "
        f"or leave `python` out to take Python {sys.version_info[0]}.{sys.version_info[1]}"
    )


def _fits(version: str, wanted: str) -> bool:
    return f"{version}.".startswith(f"{wanted}.")


def _version(python: str) -> str:
    try:
        asked = subprocess.run(
            [python, "-I", "-c", _ASK_VERSION], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return asked.stdout.strip()


def _is_same(one: str | None, other: str) -> bool:
    return one is not None and os.path.realpath(one) == os.path.realpath(other)
