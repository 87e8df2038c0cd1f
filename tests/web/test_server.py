"""The page for the server, what all pages have in common, and the Web UI's process."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import served
from browsing import (
    PHONE,
    Site,
    Trouble,
    ask,
    choose,
    field,
    open_tab,
    open_workflow,
    run,
    send,
    violations,
    wait_until,
)
from playwright.sync_api import Browser, Page, expect
from served import Served, a_free_port, serving

EVERYTHING = ("Chat", "Workflows", "Server")


def test_a_model_is_unloaded_and_loaded(page: Page, site: Site) -> None:
    open_tab(page, "Server")
    card = page.locator(".card").filter(has_text="bundled")
    expect(card.locator(".pill")).to_have_text("Ready")
    expect(page.locator(".tile").filter(has_text="Memory")).to_contain_text(re.compile(r"[\d.]+ [MG]B of [\d.]+ GB"))
    card.get_by_role("button", name="Unload bundled").click()
    expect(card.locator(".pill")).to_have_text("Idle")
    assert site.server.state() == "unloaded"
    card.get_by_role("button", name="Load bundled").click()
    expect(card.locator(".pill")).to_have_text("Loading")
    expect(card.locator(".pill")).to_have_text("Ready")


def test_a_model_that_cannot_be_loaded_says_why_each_time_it_is_tried(page: Page, site: Site) -> None:
    open_tab(page, "Server")
    card, config = page.locator(".card").filter(has_text="no-model"), site.folder / "no-model" / "config.json"
    expect(card.locator(".detail")).to_contain_text("it has no config.json; it is empty")
    try:
        config.write_text("{")
        card.get_by_role("button", name="Load no-model").click()
        expect(card.locator(".detail")).to_contain_text("config.json cannot be read")
        expect(card.get_by_role("status")).to_have_text("Failed")
    finally:
        config.unlink()
    card.get_by_role("button", name="Load no-model").click()
    expect(card.locator(".detail")).to_contain_text("it has no config.json; it is empty")
    card.get_by_role("button").evaluate("button => { button.dataset.model = 'nobody'; button.click() }")
    expect(page.get_by_role("alert")).to_contain_text("no model 'nobody' here; this server has: ")


def test_the_focus_stays_where_it_is_while_figures_change(page: Page) -> None:
    page.get_by_role("tab", name="Server").focus()
    page.keyboard.press("Enter")
    button = page.get_by_role("button", name="Unload bundled")
    expect(button).to_be_visible()
    while not button.evaluate("element => element === document.activeElement"):
        page.keyboard.press("Tab")
    page.wait_for_timeout(2500)
    expect(button).to_be_focused()


def test_tokens_a_second_and_the_queue_are_shown(page: Page) -> None:
    choose(page, "Model or workflow", "endless")
    page.get_by_label("Message", exact=True).fill("Write a story.")
    page.keyboard.press("Enter")
    expect(page.locator("article.answer .md:visible").first).to_be_visible()
    open_tab(page, "Server")
    expect(page.locator(".tile").filter(has_text="Running").locator("dd")).to_have_text("1")
    expect(page.locator(".tile").filter(has_text="Tokens a second").locator("dd")).to_have_text(re.compile("^[1-9]"))
    open_tab(page, "Chat")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".figures")).to_contain_text("stopped")


def visit(page: Page, name: str) -> None:
    open_tab(page, name)
    expect(page.locator({"Chat": "#thread", "Workflows": "#run", "Server": ".card"}[name]).first).to_be_visible()


@pytest.mark.parametrize("name", EVERYTHING)
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_a_screen_reader_finds_nothing_wrong(page: Page, name: str, colours: str) -> None:
    if colours == "dark":
        page.get_by_role("button", name="Light or dark").click()
    if name == "Chat":
        choose(page, "Model or workflow", "bundled")
        ask(page, "Write a Python function that adds two numbers.")
    visit(page, name)
    if name == "Workflows":
        field(page, "User prompt (required)").fill("What is the capital of France?")
        run(page)
    assert violations(page) == []


@pytest.mark.window(is_stranger=True)
def test_the_question_for_the_key_is_accessible(page: Page) -> None:
    assert violations(page) == []


@pytest.mark.window(viewport=PHONE, has_touch=True, is_mobile=True)
def test_all_pages_on_a_phone(page: Page) -> None:
    choose(page, "Model or workflow", "bundled")
    expect(page.get_by_label("System prompt")).to_be_hidden()
    page.get_by_role("button", name="Settings").first.click()
    expect(page.get_by_label("System prompt")).to_be_visible()
    page.get_by_role("button", name="Settings").first.click()
    ask(page, "What is the capital of France?")
    for name in EVERYTHING:
        visit(page, name)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        assert violations(page) == []


@pytest.mark.window(color_scheme="dark")
def test_the_system_says_light_or_dark_unless_someone_chose(page: Page) -> None:
    expect(page.locator("body")).to_have_class(re.compile("dark"))
    page.get_by_role("button", name="Light or dark").click()
    page.reload()
    page.locator("#thread").wait_for()
    page.wait_for_timeout(700)
    expect(page.locator("body")).not_to_have_class(re.compile("dark"))


def test_what_must_not_happen_would_be_noticed(browser: Browser) -> None:
    trouble = Trouble()
    with browser.new_context() as context:
        trouble.watch(context)
        context.route("**", lambda route: route.abort())
        page = context.new_page()
        page.set_content("<script>console.error('oh')</script><img src='https://elsewhere.example/x.png'>")
        page.evaluate("setTimeout(() => { throw Error('no') })")
        page.wait_for_timeout(100)
    found = "\n".join(trouble.found)
    for expected in ("console: oh", "request to https://elsewhere.example/x.png", "error in the page: no"):
        assert expected in found


def test_nothing_leaves_this_machine(page: Page, site: Site) -> None:
    for name in EVERYTHING:
        visit(page, name)
    web_ui = processes_of(site.server)[-1]
    assert {"GRADIO_ANALYTICS_ENABLED", "HF_HUB_OFFLINE"} <= web_ui.environ().keys()
    assert "MODEL_COMPOSE_API_KEY" not in web_ui.environ()
    others = {each.raddr.ip for each in web_ui.net_connections("inet") if each.raddr}
    assert others <= {"127.0.0.1"}
    # The `trouble` fixture looks at what the browser asks for.


def test_the_pictures_of_the_documentation(site: Site, page: Page, pictures: Path) -> None:
    page.get_by_label("Temperature").fill("0")
    choose(page, "Model or workflow", "bundled")
    ask(page, "What is the capital of France?")
    ask(page, "Explain quantum computing in simple terms.")
    page.mouse.move(0, 0)
    picture(page, pictures / "webui-chat.png")
    open_workflow(page, "Two explanations")
    field(page, "One (required)").fill("quantum computing")
    run(page)
    picture(page, pictures / "webui-workflows.png")
    busy = page.context.new_page()
    busy.goto(site.url)
    choose(busy, "Model or workflow", "endless")
    send(busy, "Write a story.")
    visit(page, "Server")
    page.wait_for_timeout(4500)
    picture(page, pictures / "webui-server.png")


def picture(page: Page, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    page.evaluate("document.activeElement.blur()")
    page.wait_for_timeout(300)
    page.screenshot(path=path, animations="disabled")
    assert path.stat().st_size > 20_000


def test_a_taken_port_leaves_the_server_alone(tmp_path: Path) -> None:
    with (
        pytest.MonkeyPatch.context() as patched,
        socket.create_server(("127.0.0.1", 0)) as taken,
    ):
        patched.delitem(served.ENVIRONMENT, "MODEL_COMPOSE_NO_WEBUI", raising=False)
        port = taken.getsockname()[1]
        with serving(tmp_path, a_free_port(), "--webui-port", str(port)) as server:
            server.wait_until_ready()
            wait_until(server, f"There is no Web UI: port {port} is taken by another program")
            assert server.client().models.list().data[0].id == "bundled"


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Served]:
    """A server of one test, with its Web UI."""
    with pytest.MonkeyPatch.context() as patched:
        patched.delitem(served.ENVIRONMENT, "MODEL_COMPOSE_NO_WEBUI", raising=False)
        with serving(tmp_path, a_free_port(), "--webui-port", "0") as server:
            wait_until(server, "\nWeb UI: http")
            yield server


def processes_of(server: Served) -> list[psutil.Process]:
    """Those of the Web UI: its guard, and itself."""
    return [each for each in server.engines() if "modelcompose.clients.webui" in each.cmdline()]


def test_it_takes_next_to_nothing_while_nobody_uses_it(own: Served) -> None:
    process, seconds = processes_of(own)[-1], 3.0
    time.sleep(0.5)
    before = sum(process.cpu_times()[:2])
    time.sleep(seconds)
    assert sum(process.cpu_times()[:2]) - before < 0.03 * seconds


def test_it_ends_with_the_server_even_by_force(own: Served) -> None:
    started = processes_of(own)
    assert len(started) == 2
    own.process.kill()
    _, alive = psutil.wait_procs(started, timeout=10)
    assert alive == []


def test_its_own_end_is_told_and_leaves_the_server_alone(own: Served) -> None:
    processes_of(own)[-1].kill()
    wait_until(own, "The Web UI was ended by SIGKILL")
    assert own.client().models.list().data[0].id == "bundled"
    assert own.stop() == 0
