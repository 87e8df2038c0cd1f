"""The README is true: its code runs, its commands exist, its tree is the repository's, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

import pytest
from commands import call
from served import ENVIRONMENT, ROOT

if TYPE_CHECKING:
    from served import Served

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LEFT_OUT_OF_THE_TREE = {"README.md", "CHANGELOG.md", "Makefile", "pyproject.toml", "py.typed", "__init__.py"}


class Block(NamedTuple):
    """A fenced block: its language, and what is in it."""

    language: str
    text: str


def blocks(language: str) -> list[str]:
    found = [Block(*match) for match in re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)]
    return [block.text for block in found if block.language == language]


def shell_lines(program: str) -> list[str]:
    """The lines of the README's shell blocks that run a program, continuation lines joined, comments cut off."""
    whole = "\n".join(blocks("sh")).replace("\\\n", "")
    return [line.partition("  #")[0].strip() for line in whole.splitlines() if line.startswith(f"{program} ")]


def test_its_python_runs_and_prints_an_answer(served: Served) -> None:
    (program,) = blocks("python")
    program = program.replace("http://127.0.0.1:8080", served.url)
    ended = subprocess.run(
        [sys.executable, "-c", program], env=ENVIRONMENT, capture_output=True, text=True, timeout=50, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.strip()


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
@pytest.mark.parametrize("line", shell_lines("curl"))
def test_its_curl_lines_work_as_they_are_pasted(line: str, served: Served) -> None:
    line = line.replace("http://127.0.0.1:8080", served.url).replace("curl ", "curl --silent --show-error --fail ", 1)
    ended = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=50, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "bundled" in ended.stdout


def test_its_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+)", README))
    assert {"serve", "test"} <= named <= targets


@cache
def help_of(command: str) -> str:
    return call(command, "--help").stdout


@pytest.mark.parametrize("line", shell_lines("model-compose"))
def test_its_commands_and_options_exist(line: str) -> None:
    _, command, *rest = shlex.split(line)
    for option in rest:
        if option.startswith("-"):
            assert f" {option} " in help_of(command)


def tree() -> Iterator[tuple[PurePosixPath, bool]]:
    """The paths of the README's tree, and whether each is a folder."""
    (text,) = [block for block in blocks("text") if "adapters/" in block]
    folder = ""
    for line in text.splitlines():
        name = line.split()[0]
        path = folder + name if line.startswith("  ") else name
        folder = folder if line.startswith("  ") else name
        yield PurePosixPath(path), name.endswith("/")


def in_the_repository() -> list[PurePosixPath]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    return [PurePosixPath(line) for line in listed.stdout.splitlines()]


def test_its_tree_has_what_is_there() -> None:
    for path, is_folder in tree():
        assert (ROOT / path).is_dir() if is_folder else (ROOT / path).is_file(), path


def test_its_tree_leaves_no_folder_out() -> None:
    listed = {path.as_posix() for path, _ in tree()}
    there = {path.parts[0] for path in in_the_repository() if not path.parts[0].startswith(".")}
    assert there - listed - LEFT_OUT_OF_THE_TREE == set()


@pytest.mark.parametrize("page", PAGES, ids=[page.relative_to(ROOT).as_posix() for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if not link.startswith("https://"):
            path, _, heading = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), link
            assert not heading or heading in anchors(target), link


def anchors(page: Path) -> set[str]:
    """The names by which a page's headings can be linked to, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_about_a_client_is_in_the_list() -> None:
    folder = ROOT / "docs" / "clients"
    index = (folder / "README.md").read_text(encoding="utf-8")
    pages = {page.name for page in folder.glob("*.md")} - {"README.md"}
    assert {page for page in pages if f"({page})" in index} == pages
