"""The Web UI of a real server in a real browser, which `make test-web` installs; one server for all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import served
from browsing import DESK, KEY, Site, Trouble, compose_file, wait_until
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Page,
    StorageState,
    expect,
    sync_playwright,
)
from served import a_free_port, serving

expect.set_options(timeout=20_000)

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
ARGUMENTS = (
    "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync "
    "--no-first-run"
).split()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pictures", action="store_true", help="put the screenshots into docs/images")


@pytest.fixture(scope="session")
def pictures(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder for screenshots."""
    if not request.config.getoption("--pictures"):
        return tmp_path_factory.mktemp("pictures")
    return Path(__file__).parents[2] / "docs" / "images"


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder, port, webui = tmp_path_factory.mktemp("site"), a_free_port(), a_free_port()
    (folder / "model-compose.yml").write_text(compose_file(port), encoding="utf-8")
    (folder / "no-model").mkdir()
    with pytest.MonkeyPatch.context() as patched:
        patched.delitem(served.ENVIRONMENT, "MODEL_COMPOSE_NO_WEBUI")
        with serving(folder, port, "--webui-port", str(webui), "--api-key", KEY) as server:
            wait_until(server, "\nWeb UI: http")
            yield Site(server, folder, f"http://127.0.0.1:{webui}")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        pytest.exit(f"there is no {CHROMIUM}; `make test-web` installs it, or CHROMIUM names another", 2)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def signed_in(site: Site, browser: Browser) -> StorageState:
    """What the browser of someone keeps who has given the key."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(site.url)
    page.get_by_label("API key").fill(KEY)
    page.get_by_role("button", name="Enter").click()
    page.locator("#thread").wait_for()
    state = context.storage_state()
    context.close()
    return state


@pytest.fixture
def trouble() -> Iterator[Trouble]:
    """Fails the test if something was in trouble."""
    trouble = Trouble()
    yield trouble
    assert trouble.found == []


@pytest.fixture
def context(request: pytest.FixtureRequest, browser: Browser, trouble: Trouble) -> Iterator[BrowserContext]:
    """A new browser profile; the marker `window` says how large, how coloured, and who."""
    marker = request.node.get_closest_marker("window")
    options = {"viewport": DESK, **(marker.kwargs if marker else {})}
    if not options.pop("is_stranger", False):
        options["storage_state"] = request.getfixturevalue("signed_in")
    context = browser.new_context(**options)
    context.set_default_timeout(20_000)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    trouble.watch(context)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, site: Site) -> Page:
    """The page as it opens."""
    page = context.new_page()
    page.goto(site.url)
    page.locator("#thread:visible, #gate:visible").first.wait_for()
    return page
