"""Compose files written as text, loaded from a folder of their own."""

from __future__ import annotations

import tempfile
import textwrap
from collections.abc import Mapping
from pathlib import Path

from modelcompose.workflows.load import load
from modelcompose.workflows.schema import ComposeFile
from modelcompose.workflows.tree import ConfigErrors

CHAT = """
component:
  type: model
  task: chat-completion
  model: bundled
"""


def loaded(*texts: str, env: Mapping[str, str] | None = None, dotenv: str | None = None) -> ComposeFile:
    """The compose file that these texts make together."""
    with tempfile.TemporaryDirectory() as folder:
        paths = _written(Path(folder), texts)
        if dotenv is not None:
            (Path(folder) / ".env").write_text(dotenv, encoding="utf-8")
        return load(paths, env=env or {}).file


def mistakes(*texts: str, env: Mapping[str, str] | None = None) -> list[str]:
    """The problems of these texts, each as it is printed, without the folder; none if they load."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            load(_written(Path(folder), texts), env=env or {})
        except ConfigErrors as error:
            return [str(problem).removeprefix(f"{folder}/") for problem in error.problems]
    return []


def _written(folder: Path, texts: tuple[str, ...]) -> list[Path]:
    paths = [folder / ("a.yml", "b.yml", "c.yml")[number] for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(textwrap.dedent(text).removeprefix("\n"), encoding="utf-8")
    return paths
