"""The page for workflows."""

from __future__ import annotations

import re

import pytest
from browsing import (
    CHAT,
    STREAM,
    TEXT,
    Site,
    assert_grew,
    choose,
    field,
    open_workflow,
    run,
    violations,
    wait_until_idle,
    watch_length,
)
from playwright.sync_api import Page, expect


def test_the_chat_workflow_of_the_documents(page: Page) -> None:
    open_workflow(page, CHAT)
    expect(page.locator(".about").first).to_contain_text("Generate chat messages based on a given role message")
    expect(page.get_by_text("System message defining the assistant's role and behavior")).to_be_visible()
    field(page, "System prompt").fill("You are a helpful AI assistant.")
    field(page, "User prompt (required)").fill("Explain quantum computing in simple terms.")
    result = run(page)
    expect(result.get_by_role("heading", name="Generated")).to_be_visible()
    expect(result).to_contain_text("qubit")


def test_the_text_workflow_of_the_documents(page: Page) -> None:
    open_workflow(page, TEXT)
    field(page, "Prompt (required)").fill("Once upon a time in a distant galaxy")
    expect(run(page).locator(".output")).to_contain_text("Once upon a time in a distant galaxy")


def test_the_streaming_workflow_of_the_documents(page: Page) -> None:
    open_workflow(page, STREAM)
    expect(field(page, "Temperature")).to_have_attribute("placeholder", "0.7")
    expect(field(page, "Temperature")).to_have_value("")
    field(page, "Prompt (required)").fill("Explain the benefits of local AI models")
    field(page, "Temperature").fill("0.2")
    watch_length(page, "#result .plain, #result .md")
    run(page)
    assert_grew(page)


def test_each_kind_of_input_has_its_field(page: Page) -> None:
    open_workflow(page, "All kinds of fields")
    expect(field(page, "Share")).to_have_attribute("placeholder", "0.5")
    expect(field(page, "Share")).to_have_value("")
    field(page, "Count (required)").fill("2.5")
    field(page, "Is short").uncheck()
    choose(page, "Is open (required)", "yes")
    field(page, "Data").fill('{"a": 1}')
    page.get_by_role("button", name="Run Workflow").click()
    expect(page.get_by_role("alert")).to_have_text("Count has to be a whole number")
    field(page, "Count (required)").fill("3")
    expect(run(page).locator(".output")).to_have_text('3 0.5 false true {"a": 1}')
    assert violations(page) == []


def test_a_workflow_by_keyboard_alone(page: Page) -> None:
    page.get_by_role("tab", name="Chat").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#run")).to_be_visible()
    page.get_by_label("Workflow", exact=True).focus()
    page.keyboard.type("echo")
    page.keyboard.press("Enter")
    page.locator("#form-echo").wait_for(state="attached")
    page.keyboard.press("Tab")
    expect(field(page, "Text (required)")).to_be_focused()
    page.keyboard.type("hello")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#result .output")).to_have_text("hello")


def test_what_is_missing_is_named(page: Page) -> None:
    open_workflow(page, CHAT)
    page.get_by_role("button", name="Run Workflow").click()
    expect(page.get_by_role("alert")).to_have_text("Please fill in: User prompt")


def test_jobs_and_their_order_are_drawn_and_followed(page: Page) -> None:
    open_workflow(page, "Two explanations")
    expect(page.get_by_role("img", name="Jobs: one; other; words after one and other")).to_be_visible()
    field(page, "One (required)").fill("gravity")
    run(page)
    expect(page.locator("#jobs li small")).to_have_text([re.compile(r"^done, [\d.]+ s$")] * 3)
    expect(page.locator("#diagram .completed")).to_have_count(3)
    expect(page.locator("#result h3")).to_have_text(["One", "Other", "Words"])


def test_a_run_that_fails_says_why_and_where(page: Page) -> None:
    open_workflow(page, "Bound to fail")
    result = run(page)
    expect(result.get_by_role("alert")).to_contain_text("could not be reached")
    expect(page.locator("#diagram .failed title")).to_have_text("second")


def test_cancel_ends_the_run_and_the_engine(page: Page, site: Site) -> None:
    before = site.server.count("cancelled")
    open_workflow(page, "Endless")
    field(page, "User prompt (required)").fill("Write a story.")
    page.get_by_role("button", name="Run Workflow").click()
    expect(page.locator("#result .plain, #result .md").first).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".run-state.cancelled")).to_be_visible()
    assert wait_until_idle(site) == (0, before + 1)
    expect(page.get_by_role("button", name="Run Workflow")).to_be_visible()


def test_choosing_another_workflow_ends_the_run(page: Page, site: Site) -> None:
    open_workflow(page, "Endless")
    field(page, "User prompt (required)").fill("Write a story.")
    page.get_by_role("button", name="Run Workflow").click()
    expect(page.locator("#result .plain, #result .md").first).to_be_visible()
    open_workflow(page, "Echo")
    wait_until_idle(site)
    expect(page.locator("#result")).to_be_empty()
    expect(page.get_by_role("button", name="Cancel")).to_be_hidden()
    field(page, "Text (required)").fill("hello")
    expect(run(page).locator(".output")).to_have_text("hello")


@pytest.mark.window(viewport={"width": 390, "height": 780})
def test_the_form_on_a_phone(page: Page) -> None:
    open_workflow(page, TEXT)
    field(page, "Prompt (required)").fill("Once upon a time")
    expect(run(page).locator(".output")).to_contain_text("Once upon a time")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
