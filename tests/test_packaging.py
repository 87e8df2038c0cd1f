"""The wheel holds the package and nothing else, and goes beside packages that are named like our rooms."""

from __future__ import annotations

import base64
import csv
import hashlib
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("adapters", "workflows", "server", "clients")
NAMESAKES = ("adapters==1.3.0", "llama-index-workflows==2.26.1")
"""AdapterHub's, whose package is `adapters`, and LlamaIndex's, whose package is `workflows`."""


def pip(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the working tree, so that building leaves nothing in it."""
    copy = tmp_path_factory.mktemp("source") / "model-compose"
    left_out = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist")
    shutil.copytree(ROOT, copy, symlinks=True, ignore=left_out)
    return copy


@pytest.fixture(scope="session")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source)
    assert build.returncode == 0, build.stderr
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="session")
def namesakes(request: pytest.FixtureRequest) -> list[Path]:
    """Wheels from the package index, kept in pytest's cache from one run to the next."""
    assert request.config.cache is not None
    folder = request.config.cache.mkdir("namesakes")
    if len(list(folder.glob("*.whl"))) < len(NAMESAKES):
        download = pip("download", "--no-deps", "--only-binary", ":all:", "--dest", folder, *NAMESAKES)
        if download.returncode:
            pytest.fail(f"this test needs {' and '.join(NAMESAKES)} from the package index once:\n{download.stderr}")
    return sorted(folder.glob("*.whl"))


@pytest.fixture(scope="session")
def site(wheel: Path, namesakes: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site-packages folder of an environment that holds the wheel and its namesakes."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, symlinks=True)
    python = environment / "bin" / "python"
    install = pip("--python", python, "install", "--no-deps", "--no-index", "--no-compile", wheel, *namesakes)
    assert install.returncode == 0, install.stderr
    (folder,) = environment.glob("lib/python*/site-packages")
    return folder


def test_the_wheel_holds_every_file_of_the_rooms_and_nothing_else(source: Path, wheel: Path) -> None:
    files = {path for room in ROOMS for path in (source / room).rglob("*") if path.is_file()}
    expected = {f"modelcompose/{path.relative_to(source).as_posix()}" for path in files}
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == {"modelcompose/__init__.py", "modelcompose/py.typed", *expected}


def test_no_file_of_the_wheel_or_its_namesakes_is_overwritten(site: Path) -> None:
    records = sorted(site.glob("*.dist-info/RECORD"))
    assert len(records) == 1 + len(NAMESAKES)
    changed = [
        f"{record.parent.name}: {name}"
        for record in records
        for name, digest, _ in csv.reader(record.read_text(encoding="utf-8").splitlines())
        if digest and digest_of(site / name) != digest
    ]
    assert changed == []


def test_no_two_of_them_own_the_same_file(site: Path) -> None:
    owned = [
        {name for name, *_ in csv.reader(record.read_text(encoding="utf-8").splitlines())}
        for record in site.glob("*.dist-info/RECORD")
    ]
    assert len(set().union(*owned)) == sum(map(len, owned))


def test_the_installed_package_imports_its_own_rooms(site: Path, tmp_path: Path) -> None:
    program = (
        "from importlib.util import find_spec\n"
        "for name in ('modelcompose.adapters.events', 'adapters', 'workflows'): print(find_spec(name).origin)"
    )
    environment = {"PYTHONPATH": str(site)}
    found = subprocess.check_output([sys.executable, "-c", program], env=environment, cwd=tmp_path, text=True)
    assert found.split() == [
        str(site / "modelcompose" / "adapters" / "events.py"),
        str(site / "adapters" / "__init__.py"),
        str(site / "workflows" / "__init__.py"),
    ]


def digest_of(path: Path) -> str:
    """A file's hash as a RECORD has it, which packaging.python.org specifies under "Recording installed projects"."""
    digest = hashlib.sha256(path.read_bytes()).digest()
    return "sha256=" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
