"""The Web UI of a server that has everything to show, and what somebody does there."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import yaml
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import BrowserContext, ConsoleMessage, Locator, Page, Request, expect
from seeds_documents import EXAMPLES
from served import Served

KEY = "a-key-of-the-tests"
SECONDS_TO_START = 60
DESK, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 780}

CHAT, TEXT, STREAM = "Generate Chat Messages", "Generate Text from Prompt", "Chat with vLLM server"
"""The titles of the workflows of the documents this program grew from."""

MORE = """
components:
  - {id: talker, type: model, task: chat-completion, model: bundled}
  - id: endless
    type: model
    task: chat-completion
    model: bundled
    params: {min_output_length: 3700, max_output_length: 3800}
  - {id: broken, type: http-client, base_url: "http://127.0.0.1:9", method: GET, path: /nothing}
  - {id: missing, type: model, task: chat-completion, model: ./no-model}
  - {id: echo, type: shell, command: [printf, "%s", "${input.text}"], output: "${result.stdout}"}
  - {id: counter, type: shell, command: "printf %s ${input.text} | wc -w", output: "${result.stdout as integer}"}
workflows:
  - {id: endless, component: endless}
  - id: broken
    title: Bound to fail
    jobs:
      - {id: first, component: counter, input: {text: a}}
      - {id: second, component: broken, depends_on: [first]}
  - {id: missing, component: missing}
  - {id: echo, component: echo}
  - id: kinds
    title: All kinds of fields
    component: echo
    input:
      text: >-
        ${input.count as integer} ${input.share as number | 0.5} ${input.is_short as boolean | true}
        ${input.is_open as boolean} ${input.data as json | {}}
  - id: explain
    title: Two explanations
    openai: {show_jobs: true}
    description: Explains two things in simple terms, both at the same time, and counts the words.
    jobs:
      - id: one
        component: talker
        input: {user_prompt: "Explain ${input.one @(What is to be explained)} in simple terms."}
      - id: other
        component: talker
        input: {user_prompt: "Explain ${input.other | machine learning @(What else)} in simple terms."}
      - {id: words, component: counter, input: {text: "${jobs.one.output} ${jobs.other.output}"}}
    output:
      one: ${jobs.one.output}
      other: ${jobs.other.output}
      words: ${output as text}
"""


class Site(NamedTuple):
    """A server, its folder, and where its Web UI is."""

    server: Served
    folder: Path
    url: str


CUT = re.compile("console: (AbortError: signal is aborted|.*Connection errored out)")
"""What Gradio says of its own connection when the page is loaded again, because the browser ends it."""


class Trouble:
    """What must not happen in a page: a request to elsewhere, and an error in the console."""

    def __init__(self) -> None:
        self._found: list[str] = []
        self._loads = 0

    @property
    def found(self) -> list[str]:
        is_loaded_again = self._loads > 1
        return [each for each in self._found if not (is_loaded_again and CUT.match(each))]

    def watch(self, context: BrowserContext) -> None:
        context.on("page", lambda page: page.on("load", self._load))
        context.on("request", self._request)
        context.on("console", self._console)
        context.on("weberror", lambda error: self._found.append(f"error in the page: {error.error}"))

    def _load(self, _page: Page) -> None:
        self._loads += 1

    def _request(self, request: Request) -> None:
        url = urlsplit(request.url)
        if url.scheme not in {"blob", "data"} and url.hostname != "127.0.0.1":
            self._found.append(f"request to {request.url}")

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self._found.append(f"console: {message.text}")


def compose_file(port: int) -> str:
    """The three examples as one file: the bundled model for theirs, and this server for vLLM's."""
    whole: dict[str, Any] = yaml.safe_load(MORE)
    for file in sorted(EXAMPLES.rglob("model-compose.yml")):
        form = yaml.safe_load(file.read_text(encoding="utf-8"))
        component, workflow = form["component"], form["workflow"]
        component["id"] = workflow["component"] = workflow["id"] = file.parent.name
        if component["type"] == "model":
            component["model"] = "bundled"
        else:
            for key in ("install", "start", "port"):
                del component[key]
            component |= {"type": "http-client", "base_url": f"http://127.0.0.1:{port}"}
            component["headers"]["Authorization"] = f"Bearer {KEY}"
            component["body"]["model"] = "bundled"
        whole["components"].append(component)
        whole["workflows"].insert(0, workflow)
    (chat,) = [each for each in whole["workflows"] if each.get("title") == CHAT]
    chat["default"] = True
    return str(yaml.safe_dump(whole, sort_keys=False))


def wait_until(server: Served, said: str) -> None:
    """Wait until the server has said something."""
    deadline = time.monotonic() + SECONDS_TO_START
    while said not in server.output:
        assert time.monotonic() < deadline, server.output
        time.sleep(0.1)


def counters(site: Site) -> tuple[int, int]:
    """How many requests the engine answers now, and how many were cancelled."""
    return site.server.count("running"), site.server.count("cancelled")


def wait_until_idle(site: Site) -> tuple[int, int]:
    """The counters when no request is answered any more."""
    deadline = time.monotonic() + 10
    while counters(site)[0] and time.monotonic() < deadline:
        time.sleep(0.1)
    return counters(site)


def ask(page: Page, text: str) -> Locator:
    """Send a message; its answer when it is whole."""
    count = page.locator("article.answer").count()
    send(page, text)
    answer = page.locator("article.answer").nth(count)
    expect(answer.locator(".foot")).to_be_visible()
    return answer


def send(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")


def choose(page: Page, label: str, value: str) -> None:
    """Choose from a list."""
    field = page.get_by_label(label, exact=True)
    field.click()
    page.get_by_role("option", name=value, exact=True).click()
    expect(field).to_have_value(value)


def open_tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def open_workflow(page: Page, title: str) -> None:
    """Choose a workflow, and wait for its form."""
    open_tab(page, "Workflows")
    choose(page, "Workflow", title)
    expect(page.locator(".about h2")).to_have_text(title)
    name = page.locator(".as-model code").inner_text()
    page.locator(f"#form-{name}").wait_for(state="attached")


def field(page: Page, label: str) -> Locator:
    """A field of the form."""
    return page.locator("#workflows").get_by_label(label)


def run(page: Page) -> Locator:
    """Run the workflow; what has come of it when it is over."""
    page.get_by_role("button", name="Run Workflow").click()
    expect(page.locator(".run-state.completed, .run-state.failed, .run-state.cancelled")).to_be_visible()
    return page.locator("#result")


def watch_length(page: Page, selector: str) -> None:
    """Note how long the text of an element is, whenever something changes."""
    page.evaluate(
        """selector => {
            window.lengths = [];
            const note = () => window.lengths.push(document.querySelector(selector)?.textContent.length ?? 0);
            new MutationObserver(note).observe(document.body, {subtree: true, childList: true, characterData: true});
        }""",
        selector,
    )


def assert_grew(page: Page) -> None:
    """The text that is watched came piece by piece."""
    lengths: list[int] = page.evaluate("window.lengths")
    assert any(0 < length < lengths[-1] for length in lengths), lengths


def violations(page: Page) -> list[str]:
    """What axe-core finds wrong for people who use a keyboard or a screen reader."""
    found = Axe().run(page).response["violations"]
    return [f"{each['id']}: {node['html'][:150]}" for each in found for node in each["nodes"]]
