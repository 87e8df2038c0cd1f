"""What `--model` and `chat MODEL` accept, and the settings that each of them stands for.

bundled              the model that comes with the program
org/name             a model of the Hugging Face hub; its name is its id
path/to/folder       a folder with a model in it; its name is the folder's
NAME=any of these    the same model under a name of one's own
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ..adapters.bundled import MODEL_FOLDER
from ..adapters.errors import ConfigError
from ..adapters.transformers.settings import ModelSettings

BUNDLED = "bundled"
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
_LOOKS_LIKE_A_PATH = re.compile(r"[.~]{0,2}[/\\]|~|[A-Za-z]:[/\\]")


def settings_of(spelled: Sequence[str], common: ModelSettings) -> list[ModelSettings]:
    """The settings of each model, in order: name and source from its spelling, everything else from `common`.

    Raises ConfigError for a folder that is not there, for what cannot be a hub id, and for two models of one name.
    """
    settings = [msgspec.structs.replace(common, name=name, source=source) for name, source in map(_parse, spelled)]
    names = [each.name for each in settings]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two models are called '{name}'; give one another name: --model OTHER_NAME=...")
    return settings


def _parse(spelled: str) -> tuple[str, str]:
    """The name and the source (a folder or a hub id) that a spelling stands for."""
    if spelled != BUNDLED and Path(spelled).expanduser().is_dir():
        return _folder(spelled)
    name, equals, source = spelled.partition("=")
    if not equals:
        return _hub_id_or_folder(spelled)
    if not name or not source:
        raise ConfigError(f"'{spelled}' is half a model; write NAME=HUB_ID or NAME=FOLDER")
    return name, _hub_id_or_folder(source)[1]


def _hub_id_or_folder(source: str) -> tuple[str, str]:
    if source == BUNDLED:
        return BUNDLED, str(MODEL_FOLDER)
    if Path(source).expanduser().is_dir():
        return _folder(source)
    if _LOOKS_LIKE_A_PATH.match(source) or source.count("/") > 1:
        raise ConfigError(f"there is no folder '{source}'")
    if not _HUB_ID.fullmatch(source):
        raise ConfigError(f"'{source}' is neither a folder nor the id of a Hugging Face model (such as org/name)")
    return source, source


def _folder(source: str) -> tuple[str, str]:
    folder = Path(source).expanduser().resolve()
    return folder.name, str(folder)
