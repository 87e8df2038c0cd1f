"""Workflows that come with the program: one file each, whose name is the workflow's and what `-f` takes."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent


def names() -> tuple[str, ...]:
    """What there is, by name."""
    return tuple(sorted(file.stem for file in FOLDER.glob("*.yml")))


def path(name: str) -> Path | None:
    """The file of that name, if there is one."""
    return FOLDER / f"{name}.yml" if name in names() else None


def about(name: str) -> str:
    """What a workflow of the library does: the first line of its file, which is a comment."""
    with (FOLDER / f"{name}.yml").open(encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip()
