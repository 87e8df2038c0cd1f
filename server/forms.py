"""Bodies that web forms and `curl -d name=value` send, as the JSON object they stand for. Pure.

input[user_prompt]=x              {"input": {"user_prompt": "x"}}
input[tags][]=a&input[tags][]=b   {"input": {"tags": ["a", "b"]}}
input[turns][0][content]=x        {"input": {"turns": [{"content": "x"}]}}
"""

from __future__ import annotations

import email.message
import email.parser
import email.policy
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from ..adapters.errors import InvalidRequest

_URLENCODED = "application/x-www-form-urlencoded"
_MULTIPART = "multipart/form-data"
_NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
_SWITCHES = dict.fromkeys(("true", "1", "on", "yes"), True) | dict.fromkeys(("false", "0", "off", "no"), False)
_DEEPEST = 16
_MOST_FIELDS = 10_000


def is_form(raw: bytes, content_type: str) -> bool:
    """Whether a body is a form; JSON that curl calls one, for want of a header, is not."""
    kind = _kind(content_type)
    return kind == _MULTIPART or (kind == _URLENCODED and not raw.lstrip().startswith(b"{"))


def body_of_form(raw: bytes, content_type: str) -> dict[str, Any]:
    """The object that a form stands for; outside of `input`, words such as `true` are booleans.

    Raises InvalidRequest.
    """
    tree: dict[str, Any] = {}
    for name, value in _multipart(raw, content_type) if _kind(content_type) == _MULTIPART else _urlencoded(raw):
        _put(tree, _steps(name), value, name)
    body = {name: _with_lists(value) for name, value in tree.items()}
    switched = {name: _SWITCHES.get(str(value).lower(), value) for name, value in body.items() if name != "input"}
    return {**body, **switched, **({"input": _parsed(body["input"])} if "input" in body else {})}


def _kind(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _urlencoded(raw: bytes) -> Iterator[tuple[str, str]]:
    try:
        fields = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except ValueError as error:
        raise InvalidRequest(f"The form in the request's body cannot be read: {error}.") from None
    yield from fields


def _multipart(raw: bytes, content_type: str) -> Iterator[tuple[str, str]]:
    """The fields of RFC 7578; a file's content is its text."""
    header = email.message.Message()
    header["content-type"] = content_type
    boundary = header.get_boundary()
    if not boundary:
        raise InvalidRequest("The content type of the request's body has no boundary.")
    _, *parts = (b"\r\n" + raw).split(b"\r\n--" + boundary.encode())
    if not parts or not parts[-1].startswith(b"--"):
        raise InvalidRequest("The form in the request's body is cut off.")
    for part in parts[:-1]:
        head, blank, content = part.partition(b"\r\n\r\n")
        described = email.parser.BytesHeaderParser(policy=email.policy.HTTP).parsebytes(head.lstrip() + b"\r\n\r\n")
        name = described.get_param("name", header="content-disposition")
        if not blank or not isinstance(name, str):
            raise InvalidRequest("A field of the form in the request's body has no name.")
        try:
            yield name, content.decode()
        except UnicodeDecodeError:
            raise InvalidRequest(f"The field '{name[:80]}' must be text in UTF-8.", param=name[:80]) from None


def _steps(name: str) -> list[str]:
    found = _NAME.fullmatch(name)
    steps = [] if found is None else [found[1], *re.findall(r"\[([^\[\]]*)\]", found[2])]
    if not 0 < len(steps) <= _DEEPEST:
        raise InvalidRequest(f"The field name {name[:80]!r} is not of the form name or name[key].", param=name[:80])
    return steps


def _put(tree: dict[str, Any], steps: list[str], value: str, name: str) -> None:
    """Add a field; one that is there already becomes a list."""
    key, *rest = steps
    key = key or str(len(tree))
    there = tree.get(key)
    if rest and isinstance(there, dict | None):
        _put(tree.setdefault(key, {}), rest, value, name)
    elif rest or isinstance(there, dict):
        raise InvalidRequest(f"The field '{name[:80]}' is given both as a value and as an object.", param=name[:80])
    elif isinstance(there, list):
        there.append(value)
    else:
        tree[key] = value if there is None else [there, value]


def _with_lists(value: Any) -> Any:
    """Objects whose keys count from 0 are lists."""
    if not isinstance(value, dict):
        return value
    whole = {key: _with_lists(item) for key, item in value.items()}
    numbers = [str(number) for number in range(len(whole))]
    return [whole[number] for number in numbers] if whole.keys() == set(numbers) else whole


def _parsed(value: Any) -> Any:
    """An input that was given as the text of a JSON object."""
    if not isinstance(value, str) or not value.lstrip().startswith("{"):
        return value
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"'input' is not valid JSON: {error}.", param="input") from None
