"""Forms as JSON objects."""

from __future__ import annotations

from typing import Any

import pytest

from modelcompose.adapters.errors import InvalidRequest
from modelcompose.server.forms import body_of_form, is_form

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = 'multipart/form-data; boundary="a b"'


def part(name: str, value: bytes, more: str = "") -> bytes:
    return f'--a b\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + value + b"\r\n"


@pytest.mark.parametrize(
    ("form", "body"),
    [
        (b"", {}),
        (b"input[a]=x", {"input": {"a": "x"}}),
        (b"input[a]=&input[b]=%C3%A4+%26", {"input": {"a": "", "b": "ä &"}}),
        (b"input[a][b][c]=x&input[a][d]=y", {"input": {"a": {"b": {"c": "x"}, "d": "y"}}}),
        (b"input[a][]=x&input[a][]=y", {"input": {"a": ["x", "y"]}}),
        (b"input[a]=x&input[a]=y&input[a]=z", {"input": {"a": ["x", "y", "z"]}}),
        (b"input[a][1][b]=y&input[a][0][b]=x", {"input": {"a": [{"b": "x"}, {"b": "y"}]}}),
        (b"input[a][1]=y&input[a][2]=x", {"input": {"a": {"1": "y", "2": "x"}}}),
        (b"input[true]=true&output_only=true", {"input": {"true": "true"}, "output_only": True}),
        (b"wait_for_completion=Off&stream=1", {"wait_for_completion": False, "stream": True}),
        (b"workflow_id=on", {"workflow_id": True}),
        (b'input={"a": [1]}', {"input": {"a": [1]}}),
        (b"input=text", {"input": "text"}),
    ],
)
def test_urlencoded(form: bytes, body: dict[str, Any]) -> None:
    assert body_of_form(form, URLENCODED) == body


def test_multipart() -> None:
    form = part("input[a]", b"line\r\nline\r\n--a") + part("input[b]", "ä".encode(), '; filename="b.txt"')
    assert body_of_form(form + b"--a b--\r\n", MULTIPART) == {"input": {"a": "line\r\nline\r\n--a", "b": "ä"}}


@pytest.mark.parametrize(
    ("form", "content_type", "words"),
    [
        (b"a[b=x", URLENCODED, "'a[b' is not of the form name or name[key]"),
        (b"[a]=x", URLENCODED, "'[a]' is not of the form name or name[key]"),
        (b"a" + b"[b]" * 16 + b"=x", URLENCODED, "is not of the form"),
        (b"a[b]=x&a[b][c]=y", URLENCODED, "'a[b][c]' is given both as a value and as an object"),
        (b"a[b][c]=x&a[b]=y", URLENCODED, "'a[b]' is given both as a value and as an object"),
        (b"input={a}", URLENCODED, "'input' is not valid JSON"),
        (b"a=%ff", URLENCODED, "cannot be read"),
        (b"a=\xff", URLENCODED, "cannot be read"),
        (part("a", b"x"), MULTIPART, "is cut off"),
        (part("a", b"x") + b"--a b--", "multipart/form-data", "has no boundary"),
        (part("a", b"\xff") + b"--a b--", MULTIPART, "'a' must be text in UTF-8"),
        (b"--a b\r\n\r\nx\r\n--a b--", MULTIPART, "has no name"),
        (b"--a b\r\nx\r\n--a b--", MULTIPART, "has no name"),
    ],
)
def test_what_cannot_be_read_is_refused(form: bytes, content_type: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        body_of_form(form, content_type)
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("raw", "content_type", "expected"),
    [
        (b"a=b", URLENCODED, True),
        (b"a=b", f"{URLENCODED}; charset=utf-8", True),
        (b' {"a": 1}', URLENCODED, False),
        (b"{}", MULTIPART, True),
        (b"{}", "application/json", False),
        (b"{}", "", False),
    ],
)
def test_a_form_is_known_by_its_type_unless_it_is_json(raw: bytes, content_type: str, *, expected: bool) -> None:
    assert is_form(raw, content_type) is expected
