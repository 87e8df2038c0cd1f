"""The page for conversations."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import httpx2
import pytest
from browsing import KEY, Site, ask, assert_grew, choose, counters, send, violations, wait_until_idle, watch_length
from playwright.sync_api import Page, expect


def test_the_second_turn_depends_on_the_first(page: Page) -> None:
    choose(page, "Model or workflow", "bundled")
    send(page, "My name is Anna.")
    expect(page.locator("article.answer.grows, article.answer .foot").first).to_be_visible()
    expect(page.locator(".foot")).to_have_count(1)
    answer = ask(page, "What is my name?")
    expect(answer.locator(".md")).to_contain_text("Anna")
    expect(answer.locator(".figures")).to_have_text(
        re.compile(r"^\d+ tokens · [\d.]+ tokens/s · first after [\d.]+ s$")
    )


def test_an_answer_comes_piece_by_piece(page: Page) -> None:
    choose(page, "Model or workflow", "bundled")
    watch_length(page, "article.answer .md")
    ask(page, "Explain quantum computing in simple terms.")
    assert_grew(page)


def test_stop_in_mid_stream_stops_the_engine(page: Page, site: Site) -> None:
    _, before = counters(site)
    choose(page, "Model or workflow", "endless")
    send(page, "Write a story.")
    expect(page.locator("article.answer .md:visible").first).to_be_visible()
    assert counters(site)[0] == 1
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".figures")).to_contain_text("stopped")
    assert wait_until_idle(site) == (0, before + 1)
    length = len(page.locator("article.answer").inner_text())
    assert length > 20
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    ask_again = page.get_by_role("button", name="Regenerate")
    expect(ask_again).to_be_visible()


def test_a_message_waits_while_an_answer_grows(page: Page) -> None:
    choose(page, "Model or workflow", "endless")
    send(page, "Write a story.")
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Regenerate").click()
    expect(page.locator("article.grows .md")).to_be_visible()
    expect(page.get_by_role("button", name="Edit message 1")).to_be_hidden()
    send(page, "Another one.")
    page.wait_for_timeout(500)
    expect(page.locator(".bubble")).to_have_text("Write a story.")
    expect(page.get_by_label("Message", exact=True)).to_have_value("Another one.")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".figures")).to_contain_text("stopped")


def test_a_closed_page_stops_the_engine(page: Page, site: Site) -> None:
    _, before = counters(site)
    choose(page, "Model or workflow", "endless")
    send(page, "Write a story.")
    expect(page.locator("article.answer .md:visible").first).to_be_visible()
    page.close()
    assert wait_until_idle(site) == (0, before + 1)


def test_a_new_chat_ends_the_answer_that_grows(page: Page, site: Site) -> None:
    choose(page, "Model or workflow", "endless")
    send(page, "Write a story.")
    expect(page.locator("article.answer .md:visible").first).to_be_visible()
    page.get_by_role("button", name="New chat").click()
    expect(page.locator("#thread .nothing")).to_be_visible()
    assert wait_until_idle(site)[0] == 0
    expect(page.locator("article")).to_have_count(0)
    expect(page.get_by_role("button", name="Send")).to_be_visible()


def test_the_conversation_survives_a_reload(page: Page) -> None:
    choose(page, "Model or workflow", "bundled")
    page.get_by_label("System prompt").fill("You are a helpful assistant.")
    page.get_by_label("Seed").fill("3")
    ask(page, "My name is Anna.")
    page.reload()
    expect(page.locator(".bubble")).to_have_text("My name is Anna.")
    expect(page.locator("article.answer .figures")).to_contain_text("tokens")
    expect(page.get_by_label("System prompt")).to_have_value("You are a helpful assistant.")
    expect(page.get_by_label("Seed")).to_have_value("3")
    expect(page.get_by_label("Model or workflow")).to_have_value("bundled")
    expect(ask(page, "What is my name?").locator(".md")).to_contain_text("Anna")
    page.get_by_role("button", name="New chat").click()
    expect(page.locator(".nothing").first).to_contain_text("Ask something")


def test_an_answer_that_is_cut_by_a_reload_can_be_made_again(page: Page, site: Site) -> None:
    choose(page, "Model or workflow", "endless")
    send(page, "Write a story.")
    expect(page.locator("article.answer .md:visible").first).to_be_visible()
    kept = "localStorage.getItem('model-compose-chat').length"
    length = page.evaluate(kept)
    page.wait_for_function(f"{kept} > {length + 50}")
    page.reload()
    expect(page.locator(".figures")).to_contain_text("stopped")
    assert len(page.locator("article.answer .md").inner_text()) > 20
    assert wait_until_idle(site)[0] == 0
    page.get_by_role("button", name="Regenerate answer 1").click()
    expect(page.locator("article.grows .md")).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".figures")).to_contain_text("stopped")


def test_an_empty_message_changes_nothing(page: Page) -> None:
    choose(page, "Model or workflow", "echo")
    ask(page, "hello")
    send(page, " ")
    page.wait_for_timeout(500)
    expect(page.locator("article.answer .md")).to_have_text("hello")
    page.reload()
    expect(page.locator("article.answer .md")).to_have_text("hello")


def test_edit_regenerate_and_copy(page: Page) -> None:
    choose(page, "Model or workflow", "bundled")
    page.get_by_label("Temperature").fill("0")
    ask(page, "What is the capital of Spain?")
    ask(page, "Thank you.")
    page.get_by_role("button", name="Edit message 1").click()
    page.keyboard.press("Control+A")
    page.keyboard.type("What is the capital of France?")
    page.keyboard.press("Enter")
    expect(page.locator(".bubble")).to_have_text(["What is the capital of France?"])
    expect(page.locator("article.answer .foot")).to_be_visible()
    expect(page.locator("article.answer .md")).to_contain_text("Paris")
    page.get_by_role("button", name="Regenerate answer 1").click()
    expect(page.locator("article.answer .foot")).to_be_visible()
    expect(page.locator("article.answer .md")).to_contain_text("Paris")
    page.get_by_role("button", name="Copy answer 1").click()
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("article.answer .md").inner_text()


def test_what_is_taken_along_repeats_the_request(page: Page) -> None:
    choose(page, "Model or workflow", "bundled")
    page.get_by_label("Temperature").fill("0")
    said = ask(page, "What is the capital of France? Don't 'explain'.").locator(".md").inner_text()
    page.get_by_role("button", name="Take along").click()
    page.get_by_role("button", name="Copy sh").click()
    assert page.evaluate("(panel => panel.scrollWidth - panel.clientWidth)(document.querySelector('#settings'))") == 0
    command = page.evaluate("navigator.clipboard.readText()")
    environment = {"MODEL_COMPOSE_API_KEY": KEY, "PATH": "/usr/bin:/bin"}
    ended = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, check=False)
    chunks = [json.loads(line[6:]) for line in ended.stdout.splitlines() if line.startswith("data: {")]
    assert "".join(choice["delta"].get("content") or "" for each in chunks for choice in each["choices"]) == said
    page.get_by_role("button", name="Copy python").click()
    program = [sys.executable, "-c", page.evaluate("navigator.clipboard.readText()")]
    ended = subprocess.run(program, env=environment, capture_output=True, text=True, check=True)
    assert ended.stdout == said
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as JSON").click()
    found = json.loads(download.value.path().read_text(encoding="utf-8"))
    assert found["messages"][-1] == {"role": "assistant", "content": said}
    assert found["turns"][0]["answer"]["completion_tokens"] > 3


def test_an_error_is_told_in_words(page: Page) -> None:
    choose(page, "Model or workflow", "bundled")
    page.get_by_label("Most tokens").fill("100000")
    send(page, "Hello!")
    expect(page.get_by_role("alert")).to_contain_text("context length")
    page.get_by_label("Most tokens").fill("2.5")
    send(page, "Hello!")
    expect(page.get_by_role("alert").last).to_contain_text("max_tokens")
    page.get_by_label("Most tokens").fill("")
    choose(page, "Model or workflow", "no-model")
    send(page, "Hello!")
    expect(page.get_by_role("alert").last).to_contain_text("it has no config.json")
    page.get_by_label("Tools").fill("{")
    send(page, "Hello!")
    expect(page.get_by_role("alert").last).to_contain_text("the tools are no JSON")


EVIL = """<script>window.ran = 1</script><img src=x onerror="window.ran = 1"> ${window.ran = 1} {{value}}

