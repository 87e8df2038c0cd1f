"""References of the compose file, parsed once, rendered often: `${path [as TYPE[;FORMAT]] [| DEFAULT] [@(text)]}`.

A text is parsed into a `Template`: literal pieces and `Reference`s. A template that is exactly one reference renders to
the value itself, of whatever type; anything else renders to text. Only a missing or null value takes the default.
What a reference renders to is never looked at for references again. `\\${` stands for a literal `${`; two backslashes
before a reference stand for one.

    path      input.prompt  input.history[-1].content  input.prompts[${index}]  input["odd key"]  response[].text
    TYPE      text string number integer boolean json list object stream/text stream/json image audio file
    DEFAULT   "quoted text", a JSON literal (0.7, true, null, [], {}), or any other text; it may hold references
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import msgspec

from ..adapters.errors import ConfigError, InvalidRequest

TYPES = (
    *("text", "string", "number", "integer", "boolean", "json", "list", "object"),
    *("stream/text", "stream/json", "image", "audio", "file"),
)


DEEPEST = 32
"""References within references."""


class ReferenceSyntaxError(ConfigError):
    """A text that is not a template; `at` counts characters from its start, and the message ends in a caret there."""

    def __init__(self, message: str, text: str, at: int) -> None:
        start = text.rfind("\n", 0, at) + 1
        end = text.find("\n", at)
        line = text[start : end if end >= 0 else len(text)]
        super().__init__(f"{message}\n    {line}\n    {' ' * (at - start)}^")
        self.at = at


class CastError(InvalidRequest):
    """A value that does not have, and cannot be brought into, the type its reference asks for."""


class Each(msgspec.Struct, frozen=True):
    """`[]`: every item of a stream or list."""


class Cast(msgspec.Struct, frozen=True):
    """`as type;format`."""

    type: str
    format: str | None = None

    def __str__(self) -> str:
        return self.type if self.format is None else f"{self.type};{self.format}"


class Default(msgspec.Struct, frozen=True):
    """What stands for a missing value: a JSON value whose texts may be templates, or a template."""

    literal: Any = None
    template: Template | None = None

    def __str__(self) -> str:
        if self.template is None:
            return json.dumps(mapped(self.literal, _written), ensure_ascii=False)
        return _quote(str(self.template))


class Reference(msgspec.Struct, frozen=True):
    """One `${...}`: `root` and `steps` say where, the rest what becomes of the value."""

    root: str
    steps: tuple[str | int | Reference | Each, ...] = ()
    cast: Cast | None = None
    default: Default | None = None
    description: str | None = None

    @property
    def path(self) -> str:
        return self.root + "".join(map(_step_text, self.steps))

    def __str__(self) -> str:
        cast = f" as {self.cast}" if self.cast else ""
        default = f" | {self.default}" if self.default else ""
        description = f" @({self.description})" if self.description is not None else ""
        return "${" + self.path + cast + default + description + "}"


class Template(msgspec.Struct, frozen=True):
    """A text with references in it."""

    parts: tuple[str | Reference, ...]

    @property
    def only(self) -> Reference | None:
        """The reference that this whole template is, if it is one."""
        match self.parts:
            case (Reference() as reference,):
                return reference
        return None

    def references(self) -> Iterator[Reference]:
        """Every reference, those inside indexes and defaults too."""
        for part in self.parts:
            if isinstance(part, Reference):
                yield from _inner_references(part)

    def __str__(self) -> str:
        text = ""
        for part in self.parts:
            if isinstance(part, str):
                text += _LITERAL_REFERENCE.sub(r"\1\1\\${", part)
            else:
                backslashes = len(text) - len(text.rstrip("\\"))
                text += "\\" * backslashes + str(part)
        return text


class StreamItem(msgspec.Struct, frozen=True):
    """One item of a stream, as the value of a root: `root[]` is the item, `root` alone is not."""

    value: Any


def parse(text: str) -> Template:
    """The template that `text` is; raises `ReferenceSyntaxError` with the place of the mistake."""
    return _Parser(text).template()


def render(template: Template, scope: Mapping[str, Any]) -> Any:
    """The template's value, with `scope` giving the roots' values; raises only `CastError`."""
    if (only := template.only) is not None:
        return resolve(only, scope)
    return "".join(part if isinstance(part, str) else as_text(resolve(part, scope)) for part in template.parts)


def render_deep(value: Any, scope: Mapping[str, Any]) -> Any:
    """`value`, a parsed tree, with every template in it rendered."""
    return mapped(value, lambda leaf: render(leaf, scope) if isinstance(leaf, Template) else leaf)


def mapped(tree: Any, change: Callable[[Any], Any]) -> Any:
    """A JSON tree, with `change` made to all in it that is neither a list nor a mapping."""
    match tree:
        case list():
            return [mapped(item, change) for item in tree]
        case dict():
            return {key: mapped(item, change) for key, item in tree.items()}
        case _:
            return change(tree)


def resolve(reference: Reference, scope: Mapping[str, Any]) -> Any:
    """The value of one reference: looked up, else its default, then cast."""
    value = _walk(scope.get(reference.root), reference.steps, scope)
    if value is None and (default := reference.default) is not None:
        value = render_deep(default.literal if default.template is None else default.template, scope)
    if reference.cast is None or value is None:
        return value
    return cast(value, reference.cast, reference.path)


def references_in(value: Any) -> Iterator[Reference]:
    """Every reference of a parsed tree, those inside indexes and defaults too."""
    match value:
        case Template():
            yield from value.references()
        case list() | tuple():
            for item in value:
                yield from references_in(item)
        case dict():
            for item in value.values():
                yield from references_in(item)


def as_text(value: Any) -> str:
    """How a value is written inside longer text: null as nothing, lists and objects as JSON.

    Raises `CastError` for one that is nested too deeply to be written.
    """
    match value:
        case None:
            return ""
        case str():
            return value
        case StreamItem():
            return as_text(value.value)
        case _:
            try:
                return json.dumps(value, ensure_ascii=False, default=str)
            except RecursionError:
                raise CastError("a value is nested too deeply to be written as text") from None


def cast(value: Any, to: Cast, path: str) -> Any:
    """`value` as the type `to`; raises `CastError` naming `path`."""
    try:
        return _CASTS.get(to.type, _same)(value)
    except RecursionError as error:
        raise CastError(f"'{path}' is nested too deeply", param=path) from error
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        shown = as_text(value)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        raise CastError(f"'{path}' must be {_article(to.type)}, not {shown!r}", param=path) from error


def _walk(value: Any, steps: tuple[str | int | Reference | Each, ...], scope: Mapping[str, Any]) -> Any:
    for number, step in enumerate(steps):
        if isinstance(step, Reference):
            step = resolve(step, scope)  # noqa: PLW2901
        match value, step:
            case StreamItem(), Each():
                value = value.value
            case list(), Each():
                items = (_walk(item, steps[number + 1 :], scope) for item in value)
                return [item for item in items if item is not None]
            case Mapping(), str():
                value = value.get(step)
            case ((list() | tuple()), int()) if not isinstance(step, bool) and -len(value) <= step < len(value):
                value = value[step]
            case _:
                return None
    return value


def _inner_references(reference: Reference) -> Iterator[Reference]:
    yield reference
    for step in reference.steps:
        if isinstance(step, Reference):
            yield from _inner_references(step)
    if reference.default is not None:
        yield from references_in((reference.default.template, reference.default.literal))


def _written(value: Any) -> Any:
    """A text or template in a default as a file has it."""
    match value:
        case Template():
            return str(value)
        case str():
            return str(Template((value,)))
        case _:
            return value


def _step_text(step: str | int | Reference | Each) -> str:
    match step:
        case str():
            return f".{step}" if _NAME.fullmatch(step) else f"[{_quote(step)}]"
        case Each():
            return "[]"
        case _:
            return f"[{step}]"


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _same(value: Any) -> Any:
    return value


def _number(value: Any) -> int | float:
    if isinstance(value, bool):
        raise TypeError
    if isinstance(value, int | float):
        return value
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    text = str(value).strip()
    return int(text) if re.fullmatch(r"[+-]?\d+", text) else number


def _integer(value: Any) -> int:
    number = _number(value)
    if number != int(number):
        raise ValueError
    return int(number)


def _boolean(value: Any) -> bool:
    return _BOOLEANS[str(value).strip().lower()]


def _json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _container(kind: type) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        value = _json(value)
        if not isinstance(value, kind):
            raise TypeError
        return value

    return convert


def _article(name: str) -> str:
    return f"an {name}" if name[0] in "aeio" else f"a {name}"


_BOOLEANS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
_CASTS: dict[str, Callable[[Any], Any]] = {
    "text": as_text,
    "string": as_text,
    "number": _number,
    "integer": _integer,
    "boolean": _boolean,
    "json": _json,
    "list": _container(list),
    "object": _container(dict),
}
_NAME = re.compile(r"[^\W\d][\w-]*")
_INTEGER = re.compile(r"-?\d{1,9}")
_TYPE = re.compile(r"[A-Za-z]+(?:/[A-Za-z]+)?")
_SPACE = re.compile(r"\s*")
_ESCAPE = re.compile(r"(\\+)\$\{")
_LITERAL_REFERENCE = re.compile(r"(\\*)\$\{")


class _Parser:
    """Reads a text from left to right; `at` is the next character."""

    def __init__(self, text: str, depth: int = 0) -> None:
        self.text = text
        self.at = 0
        self.depth = depth
        self._known: dict[int, tuple[Reference, int]] = {}

    def template(self) -> Template:
        """The whole text."""
        return self._pieces(is_default=False)

    def _pieces(self, *, is_default: bool) -> Template:
        """Text and references up to the end or, in a default, up to the brace that closes its reference."""
        parts: list[str | Reference] = []
        literal, depth = "", 0
        while not self._ended and not (is_default and depth == 0 and self.text.startswith(("}", "@("), self.at)):
            if escape := _ESCAPE.match(self.text, self.at):
                literal += "\\" * (len(escape[1]) // 2)
                is_literal = len(escape[1]) % 2 == 1
                literal += "${" if is_literal else ""
                self.at = escape.end() if is_literal else escape.end(1)
            elif self.text.startswith("${", self.at):
                parts += [literal] if literal else []
                literal = ""
                parts.append(self._reference())
            else:
                depth += (self.text[self.at] == "{") - (self.text[self.at] == "}")
                literal += self.text[self.at]
                self.at += 1
        literal = literal.rstrip() if is_default else literal
        return Template((*parts, literal) if literal else tuple(parts))

    def _reference(self) -> Reference:
        """The reference that begins here; read once, however often what it stands in has to be read."""
        start = self.at
        if start not in self._known:
            self._known[start] = self._read_reference(start), self.at
        found, self.at = self._known[start]
        return found

    def _read_reference(self, start: int) -> Reference:
        self._expect("${")
        self.depth += 1
        if self.depth > DEEPEST:
            self._fail(f"references are nested more than {DEEPEST} deep", start)
        self._space()
        root = self._match(_NAME, "a name such as input, jobs or env")
        steps = tuple(self._steps())
        self._space()
        cast = self._cast() if self._word("as") else None
        self._space()
        default = self._default(start) if self._take("|") else None
        self._space()
        description = self._description() if self._take("@(") else None
        self._space()
        if self._ended:
            self._fail("this reference has no closing '}'", start)
        self._expect("}")
        self.depth -= 1
        return Reference(root, steps, cast, default, description)

    def _steps(self) -> Iterator[str | int | Reference | Each]:
        while True:
            if self._take("."):
                yield self._match(_NAME, "a name after '.'")
            elif self._take("["):
                yield self._index()
            else:
                return

    def _index(self) -> str | int | Reference | Each:
        self._space()
        if self._take("]"):
            return Each()
        step: str | int | Reference
        if self.text.startswith("${", self.at):
            step = self._reference()
        elif self.text[self.at : self.at + 1] in ('"', "'"):
            step = self._quoted_key()
        else:
            step = int(self._match(_INTEGER, "a number, a quoted key, a reference or ']'"))
        self._space()
        if not self._take("]"):
            self._fail("expected ']'")
        return step

    def _quoted_key(self) -> str:
        begin = self.at
        key = self._quoted()
        if key is None:
            self._fail("this quote is never closed", begin)
        return key

    def _cast(self) -> Cast:
        self._space()
        start = self.at
        name = self._match(_TYPE, "a type: " + ", ".join(TYPES))
        form = self._match(re.compile(r"[\w+./-]+"), "a format after ';'") if self._take(";") else None
        if form in ("sse-text", "sse-json") and name in ("text", "json"):
            name, form = f"stream/{form[4:]}", None
        if name not in TYPES:
            self._fail(f"unknown type '{name}'; known are {', '.join(TYPES)}", start)
        return Cast(name, form)

    def _default(self, start: int) -> Default:
        self._space()
        before = self.at
        if self.text[self.at : self.at + 1] in ('"', "'"):
            quoted = self._quoted()
            if quoted is not None and self._is_at_end:
                return Default(template=_Parser(quoted, self.depth).template())
            self.at = before
            template = self._quoted_template()
            if template is not None and self._is_at_end:
                return Default(template=template)
        else:
            try:
                literal, self.at = _JSON.raw_decode(self.text, self.at)
                if self._is_at_end:
                    return Default(literal=mapped(literal, self._parsed))
            except (ValueError, RecursionError):
                pass
        self.at = before
        template = self._pieces(is_default=True)
        if self._ended:
            self._fail("this reference has no closing '}'", start)
        return Default(template=template)

    def _parsed(self, value: Any) -> Any:
        """A text that holds references as a template."""
        if not isinstance(value, str) or "${" not in value:
            return value
        template = _Parser(value, self.depth).template()
        match template.parts:
            case (str(text),):
                return text
        return template

    @property
    def _is_at_end(self) -> bool:
        """Whether nothing more of the default follows."""
        self._space()
        return self._ended or self.text.startswith(("}", "@("), self.at)

    def _quoted(self) -> str | None:
        """The text between two quotes, or None if the second one is missing."""
        quote = self.text[self.at]
        characters: list[str] = []
        self.at += 1
        while not self._ended:
            if self.text[self.at] == quote:
                self.at += 1
                return "".join(characters)
            characters.append(self._character(quote))
        return None

    def _quoted_template(self) -> Template | None:
        """As `_quoted`, but quotes within references do not count."""
        quote = self.text[self.at]
        parts: list[str | Reference] = []
        literal = ""
        self.at += 1
        while not self._ended:
            if self.text.startswith("${", self.at):
                backslashes = len(literal) - len(literal.rstrip("\\"))
                literal = literal[: len(literal) - (backslashes + 1) // 2]
                if backslashes % 2 == 1:
                    literal += "${"
                    self.at += 2
                else:
                    parts += [literal] if literal else []
                    literal = ""
                    parts.append(self._reference())
            elif self.text[self.at] == quote:
                self.at += 1
                return Template((*parts, literal) if literal else tuple(parts))
            else:
                literal += self._character(quote)
        return None

    def _character(self, quote: str) -> str:
        """One character between quotes."""
        if self.text[self.at] == "\\" and self.text[self.at + 1 : self.at + 2] in ("\\", quote):
            self.at += 1
        self.at += 1
        return self.text[self.at - 1]

    def _description(self) -> str:
        begin, depth = self.at, 0
        while depth >= 0:
            if self._ended:
                self._fail("this description has no closing ')'", begin)
            depth += (self.text[self.at] == "(") - (self.text[self.at] == ")")
            self.at += 1
        return self.text[begin : self.at - 1]

    @property
    def _ended(self) -> bool:
        return self.at >= len(self.text)

    def _take(self, token: str) -> bool:
        if not self.text.startswith(token, self.at):
            return False
        self.at += len(token)
        return True

    def _word(self, word: str) -> bool:
        return bool(re.compile(rf"{word}\b").match(self.text, self.at)) and self._take(word)

    def _expect(self, token: str) -> None:
        if not self._take(token):
            self._fail(f"expected '{token}'")

    def _space(self) -> None:
        found = _SPACE.match(self.text, self.at)
        self.at = found.end() if found else self.at

    def _match(self, pattern: re.Pattern[str], expected: str) -> str:
        found = pattern.match(self.text, self.at)
        if found is None:
            self._fail(f"expected {expected}")
        self.at = found.end()
        return found.group()

    def _fail(self, message: str, at: int | None = None) -> NoReturn:
        raise ReferenceSyntaxError(message, self.text, self.at if at is None else at)


def _reject_constant(name: str) -> Any:
    raise ValueError(name)


def _finite(digits: str) -> float:
    if not math.isfinite(number := float(digits)):
        raise ValueError(digits)
    return number


_JSON = json.JSONDecoder(parse_constant=_reject_constant, parse_float=_finite)
