"""`.env` files: lines of NAME=VALUE, read as docker compose reads them, but for `$`, which stands for itself.

NAME=value              # up to a space and '#'
export NAME = 'as it stands'
NAME="with \\n, \\t, \\" and \\\\, over several lines if need be"
NAME                    as in the process's environment
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .tree import Place, Problem

_LINE = re.compile(
    r"""
    [^\S\n]* (?:export[^\S\n]+)? (?P<name>[A-Za-z_][\w.-]*) [^\S\n]*
    (?: [=:] [^\S\n]* (?:
        '(?P<single>[^']*)'           [^\S\n]* (?:\#[^\n]*)?
      | "(?P<double>(?:[^"\\]|\\.)*)" [^\S\n]* (?:\#[^\n]*)?
      | (?P<bare>(?!['"])[^\n]*)
    ) )? (?:\n|\Z)
    """,
    re.VERBOSE | re.DOTALL,
)
_NOTHING = re.compile(r"[^\S\n]*(?:\#[^\n]*)?(?:\n|\Z)")
_COMMENT = re.compile(r"(?:^|\s+)#.*")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


def parse_dotenv(text: str, file: str, order: int = 0) -> tuple[dict[str, str], list[Problem]]:
    """The variables of a `.env` file, and its lines that are none."""
    found: dict[str, str] = {}
    problems: list[Problem] = []
    for value in _lines(text.replace("\r\n", "\n")):
        if isinstance(value, int):
            problems.append(Problem(Place(file, value, 1, order), "", "expected NAME=VALUE"))
        else:
            found |= value
    return found, problems


def _lines(text: str) -> Iterator[dict[str, str] | int]:
    """What each line gives, or its number if it cannot be read."""
    at = 0
    while at < len(text):
        if nothing := _NOTHING.match(text, at):
            at = nothing.end()
        elif line := _LINE.match(text, at):
            at = line.end()
            if (value := _value(line)) is not None:
                yield {line["name"]: value}
        else:
            yield text.count("\n", 0, at) + 1
            at = (text.find("\n", at) + 1) or len(text)


def _value(line: re.Match[str]) -> str | None:
    if line["single"] is not None:
        return line["single"]
    if line["double"] is not None:
        return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), line["double"], flags=re.DOTALL)
    return _COMMENT.sub("", line["bare"]).strip() if line["bare"] is not None else None