| <svg onload="window.ran = 1"> | ![x](https://elsewhere.example/x.png) |
|---|---|
| [link](javascript:window.ran=1) | </div></article> |

```"><script>window.ran=1</script>
</code></pre><script>window.ran = 1</script>
```

"""
EVIL += "long" * 300


@pytest.mark.parametrize("asked", [EVIL, "``` \ncode\n```"], ids=["HTML", "a fence and a space"])
def test_what_a_model_writes_is_shown_and_not_run(page: Page, asked: str) -> None:
    choose(page, "Model or workflow", "echo")
    answer = ask(page, asked)
    expect(answer.get_by_role("alert")).to_have_count(0)
    expect(answer.locator("pre")).to_contain_text("code")
    assert answer.locator("script, img, .md svg:not(.small svg), a[href^=javascript]").count() == 0
    if asked == EVIL:
        expect(answer.locator(".md")).to_contain_text(
            '<img src=x onerror="window.ran = 1"> ${window.ran = 1} {{value}}'
        )
    assert page.evaluate("window.ran") is None
    assert page.evaluate("(shown => shown.scrollWidth - shown.clientWidth)(document.querySelector('#thread'))") == 0


def test_what_a_model_thinks_is_folded_away(page: Page) -> None:
    choose(page, "Model or workflow", "explain")
    send(page, "gravity")
    thinking = page.locator("details.thinking")
    expect(thinking.locator("summary")).to_be_visible()
    expect(thinking.locator(".md")).to_be_hidden()
    thinking.locator("summary").click()
    expect(page.locator(".foot")).to_be_visible()
    expect(thinking.locator(".md")).to_be_visible()
    expect(thinking.locator("summary")).to_have_text(re.compile("^Thought"))


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather of a city",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]


def test_tool_calls_are_shown_and_answered(page: Page) -> None:
    choose(page, "Model or workflow", "bundled")
    page.get_by_label("Temperature").fill("0")
    page.get_by_label("Tools").fill(json.dumps(TOOLS))
    answer = ask(page, "What is the weather in Paris?")
    expect(answer.locator(".call-name")).to_have_text("Calls get_weather")
    expect(answer.locator(".call code")).to_contain_text("Paris")
    ask(page, '{"temperature": 21}')
    expect(page.locator("article.said").last).to_have_attribute("aria-label", re.compile("^Result of the tool"))
    assert violations(page) == []


def test_a_workflow_answers_too(page: Page) -> None:
    choose(page, "Model or workflow", "chat-completion")
    expect(ask(page, "What is the capital of France?").locator(".md")).to_contain_text("Paris")


def test_a_conversation_by_keyboard_alone(page: Page) -> None:
    choose(page, "Model or workflow", "bundled")
    page.get_by_label("Message", exact=True).focus()
    page.keyboard.type("Hello!")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("How are you?")
    page.keyboard.press("Enter")
    expect(page.locator(".bubble")).to_have_text("Hello!\nHow are you?")
    expect(page.locator(".foot")).to_be_visible()
    for _ in range(12):
        page.keyboard.press("Shift+Tab")
        if page.evaluate("document.activeElement.getAttribute('aria-label')") == "Edit message 1":
            break
    page.keyboard.press("Enter")
    expect(page.locator(".edit-area")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator(".edit-area")).to_have_count(0)
    expect(page.get_by_role("button", name="Edit message 1")).to_be_focused()


@pytest.mark.window(is_stranger=True)
def test_a_wrong_key_is_asked_for_again(page: Page, site: Site) -> None:
    expect(page.get_by_text("This server wants a key")).to_be_visible()
    expect(page.locator("#thread")).to_be_hidden()
    page.get_by_label("API key").fill("wröng ключ")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("That is not its key.")
    page.get_by_label("API key").fill(KEY)
    page.keyboard.press("Enter")
    expect(page.locator("#thread")).to_be_visible()
    assert httpx2.get(f"{site.server.url}/v1/models").status_code == 401
