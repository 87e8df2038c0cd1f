"""What a Markdown page shows its reader: fenced blocks and tables."""

from __future__ import annotations

import re
import textwrap
from typing import NamedTuple

_BLOCK = re.compile(r"^(?P<indent> *)```(?P<language>[\w-]+)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


class Block(NamedTuple):
    """A fenced block: its language, its text without the page's indentation, and the line on which it begins."""

    language: str
    text: str
    line: int


class Table(NamedTuple):
    """A table: the heading it stands under, and its rows without the one that names the columns."""

    heading: str
    rows: tuple[tuple[str, ...], ...]


def blocks(page: str, *languages: str) -> list[Block]:
    """The fenced blocks in these languages, in order."""
    return [
        Block(found["language"], textwrap.dedent(found["text"]), page.count("\n", 0, found.start()) + 2)
        for found in _BLOCK.finditer(page)
        if found["language"] in languages
    ]


def tables(page: str) -> list[Table]:
    """The tables, in order; a cell is its text without the spaces around it."""
    found: list[Table] = []
    heading = ""
    rows: list[tuple[str, ...]] = []
    for line in [*_BLOCK.sub("", page).splitlines(), ""]:
        if line.startswith("|"):
            rows.append(tuple(cell.strip() for cell in line.strip("|").split("|")))
            continue
        if rows:
            found.append(Table(heading, tuple(rows[2:])))
            rows = []
        if is_heading := _HEADING.match(line):
            heading = is_heading[1]
    return found
