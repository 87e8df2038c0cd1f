"""Reading compose files: YAML with places, several files merged, the environment put in, all mistakes at once.

YAML is read as version 1.2 reads it (`on`, `yes` and `12:30` are texts), and as docker compose does: keys may stand but
once, `<<` merges mappings, aliases are followed, `!reset` and `!override` are known. Top-level keys that begin with
`x-` are left alone, so that there is a place for anchors.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml
from msgspec.structs import replace

from .checks import problems_of
from .dotenv import parse_dotenv
from .environment import with_environment
from .forms import read_file
from .merge import merge, without_resets
from .schema import ComposeFile
from .spellings import spelled, with_lists
from .tree import ConfigErrors, Node, Place, Problem, joined

MOST_BYTES = 4 << 20
MOST_VALUES = 50_000
DEEPEST = 100


class Compose(NamedTuple):
    """A compose file ready to be run; relative paths in it are relative to `folder`."""

    file: ComposeFile
    folder: Path
    paths: tuple[Path, ...]


def load(paths: Sequence[Path], *, env: Mapping[str, str], env_files: Sequence[Path] = ()) -> Compose:
    """The compose file that the files at `paths` make together, later ones over earlier ones.

    `${env.NAME}` is taken from `env`, else from `env_files` (later ones first), else, if none are given, from `.env`
    beside the first file. Raises `ConfigErrors` with every problem of the files.
    """
    problems: list[Problem] = []
    roots = [root for number, path in enumerate(paths) if (root := _read(path, number, problems)) is not None]
    misread: list[Problem] = []
    variables = _environment(paths, env, env_files, misread)
    problems += misread
    if misread or not roots or len(roots) < len(paths):
        raise ConfigErrors(problems)
    merged = with_lists(roots[0])
    for root in roots[1:]:
        merged = merge(merged, with_lists(root))
    tree = spelled(with_environment(without_resets(merged), variables, problems), problems)
    reading = read_file(tree, problems)
    problems += problems_of(tree, reading, problems)
    if problems:
        raise ConfigErrors(problems)
    return Compose(reading.file, Path(paths[0]).absolute().parent, tuple(paths))


def _environment(
    paths: Sequence[Path], env: Mapping[str, str], env_files: Sequence[Path], problems: list[Problem]
) -> dict[str, str]:
    beside = Path(paths[0]).parent / ".env" if paths else Path(".env")
    found: dict[str, str] = {}
    for path in env_files or ([beside] if beside.is_file() else []):
        if (text := _text(path, len(paths), problems)) is not None:
            variables, mistakes = parse_dotenv(text, str(path), len(paths))
            found |= variables
            problems += mistakes
    return {**found, **env}


def _text(path: Path, order: int, problems: list[Problem]) -> str | None:
    """A file's text, or a problem."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        what = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        problems.append(Problem(Place(str(path), order=order), "", what))
        return None
    if len(data) > MOST_BYTES:
        problems.append(Problem(Place(str(path), order=order), "", f"is larger than {MOST_BYTES >> 20} MiB"))
        return None
    is_utf16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return data.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 if is_utf16 else data.count(b"\n", 0, error.start) + 1
        column = 1 if is_utf16 else error.start - data.rfind(b"\n", 0, error.start)
        problems.append(Problem(Place(str(path), line, column, order), "", "is not UTF-8 text here"))
        return None


def _read(path: Path, order: int, problems: list[Problem]) -> Node | None:
    """A file as a tree, or a problem."""
    text = _text(path, order, problems)
    if text is None:
        return None
    start = Place(str(path), 1, 1, order)
    try:
        loader = _Loader(text)
        document = loader.get_node() if loader.check_node() else None
        second = loader.get_node() if loader.check_node() else None
    except yaml.MarkedYAMLError as error:
        problems.append(_syntax_problem(error, text, start))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        message = f"the character U+{ord(text[error.position]):04X} is not allowed in YAML"
        problems.append(Problem(replace(start, line=line, column=column), "", message))
    except RecursionError:
        problems.append(Problem(start, "", "is nested too deeply"))
    else:
        if document is None:
            problems.append(Problem(Place(str(path), order=order), "", "is empty"))
        elif second is not None:
            message = "a second document begins here; a compose file is one document"
            problems.append(Problem(_place(start, second.start_mark), "", message))
        else:
            return _root(document, start, problems)
    return None


def _root(document: yaml.Node, start: Place, problems: list[Problem]) -> Node | None:
    reader = _TreeReader(start)
    root = reader.node(document, "", None)
    problems += reader.problems + reader.oddities
    if not isinstance(root.value, dict) and not reader.problems:
        problems.append(root.problem("a compose file is a mapping with 'components' and 'workflows'"))
    return None if reader.problems or not isinstance(root.value, dict) else root


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core schema, but for infinity and NaN, which JSON has no words for; and `<<`."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (as in its base)


