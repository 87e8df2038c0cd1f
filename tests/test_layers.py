"""The arrows between the rooms, the rooms of third parties, and what may be loaded where."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parent.parent

MAY_IMPORT = {
    "adapters": set[str](),
    "workflows": {"adapters"},
    "server": {"adapters"},
    "clients": {"adapters", "workflows", "server"},
}

ROOMS_OF_THIRD_PARTIES = {
    "fastapi": ("server/",),
    "starlette": ("server/",),
    "uvicorn": ("server/", "clients/up.py"),
    "torch": ("adapters/transformers/", "adapters/bundled/train/"),
    "yaml": ("workflows/load.py",),
    "httpx2": ("adapters/", "clients/", "workflows/components/http"),
    "gradio": ("clients/webui/",),
    "typer": ("clients/",),
    "rich": ("clients/",),
}

PARTS_OF_OTHERS = {"starlette", "pydantic-core", "typing-extensions"}
"""Come with fastapi and pydantic, in the versions that those choose."""

NEEDED_BY_OTHERS = {"accelerate", "jinja2", "httptools"}
"""Imported by transformers (the first two) and by uvicorn, where they are there."""


class Import(NamedTuple):
    """One imported name with its module in front, and where it stands."""

    name: str
    path: str
    line: int

    @property
    def top(self) -> str:
        return self.name.partition(".")[0]

    @property
    def room(self) -> str | None:
        """The part of ours that it comes from, if it does."""
        parts = self.name.split(".")
        return parts[1] if parts[0] == "modelcompose" and len(parts) > 1 and (ROOT / parts[1]).is_dir() else None

    def __str__(self) -> str:
        return f"{self.path}:{self.line} imports {self.name}"


def imports_of(source: str, path: str) -> Iterator[Import]:
    """Every import in a file of the package, those inside functions too, by its absolute name."""
    package = ("modelcompose", *Path(path).parent.parts)
    for node in ast.walk(ast.parse(source, path)):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, path, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            yield from (Import(f"{module}.{alias.name}", path, node.lineno) for alias in node.names)


def breaks_an_arrow(found: Import) -> bool:
    here = found.path.partition("/")[0]
    if found.top in {"tests", *MAY_IMPORT}:
        return True
    return found.room is not None and found.room not in {here, *MAY_IMPORT[here]}


def is_out_of_its_room(found: Import) -> bool:
    rooms = ROOMS_OF_THIRD_PARTIES.get(found.top)
    return rooms is not None and not found.path.startswith(rooms)


@cache
def all_imports() -> tuple[Import, ...]:
    files = [file for room in MAY_IMPORT for file in sorted((ROOT / room).rglob("*.py"))]
    return tuple(
        found
        for file in files
        for found in imports_of(file.read_text(encoding="utf-8"), file.relative_to(ROOT).as_posix())
    )


@cache
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def loaded_by(statement: str) -> set[str]:
    """The top-level modules that a fresh Python has loaded after a statement."""
    program = f"import sys\ntry:\n    {statement}\nexcept SystemExit: pass\nprint('\\nLOADED', *sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "typings")}
    run = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=50, check=False
    )
    assert run.returncode == 0, run.stderr
    return {module.partition(".")[0] for module in run.stdout.rpartition("LOADED ")[2].split()}


def test_imports_between_rooms_follow_the_arrows() -> None:
    assert [str(found) for found in all_imports() if breaks_an_arrow(found)] == []


def test_third_parties_stay_in_their_rooms() -> None:
    assert [str(found) for found in all_imports() if is_out_of_its_room(found)] == []


@pytest.mark.parametrize(
    ("path", "line", "is_wrong"),
    [
        ("adapters/text.py", "from ..server import app", True),
        ("adapters/text.py", "from .. import clients", True),
        ("adapters/vllm/adapter.py", "from ...workflows.graph import order", True),
        ("adapters/vllm/adapter.py", "from ..base import ModelCard", False),
        ("workflows/model.py", "import modelcompose.server.app", True),
        ("workflows/model.py", "from ..adapters.events import TextDelta", False),
        ("server/app.py", "def late():\n    from ..workflows import runner", True),
        ("server/app.py", "from .. import __version__", False),
        ("server/app.py", "from adapters.events import TextDelta", True),
        ("clients/cli.py", "from tests.scripted import ScriptedAdapter", True),
        ("clients/cli.py", "from ..server.app import create_app", False),
    ],
)
def test_an_import_against_the_arrows_is_seen(path: str, line: str, is_wrong: bool) -> None:
    assert any(breaks_an_arrow(found) for found in imports_of(line, path)) is is_wrong


@pytest.mark.parametrize(
    ("path", "line", "is_wrong"),
    [
        ("adapters/text.py", "import torch", True),
        ("adapters/transformers/engine.py", "from torch.nn import functional", False),
        ("clients/run.py", "import uvicorn", True),
        ("clients/up.py", "import uvicorn", False),
        ("workflows/schema.py", "from yaml import safe_load", True),
        ("workflows/load.py", "import yaml", False),
        ("server/routes.py", "from rich.table import Table", True),
    ],
)
def test_a_third_party_in_a_strange_room_is_seen(path: str, line: str, is_wrong: bool) -> None:
    assert any(is_out_of_its_room(found) for found in imports_of(line, path)) is is_wrong


def test_the_list_of_packages_is_complete() -> None:
    folders = {file.parent for room in MAY_IMPORT for file in (ROOT / room).rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []
    names = {".".join(("modelcompose", *folder.relative_to(ROOT).parts)) for folder in folders}
    assert set(project()["tool"]["setuptools"]["packages"]) == {"modelcompose", *names}


def test_each_room_has_its_link_for_a_bare_checkout() -> None:
    links = {link.name: link.resolve() for link in (ROOT / "typings" / "modelcompose").iterdir() if link.is_symlink()}
    assert links == {name: ROOT / name for name in ("__init__.py", "py.typed", *MAY_IMPORT)}


def test_what_is_imported_is_declared() -> None:
    assert imported_distributions() - declared_distributions() - PARTS_OF_OTHERS == set()


def test_what_is_declared_is_imported() -> None:
    assert declared_distributions() - imported_distributions() - NEEDED_BY_OTHERS == set()


def imported_distributions() -> set[str]:
    names = packages_distributions()
    imported = {found.top for found in all_imports()} - sys.stdlib_module_names - {"modelcompose"}
    return {spelt(names[top][0]) if top in names else top for top in imported}


def declared_distributions() -> set[str]:
    return {spelt(requirement) for requirement in project()["project"]["dependencies"]}


def spelt(requirement: str) -> str:
    """A distribution's name as packaging compares it, without the version behind it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[<>=!~\[; ]", requirement)[0]).lower()


def test_help_loads_neither_torch_nor_fastapi() -> None:
    command = "sys.argv = ['model-compose', '--help']; from modelcompose.clients.cli import main; main()"
    assert loaded_by(command) & {"torch", "transformers", "fastapi", "uvicorn", "openai"} == set()


def test_the_server_process_loads_neither_torch_nor_gradio() -> None:
    command = "import modelcompose.clients.up, modelcompose.server.app, modelcompose.adapters.transformers.adapter"
    assert loaded_by(command) & {"torch", "transformers", "gradio"} == set()
