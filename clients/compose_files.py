"""Which compose file a command is about: `-f`, `-e` and `--env-file`, or what lies in the folder.

`-f` takes a file, or the name of a workflow of the library.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ..adapters.errors import ConfigError
from ..workflows import library
from ..workflows.tree import suggestion

if TYPE_CHECKING:
    from ..workflows.load import Compose

FILE_NAMES = ("model-compose.yml", "model-compose.yaml")


class ComposeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options that say which files are read, and with which variables."""

    files: tuple[Path, ...] = ()
    env: tuple[str, ...] = ()
    env_files: tuple[Path, ...] = ()


def read(options: ComposeOptions) -> Compose:
    """The compose file that is meant; raises ConfigError."""
    compose = read_if_there(options)
    if compose is None:
        raise ConfigError(f"there is no {FILE_NAMES[0]} in {Path().absolute()}; name a file with -f")
    return compose


def read_if_there(options: ComposeOptions) -> Compose | None:
    """The compose file that is meant; None if none is named and none lies in the folder. Raises ConfigError."""
    files = paths_of(options)
    if not files:
        if options.env or options.env_files:
            raise ConfigError(f"-e and --env-file are for a compose file, and there is none in {Path().absolute()}")
        return None
    # Pydantic is of no use to those who have no compose file.
    from ..workflows.load import load

    env = {**os.environ, **variables(options.env, os.environ)}
    return load(files, env=env, env_files=options.env_files)


def paths_of(options: ComposeOptions) -> tuple[Path, ...]:
    """The files that are meant, which may not be there; none if none is named and none lies in the folder."""
    return tuple(map(named, options.files)) or files_in(Path())


def named(file: Path) -> Path:
    """The file itself or, if there is none, that of the library's workflow of this name; raises ConfigError."""
    is_name = not file.suffix and file.parent == Path() and not file.exists()
    if not is_name:
        return file
    found = library.path(file.name)
    if found is None:
        near = suggestion(file.name, library.names())
        raise ConfigError(f"there is neither a file '{file}' nor a workflow of that name in the library{near}")
    return found


def files_in(folder: Path) -> tuple[Path, ...]:
    """The folder's compose file and, as with docker compose, the `.override` one beside it; empty if there is none."""
    for name in FILE_NAMES:
        if (file := folder / name).is_file():
            over = file.with_stem(f"{file.stem}.override")
            return (file, over) if over.is_file() else (file,)
    return ()


def variables(pairs: Sequence[str], environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of `-e NAME=VALUE`; `-e NAME` is the environment's; raises ConfigError."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or (not equals and name not in environ):
            raise ConfigError(f"-e takes NAME=VALUE, or the name of a variable that is set, not '{pair}'")
        found[name] = value if equals else environ[name]
    return found
