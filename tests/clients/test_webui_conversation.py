"""A conversation of the Web UI, how it is shown, and what it is taken along as."""

from __future__ import annotations

import ast
import json
import shlex
from typing import Any

import pytest

from modelcompose.clients.webui import snippets
from modelcompose.clients.webui.conversation import Answer, Call, Choices, Conversation, Growing, Turn
from modelcompose.clients.webui.kept import Kept, dump, load
from modelcompose.clients.webui.markup import markdown
from modelcompose.clients.webui.thread import figures, thread


def delta(finish: str | None = None, usage: int | None = None, **fields: Any) -> dict[str, Any]:
    chunk: dict[str, Any] = {"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}
    return chunk if usage is None else {**chunk, "usage": {"prompt_tokens": 7, "completion_tokens": usage}}


def grown(*chunks: dict[str, Any], seconds: float = 1.0) -> Answer:
    """An answer of these chunks, one each second."""
    growing = Growing("m", 0.0)
    for number, chunk in enumerate(chunks, 1):
        growing.feed(chunk, number * seconds)
    growing.end((len(chunks) + 1) * seconds)
    return growing.answer


def test_figures_count_from_the_first_token() -> None:
    answer = grown(delta(role="assistant"), delta(content="a", usage=1), delta(content="b", usage=2), delta("stop", 3))
    assert (answer.text, answer.tokens, answer.first, answer.took) == ("ab", 3, 2.0, 3.0)
    assert answer.speed == 2.0
    assert figures(answer) == "3 tokens · 2.0 tokens/s · first after 2.00 s"


def test_reasoning_is_kept_apart_and_timed() -> None:
    answer = grown(delta(reasoning_content="so"), delta(reasoning_content=" ..."), delta(content="yes"))
    assert (answer.reasoning, answer.text, answer.thought) == ("so ...", "yes", 2.0)
    assert "Thought for 2.0 s" in thread(Conversation((Turn("q", answer),)))


def test_pieces_of_tool_calls_are_joined_by_their_index() -> None:
    def call(index: int, arguments: str, **more: str) -> dict[str, Any]:
        return {"index": index, **more, "function": {"arguments": arguments, **more}}

    answer = grown(
        delta(tool_calls=[call(0, "", id="a", name="f")]),
        delta(tool_calls=[call(0, '{"x"')]),
        delta(tool_calls=[call(0, ": 1}"), call(1, "{}", id="b", name="g")]),
    )
    assert answer.calls == (Call("a", "f", '{"x": 1}'), Call("b", "g", "{}"))
    messages = Conversation((Turn("q", answer),)).say("21").messages
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "tool"]
    assert [message.get("tool_call_id") for message in messages[2:]] == ["a", "b"]


def test_an_error_in_the_stream_is_the_end() -> None:
    answer = grown(delta(content="a"), {"error": {"message": "the engine died"}})
    assert (answer.text, answer.error, answer.is_whole) == ("a", "the engine died", True)


def test_an_error_says_whether_an_answer_had_begun() -> None:
    for answer, title in ((Answer(model="m", text="a", error="e"), "broke off"), (Answer(model="m", error="e"), "No")):
        assert title in thread(Conversation((Turn("q", answer),)))


def test_an_answer_that_never_came_is_an_error() -> None:
    assert "closed the connection" in grown().error


def test_an_answer_that_was_left_is_stopped_and_can_be_made_again() -> None:
    growing = Growing("m", 0.0)
    assert "Regenerate answer 1" not in thread(Conversation((Turn("q", growing.answer),)))
    for fed in (False, True):
        if fed:
            growing.feed(delta(content="so far", usage=2), 1.0)
        shown = thread(Conversation((Turn("q", growing.answer.cut),)))
        assert "stopped" in shown
        assert "Regenerate answer 1" in shown
        assert ("so far" in shown) is fed


def test_what_is_edited_goes_on_from_there() -> None:
    conversation = Conversation((Turn("a", Answer(model="m", text="1")), Turn("b", Answer(model="m", text="2"))))
    assert conversation.edit(1, "c").turns == (conversation.turns[0], Turn("c"))
    assert conversation.again(0).messages == [{"role": "user", "content": "a"}]


def test_what_was_not_answered_is_not_asked_again() -> None:
    conversation = Conversation((Turn("a", Answer(model="m", error="no")), Turn("b", Answer(model="m", text="2"))))
    assert [message["content"] for message in conversation.say("c").messages] == ["b", "2", "c"]
    assert [message["content"] for message in conversation.edit(0, "d").messages] == ["d"]


