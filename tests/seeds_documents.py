"""The five documents that this program grew from, and the example that each of them is about.

They lie in `tests/seeds` as they were written. `cd examples/...` in them is meant from `clients/`.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from documents import Block, Table, blocks, tables

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "clients" / "examples"


class Seed(NamedTuple):
    """One document, by its name without the suffix."""

    name: str

    @property
    def page(self) -> str:
        return (ROOT / "tests" / "seeds" / f"{self.name}.md").read_text(encoding="utf-8")

    @property
    def snippets(self) -> list[Block]:
        return blocks(self.page, "yaml")

    @property
    def commands(self) -> list[Block]:
        return blocks(self.page, "bash")

    @property
    def tables(self) -> list[Table]:
        return tables(self.page)

    @property
    def folder(self) -> Path:
        """Where its `cd` line leads."""
        (line,) = [block.text for block in self.commands if block.text.startswith("cd ")]
        return ROOT / "clients" / line.removeprefix("cd ").strip()

    @property
    def file(self) -> Path:
        return self.spelled("flat")

    def spelled(self, spelling: str) -> Path:
        """Its example: the flat spelling is the file that a reader has, the others lie beside their tests."""
        if spelling == "flat":
            return self.folder / "model-compose.yml"
        return ROOT / "tests" / "workflows" / "files" / self.folder.name / f"{spelling}.yml"


SPELLINGS = ("flat", "action", "job")
SEEDS = [Seed(file.stem) for file in sorted((ROOT / "tests" / "seeds").glob("*.md"))]
SIGNS: dict[str, int] = {}
"""Of each snippet that a test is about a text that no other has, and in how many documents it stands."""

every_spelling = pytest.mark.parametrize("spelling", SPELLINGS)
every_seed = pytest.mark.parametrize("seed", SEEDS, ids=[seed.name for seed in SEEDS])


def about(sign: str, count: int) -> pytest.MarkDecorator:
    """Run a test with every snippet that holds `sign`: with its document as `seed`, its text as `snippet`."""
    SIGNS[sign] = count
    found = [(seed, block) for seed in SEEDS for block in seed.snippets if sign in block.text]
    return pytest.mark.parametrize(
        ("seed", "snippet"),
        [pytest.param(seed, block.text, id=f"{seed.name}:{block.line}") for seed, block in found],
    )


def in_place(seed: Seed, snippet: str) -> tuple[str, ...]:
    """The example's file with the snippet in the place of what goes by the same name."""
    name = snippet.partition(":")[0]
    lines = seed.file.read_text(encoding="utf-8").splitlines()
    begin = next(number for number, line in enumerate(lines) if line.strip() in (f"{name}:", f"{name.rstrip('s')}:"))
    indent = lines[begin][: len(lines[begin]) - len(lines[begin].lstrip())]
    inside = re.compile(rf"{indent}\s+\S|\s*$")
    end = next((number for number in range(begin + 1, len(lines)) if not inside.match(lines[number])), len(lines))
    return ("\n".join([*lines[:begin], textwrap.indent(snippet, indent), *lines[end:]]),)


def on_top(seed: Seed, snippet: str, spelling: str = "flat") -> tuple[str, ...]:
    """The example's file, and the snippet as a file of its own that is merged over it."""
    text = seed.spelled(spelling).read_text(encoding="utf-8")
    if snippet.startswith(("component:", "workflow:", "workflows:")):
        return text, snippet
    named = re.search(r"^components?:\n  (?:- )?(id: .*\n)", text, re.MULTILINE)
    return text, "component:\n" + textwrap.indent((named[1] if named else "") + snippet, "  ")


def on_top_of_action(seed: Seed, snippet: str) -> tuple[str, ...]:
    """As `on_top`, the example spelled with `action:`."""
    return on_top(seed, snippet, "action")


def on_top_of_job(seed: Seed, snippet: str) -> tuple[str, ...]:
    """As `on_top`, the example spelled with `job:` and `adapter:`."""
    return on_top(seed, snippet, "job")


def example(name: str, spelling: str) -> Path:
    """The file of the example in the folder of that name."""
    return next(seed for seed in SEEDS if seed.folder.name == name).spelled(spelling)


Paste = Callable[[Seed, str], tuple[str, ...]]
on_tops = pytest.mark.parametrize("paste", [on_top, on_top_of_action, on_top_of_job])
all_ways = pytest.mark.parametrize("paste", [in_place, on_top, on_top_of_action, on_top_of_job])


def written(folder: Path, texts: tuple[str, ...]) -> list[Path]:
    """The files with these texts, later ones to be merged over earlier ones."""
    paths = [folder / f"{number}.yml" for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text, encoding="utf-8")
    return paths


def run_elsewhere(text: str, port: int) -> str:
    """The vLLM example's file for a server that runs already, on another port."""
    text, removed = re.subn(r"^  (?:install|start):\n(?:    .*\n)+", "", text, flags=re.MULTILINE)
    assert (removed, text.count("port: 8000\n")) == (2, 1)
    return text.replace("port: 8000\n", f"port: {port}\n")


def rows(seed: Seed, *headings: str) -> Iterator[tuple[str, ...]]:
    """The rows of the tables under these headings, names without their backticks."""
    for table in seed.tables:
        if table.heading in headings:
            yield from (tuple(cell.strip("`") for cell in row) for row in table.rows)


def without(text: str, line: str) -> str:
    """`text` without the line that begins so."""
    kept = [each for each in text.splitlines(keepends=True) if not each.strip().startswith(line)]
    assert len(kept) == text.count("\n") - 1, text
    return "".join(kept)


GIVEN: dict[str, Any] = {
    "system_prompt": "You are a helpful AI assistant.",
    "user_prompt": "Explain quantum computing.",
}
