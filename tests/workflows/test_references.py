"""References: their syntax, their values, and what holds for any of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelcompose.workflows.references import (
    DEEPEST,
    TYPES,
    Cast,
    CastError,
    Default,
    Each,
    Reference,
    ReferenceSyntaxError,
    StreamItem,
    Template,
    as_text,
    parse,
    render,
)

SCOPE: dict[str, Any] = {
    "input": {
        "text": "hello",
        "empty": "",
        "zero": 0,
        "no": False,
        "null": None,
        "list": [1, "two", None, {"a": "b"}],
        "history": [{"content": "first"}, {"content": "last"}],
        "prompts": ["p0", "p1"],
        "number": "0.5",
        "odd key": "odd",
        "with-hyphen": "h",
        "braces": "${input.text}",
        "true": True,
        "float": 1.5,
        "tree": {"a": [1]},
    },
    "jobs": {"draft": {"output": {"generated": "d"}}},
    "index": 1,
    "output": None,
    "response": StreamItem({"choices": [{"delta": {"content": "tok"}}]}),
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", ""),
        ("plain", "plain"),
        ("${input.text}", "hello"),
        ("${ input.text }", "hello"),
        ("say ${input.text}!", "say hello!"),
        ("${input.list}", [1, "two", None, {"a": "b"}]),
        ("${input.list[0]}", 1),
        ("${input.list[-1].a}", "b"),
        ("${input.list[9]}", None),
        ("${input.list.a}", None),
        ("${input.text.a.b}", None),
        ("${input.history[-1].content}", "last"),
        ("${input.history[].content}", ["first", "last"]),
        ("${input.prompts[${index}]}", "p1"),
        ("${input.prompts[ ${ index } ]}", "p1"),
        ("${input.prompts[${input.none | 0}]}", "p0"),
        ('${input["odd key"]}', "odd"),
        ("${input['odd key']}", "odd"),
        ("${input.with-hyphen}", "h"),
        ("${jobs.draft.output.generated}", "d"),
        ("${response[].choices[0].delta.content}", "tok"),
        ("${response[].choices[0].finish_reason}", None),
        # As text
        ("<${input.null}><${input.true}><${input.float}><${input.zero}>", "<><true><1.5><0>"),
        ("${input.tree}!", '{"a": [1]}!'),
        # Defaults
        ("${input.none | else}", "else"),
        ("${input.null|else}", "else"),
        ("${input.empty | else}", ""),
        ("${input.zero | 5}", 0),
        ("${input.no | true}", False),
        ("${input.none | 0.7}", 0.7),
        ("${input.none | true}", True),
        ("${input.none | null}", None),
        ("${input.none | []}", []),
        ('${input.none | {"a": {"b": 1}}}', {"a": {"b": 1}}),
        ('${input.none | "0.7"}', "0.7"),
        ("${input.none | 'a | b'}", "a | b"),
        ("${input.none | two words }", "two words"),
        ("${input.none | http://x/}", "http://x/"),
        ('${input.none | "say \\"hi\\" \\\\"}', 'say "hi" \\'),
        ("${input.none | it's}", "it's"),
        ('${input.none | "Write about: ${input.text}"}', "Write about: hello"),
        ("${input.none | ${input.text}}", "hello"),
        ("${input.none | ${input.also_none | deep}}", "deep"),
        ("${input.none | ${input.list}}", [1, "two", None, {"a": "b"}]),
        ("${input.none | Nan}", "Nan"),
        ("${input.none | NaN}", "NaN"),
        ("${input.none |}", ""),
        ("${input.none | {not json} }", "{not json}"),
        ('${input.none | {"a": "}"}}', {"a": "}"}),
        ("${input.none | a ${input.none | '}'} b}", "a } b"),
        ("${input.none | \\${x}}", "${x}"),
        ("${input.none | 5 apples}", "5 apples"),
        ('${input.none | "a" or "b"}', '"a" or "b"'),
        ('${input.none | "x ${input.none | "y"} z"}', "x y z"),
        ("${input.none | 'x ${input.none | 'y'}'}", "x y"),
        ('${input.none | "x ${input.none | \\"y\\"} z"}', "x y z"),
        ('${input.none | ["${input.text}", {"a": "<${input.zero}>"}, 1]}', ["hello", {"a": "<0>"}, 1]),
        ('${input.none | {"a": "${input.none | []}", "b": "\\\\${x}"}}', {"a": [], "b": "${x}"}),
        ('${input.none | "\\${x} ${input.none | "y"} \\\\\\\\${input.text}"}', "${x} y \\hello"),
        ("${input.none | 1e999}", "1e999"),
        # Casts
        ("${input.number as number}", 0.5),
        ("${input.none as number | 0.7}", 0.7),
        ("${input.none as integer | 12345678901234567890}", 12345678901234567890),
        ('${input.none as integer | "12345678901234567890"}', 12345678901234567890),
        ("${input.none as integer | 1024}", 1024),
        ("${input.none as text | 1024}", "1024"),
        ("${input.none as number}", None),
        ("${input.zero as boolean}", False),
        ("${input.tree as text}", '{"a": [1]}'),
        ("${output as stream/text}", None),
        # Descriptions
        ("${input.text @(what to say (loudly))}", "hello"),
        ("${input.none as number | 3 @(how many)}", 3),
        # Escapes
        ("\\${input.text}", "${input.text}"),
        ("$ {x} $${input.text} $", "$ {x} $hello $"),
        ("\\\\${input.text}", "\\hello"),
        ("\\\\\\${input.text}", "\\${input.text}"),
        ("C:\\dir\\file $5 \\n", "C:\\dir\\file $5 \\n"),
        ("${input.braces}", "${input.text}"),
        ("<${input.braces}>", "<${input.text}>"),
    ],
)
def test_a_template_and_its_value(text: str, value: Any) -> None:
    found = render(parse(text), SCOPE)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("value", "to", "cast_value"),
    [
        (5, "number", 5),
        ("1024", "number", 1024),
        (" 7 ", "number", 7),
        ("1e3", "number", 1000.0),
        (1.0, "number", 1.0),
        ("5", "integer", 5),
        (5.0, "integer", 5),
        ("yes", "boolean", True),
        ("OFF", "boolean", False),
        (1, "boolean", True),
        ('{"a": 1}', "json", {"a": 1}),
        ([1], "json", [1]),
        ("[1]", "list", [1]),
        ({"a": 1}, "object", {"a": 1}),
        (1.5, "string", "1.5"),
        (True, "text", "true"),
        ("x", "image", "x"),
    ],
)
def test_a_cast(value: Any, to: str, cast_value: Any) -> None:
    found = render(parse(f"${{input.x as {to}}}"), {"input": {"x": value}})
    assert found == cast_value
    assert type(found) is type(cast_value)


@pytest.mark.parametrize(
    ("value", "to", "message"),
    [
        ("abc", "number", "'input.x' must be a number, not 'abc'"),
        (True, "number", "'input.x' must be a number, not 'true'"),
        ("nan", "number", "'input.x' must be a number, not 'nan'"),
        ([1], "number", "'input.x' must be a number, not '[1]'"),
        ("1.5", "integer", "'input.x' must be an integer, not '1.5'"),
        ("maybe", "boolean", "'input.x' must be a boolean, not 'maybe'"),
        ("{", "json", "'input.x' must be a json, not '{'"),
        ("{}", "list", "'input.x' must be a list, not '{}'"),
        (5, "object", "'input.x' must be an object, not '5'"),
        ("y" * 90, "number", f"'input.x' must be a number, not '{'y' * 77}...'"),
    ],
)
def test_a_value_that_cannot_be_cast_is_an_error_that_names_it(value: Any, to: str, message: str) -> None:
    with pytest.raises(CastError) as caught:
        render(parse(f"${{input.x as {to}}}"), {"input": {"x": value}})
    assert caught.value.message == message
    assert caught.value.param == "input.x"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${", "expected a name such as input, jobs or env\n    ${\n      ^"),
        ("a ${input.x", "this reference has no closing '}'\n    a ${input.x\n      ^"),
        ("${input.x | a", "this reference has no closing '}'\n    ${input.x | a\n    ^"),
        ("${input.}", "expected a name after '.'\n    ${input.}\n            ^"),
        ("${input.x as}", "expected a type: " + ", ".join(TYPES) + "\n    ${input.x as}\n                ^"),
        ("${input[x]}", "expected a number, a quoted key, a reference or ']'\n    ${input[x]}\n            ^"),
        ("${input[0}", "expected ']'\n    ${input[0}\n             ^"),
        ("${input['x}", "this quote is never closed\n    ${input['x}\n            ^"),
        ("${input.x y}", "expected '}'\n    ${input.x y}\n              ^"),
        (
            "${a|" * 33 + "}" * 33,
            "references are nested more than 32 deep\n    " + "${a|" * 33 + "}" * 33 + "\n    " + " " * 128 + "^",
        ),
        ("one\ntwo ${5}\nthree", "expected a name such as input, jobs or env\n    two ${5}\n          ^"),
        ("${input.x @(y}", "this description has no closing ')'\n    ${input.x @(y}\n                ^"),
    ],
)
def test_a_mistake_is_shown_with_a_caret(text: str, message: str) -> None:
    with pytest.raises(ReferenceSyntaxError) as caught:
        parse(text)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("text", "cast"),
    [
        ("${output as text;sse-text}", Cast("stream/text")),
        ("${output as json;sse-json}", Cast("stream/json")),
        ("${output as text;sse-json}", Cast("stream/json")),
        ("${output as stream/text}", Cast("stream/text")),
        ("${output as image;png}", Cast("image", "png")),
    ],
)
def test_spellings_of_streams(text: str, cast: Cast) -> None:
    (reference,) = parse(text).parts
    assert isinstance(reference, Reference)
    assert reference.cast == cast


def test_references_inside_indexes_and_defaults_are_found() -> None:
    template = parse("${input.a[${index}] | ${jobs.b.output | ${input.c}}} ${output}")
    assert [reference.root for reference in template.references()] == ["input", "index", "jobs", "input", "output"]


@pytest.mark.parametrize("around", ['"%s"', "'%s'", "%s", '"%s" and more', '"<%s>"'])
def test_defaults_within_defaults_are_read_but_once_each(around: str) -> None:
    text = "x"
    for _ in range(DEEPEST):
        text = "${input.none | " + around % text + "}"
    assert "x" in str(render(parse(text), {}))


# Anything -------------------------------------------------------------------------------------------------------------

NAMES = st.from_regex(r"[^\W\d][\w-]{0,5}", fullmatch=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
)
LITERALS = st.text(max_size=12)


def references(templates: st.SearchStrategy[Template]) -> st.SearchStrategy[Reference]:
    steps = st.lists(
        st.one_of(NAMES, st.text(max_size=5), st.integers(-99, 99), st.just(Each()), st.builds(Reference, NAMES)),
        max_size=4,
    )
    casts = st.builds(Cast, st.sampled_from(TYPES), st.none() | st.from_regex(r"[a-z]{1,5}", fullmatch=True))
    with_references = templates.filter(lambda template: any(template.references()))
    defaults = (
        st.builds(Default, literal=JSON.filter(lambda value: not isinstance(value, str)))
        | st.builds(Default, literal=st.lists(JSON | with_references, max_size=3))
        | st.builds(Default, template=templates)
    )
    descriptions = st.text(st.characters(exclude_characters="()"), max_size=9)
    return st.builds(
        Reference, NAMES, steps.map(tuple), st.none() | casts, st.none() | defaults, st.none() | descriptions
    )


def templates_of(inner: st.SearchStrategy[Template]) -> st.SearchStrategy[Template]:
    return st.lists(LITERALS | references(inner), max_size=4).map(joined)


def joined(parts: list[str | Reference]) -> Template:
    """Pieces of text that stand side by side are one piece."""
    whole: list[str | Reference] = []
    for part in parts:
        if isinstance(part, str) and whole and isinstance(whole[-1], str):
            whole[-1] += part
        elif part != "":
            whole.append(part)
    return Template(tuple(whole))


TEMPLATES = st.recursive(st.just(Template(())), templates_of, max_leaves=6)
SCOPES = st.dictionaries(NAMES | st.sampled_from(["input", "jobs", "output"]), JSON, max_size=4)


@given(TEMPLATES)
@settings(max_examples=100)
def test_what_is_printed_is_parsed_to_the_same(template: Template) -> None:
    assert parse(str(template)) == template


@given(st.text("${}[]|.\\\"'@() \nainput0-;/" + "as number", max_size=40))
@settings(max_examples=200)
def test_any_text_is_a_template_or_a_mistake_with_a_place(text: str) -> None:
    template = parsed(text)
    if isinstance(template, ReferenceSyntaxError):
        assert 0 <= template.at <= len(text)
        assert template.message.endswith("^")
    else:
        assert parse(str(template)) == template


def parsed(text: str) -> Template | ReferenceSyntaxError:
    try:
        return parse(text)
    except ReferenceSyntaxError as error:
        return error


@given(TEMPLATES, SCOPES)
@settings(max_examples=100)
def test_rendering_raises_nothing_but_its_own_errors(template: Template, scope: dict[str, Any]) -> None:
    try:
        value = render(template, scope)
    except CastError:
        return
    as_text(value)


@given(st.lists(st.tuples(LITERALS, JSON), max_size=4), LITERALS)
def test_text_around_references_is_kept_and_values_are_not_rendered_again(
    pieces: list[tuple[str, Any]], end: str
) -> None:
    parts = [part for number, (text, _) in enumerate(pieces) for part in (text, Reference("input", (f"v{number}",)))]
    scope = {"input": {f"v{number}": value for number, (_, value) in enumerate(pieces)}}
    template = parse(str(joined([*parts, end, "."])))
    assert render(template, scope) == "".join(text + as_text(value) for text, value in pieces) + end + "."


@pytest.mark.parametrize("text", ["${input.x as text}", "${input.x as number}", "<${input.x}>"])
def test_a_value_too_deep_to_be_written_is_an_error_of_ours(text: str) -> None:
    value: Any = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(CastError, match=r"nested too deeply|must be a number"):
        render(parse(text), {"input": {"x": value}})


@given(JSON)
def test_a_whole_reference_keeps_its_value(value: Any) -> None:
    assert render(parse("${input.x}"), {"input": {"x": value}}) is value


@given(JSON)
def test_a_value_written_as_text_is_text_or_json(value: Any) -> None:
    text = as_text(value)
    assert text == ("" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


@given(st.one_of(JSON, st.text("0123456789.eE+- ", max_size=12)), st.sampled_from(TYPES))
@settings(max_examples=100)
def test_a_cast_gives_its_type_or_an_error(value: Any, to: str) -> None:
    kinds: dict[str, tuple[type, ...]] = {
        **dict.fromkeys(("text", "string"), (str,)),
        "number": (int, float),
        "integer": (int,),
        "boolean": (bool,),
        "list": (list,),
        "object": (dict,),
    }
    try:
        found = render(parse(f"${{input.x as {to}}}"), {"input": {"x": value}})
    except CastError:
        return
    assert found is None if value is None else isinstance(found, kinds.get(to, (object,)))