def test_what_models_and_people_say_is_not_html() -> None:
    evil = "<script>alert(1)</script> <img src=x onerror=y> ![](https://elsewhere.example/x.png) [x](javascript:y)"
    answer = Answer(model="<m>", text=evil, reasoning=evil, calls=(Call("1", "<b>", evil),), error=evil)
    shown = thread(Conversation((Turn(evil, answer),)))
    for forbidden in ("<script", "<img", "<m>", "<b><", 'href="javascript'):
        assert forbidden not in shown


def test_markdown_has_code_in_colours_and_tables() -> None:
    shown = markdown("| a |\n|---|\n| 1 |\n\n```python\ndef f(): pass\n```")
    assert "<table>" in shown
    assert '<span class="k">def</span>' in shown
    assert 'data-copy="def f(): pass\n"' in shown


@pytest.mark.parametrize(
    ("info", "language"),
    [("", "code"), (" ", "code"), ("\t", "code"), ("python title=x", "python"), ('a"b', "a&quot;b")],
)
def test_whatever_stands_behind_a_fence_is_no_trouble(info: str, language: str) -> None:
    assert f'aria-label="Copy {language}"' in markdown(f"```{info}\ncode\n```")


CHOICES = Choices(
    model="m", system="Be brief.", temperature=0.0, max_tokens=20, stop="a\nb", tools='[{"type": "function"}]'
)
BODY = CHOICES.body(Conversation().say('It\'s "this"\nand $that'))


def test_only_what_was_chosen_is_asked_for() -> None:
    assert Choices(model="m").body(Conversation().say("q")).keys() == {"model", "messages"}
    assert BODY["stop"] == ["a", "b"]
    assert BODY["messages"][0] == {"role": "system", "content": "Be brief."}
    with pytest.raises(ValueError, match="JSON list"):
        Choices(tools="{}").body(Conversation())


@pytest.mark.parametrize("has_key", [True, False])
def test_the_curl_line_is_the_request(has_key: bool) -> None:
    words = shlex.split(snippets.curl("http://h:1", BODY, has_key=has_key))
    assert words[:3] == ["curl", "-N", "http://h:1/v1/chat/completions"]
    assert json.loads(words[-1]) == {**BODY, "stream": True}
    assert ("Authorization: Bearer $MODEL_COMPOSE_API_KEY" in words) is has_key


@pytest.mark.parametrize("has_key", [True, False])
def test_the_python_program_is_the_request(has_key: bool) -> None:
    program = ast.parse(snippets.python("http://h:1", BODY, has_key=has_key))
    (call,) = [
        node for node in ast.walk(program) if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".create")
    ]
    given = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
    assert given == {**BODY, "stream": True}


@pytest.mark.parametrize(
    ("host", "url", "seen"),
    [
        ("localhost:8081", "http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("box.local:8081", "http://127.0.0.1:8080", "http://box.local:8080"),
        ("[fe80::1]:8081", "http://127.0.0.1:8080", "http://[fe80::1]:8080"),
        ("box.local:8081", "http://10.0.0.2:8080", "http://10.0.0.2:8080"),
        ("", "http://127.0.0.1:8080", "http://127.0.0.1:8080"),
    ],
)
def test_the_url_is_the_one_under_which_the_machine_is_reached(host: str, url: str, seen: str) -> None:
    assert snippets.seen_from(host, url) == seen


def test_the_conversation_is_taken_along_with_its_figures() -> None:
    answer = Answer(model="m", text="yes", tokens=3, first=1.0, took=2.0)
    whole = json.loads(snippets.as_json(CHOICES, Conversation((Turn("q", answer),))))
    assert whole["model"] == "m"
    assert [message["role"] for message in whole["messages"]] == ["system", "user", "assistant"]
    assert whole["turns"][0]["answer"]["tokens_per_second"] == 2.0


def test_what_the_browser_keeps_comes_back() -> None:
    kept = Kept(Conversation((Turn("q", Answer(model="m", calls=(Call("1", "f", "{}"),))),)), BODY)
    assert load(Kept, json.loads(json.dumps(dump(kept)))) == kept
    assert load(Choices, json.loads(json.dumps(dump(CHOICES)))) == CHOICES
    assert load(Kept, {"conversation": 3}) == load(Kept, None) == Kept()


def test_numbers_are_sent_as_they_were_typed() -> None:
    choices = load(Choices, {"max_tokens": 2.5, "seed": 3})
    body = choices.body(Conversation().say("q"))
    assert json.dumps([body["max_tokens"], body["seed"]]) == "[2.5, 3]"
