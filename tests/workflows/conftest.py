"""The workflows that come with the program and those of docs/workflows.md, on the bundled model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from documents import blocks
from served import Served, a_free_port, serving

from modelcompose.workflows import library

PAGE = Path(__file__).parent.parent.parent / "docs" / "workflows.md"
OF_THE_PAGE = {"first.yml": "id: assistant", "mapped.yml": "model: support"}
"""Its first file and the one with a mapping for OpenAI's clients, by words that stand in them first."""


@pytest.fixture(scope="session")
def workflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of all of them; all tests share it."""
    folder = tmp_path_factory.mktemp("workflows")
    texts = [block.text for block in blocks(PAGE.read_text(encoding="utf-8"), "yaml")]
    for name, words in OF_THE_PAGE.items():
        text = next(text for text in texts if words in text)
        # The library has one of that name, too.
        (folder / name).write_text(text.replace("id: customer-support", "id: mapped"), encoding="utf-8")
    # With those of the library, the page's component is no longer the only one.
    (folder / "default.yml").write_text("component: {default: true}", encoding="utf-8")
    options = [word for name in (*OF_THE_PAGE, "default.yml", *library.names()) for word in ("-f", name)]
    with serving(folder, a_free_port(), *options) as served:
        served.wait_until_ready()
        yield served