for _tag, _pattern, _first in (
    ("null", r"null|Null|NULL|~|", [*"nN~", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?",
        list("-+.0123456789"),
    ),
    ("merge", "<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first)


class _TreeReader:
    """Turns the nodes of a YAML document into ours; `problems` leave holes in the tree, `oddities` do not."""

    def __init__(self, start: Place) -> None:
        self.start = start
        self.problems: list[Problem] = []
        self.oddities: list[Problem] = []
        self.count = 0
        self.within: list[int] = []

    def node(self, node: yaml.Node, path: str, key: Place | None) -> Node:
        place = _place(self.start, node.start_mark)
        empty = Node(None, place, path, key or place)
        self.count += 1
        if self.count == MOST_VALUES:
            self.problems.append(empty.problem(f"the file has more than {MOST_VALUES} values, aliases followed"))
        if self.count >= MOST_VALUES:
            return empty
        if id(node) in self.within:
            self.problems.append(empty.problem("this value holds itself"))
            return empty
        if len(self.within) >= DEEPEST:
            self.problems.append(empty.problem(f"is nested more than {DEEPEST} deep"))
            return empty
        self.within.append(id(node))
        try:
            return self._filled(node, empty)
        finally:
            self.within.pop()

    def _filled(self, node: yaml.Node, empty: Node) -> Node:
        if node.tag == "!reset":
            return replace(empty, tag="reset")
        if node.tag == "!override":
            empty = replace(empty, tag="override")
        elif node.tag.removeprefix(_YAML) not in _TAGS:
            self.problems.append(empty.problem(f"the tag '{node.tag}' means nothing here"))
            return empty
        match node:
            case yaml.MappingNode():
                return empty.with_value(self._fields(node, empty))
            case yaml.SequenceNode():
                items = enumerate(node.value)
                return empty.with_value([self.node(item, f"{empty.path}[{number}]", None) for number, item in items])
            case yaml.ScalarNode():
                return empty.with_value(self._scalar(node, empty))
            case _:
                raise TypeError(f"YAML has no {node}")

    def _fields(self, node: yaml.MappingNode, empty: Node) -> dict[str, Node]:
        fields: dict[str, Node] = {}
        inherited: dict[str, Node] = {}
        for key, value in node.value:
            place = _place(self.start, key.start_mark)
            if not isinstance(key, yaml.ScalarNode):
                self.problems.append(Problem(place, empty.path, "a key has to be a text"))
            elif key.tag == f"{_YAML}merge":
                inherited = {**self._inherited(value, empty), **inherited}
            elif key.value in fields:
                first = fields[key.value].key.line
                message = f"'{key.value}' is given twice, on lines {first} and {place.line}"
                self.oddities.append(Problem(place, joined(empty.path, key.value), message))
            else:
                fields[key.value] = self.node(value, joined(empty.path, key.value), place)
        return {**inherited, **fields}

    def _inherited(self, node: yaml.Node, empty: Node) -> dict[str, Node]:
        """What `<<` brings: a mapping's keys, or those of several, the first of which counts."""
        fields: dict[str, Node] = {}
        for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if isinstance(source, yaml.MappingNode):
                fields = {**self.node(source, empty.path, None).fields, **fields}
            else:
                self.problems.append(Problem(_place(self.start, source.start_mark), empty.path, "'<<' takes a mapping"))
        return fields

    def _scalar(self, node: yaml.ScalarNode, empty: Node) -> object:
        text: str = node.value
        tag = node.tag
        if half := _HALF_CHARACTER.search(text):
            self.oddities.append(empty.problem(f"holds half a character, U+{ord(half[0]):04X}"))
            return "?"
        if tag == "!override":
            tag = _Loader("").resolve(yaml.ScalarNode, text, (node.style is None, True))  # type: ignore[no-untyped-call]
        try:
            match tag.removeprefix(_YAML):
                case "null":
                    return None
                case "bool":
                    return {"true": True, "false": False}[text.lower()]
                case "int":
                    return int(text, 0 if text[:2] in ("0o", "0x") else 10)
                case "float" if math.isfinite(number := float(text)):
                    return number
        except (ValueError, KeyError):
            self.oddities.append(empty.problem(f"{text[:60]!r} is no {tag.removeprefix(_YAML)}"))
        return text


def _place(start: Place, mark: yaml.Mark) -> Place:
    return replace(start, line=mark.line + 1, column=mark.column + 1)


def _syntax_problem(error: yaml.MarkedYAMLError, text: str, start: Place) -> Problem:
    """A mistake in the YAML itself, with what is usually meant by it."""
    place = _place(start, error.problem_mark) if error.problem_mark else start
    lines = text.splitlines()
    line = lines[place.line - 1] if place.line <= len(lines) else ""
    what = error.problem or "not valid YAML"
    if "mapping values are not allowed" in what:
        return Problem(place, "", f"a text that holds ': ' has to be in quotes{_quoted(line)}")
    if "'\\t'" in what:
        return Problem(place, "", "a tab cannot indent; use spaces")
    if "${" in line and "flow" in (error.context or ""):
        return Problem(place, "", "between [ ] or { } a reference has to be in quotes")
    context = f" {error.context}" if error.context else ""
    return Problem(place, "", f"this is not valid YAML: {what}{context}")


def _quoted(line: str) -> str:
    """The line with its value in quotes."""
    found = re.fullmatch(r"\s*((?:- +)*[\w-]+: +)(\S.*?)\s*", line)
    if found is None or found[2][0] in "'\"|>&*!{[":
        return ""
    value = found[2].replace("'", "''")
    return f":\n    {found[1]}'{value}'"


_YAML = "tag:yaml.org,2002:"
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_TAGS = ("map", "seq", "str", "null", "bool", "int", "float")
