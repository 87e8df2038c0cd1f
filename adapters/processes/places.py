"""Where what belongs to a managed server lies: the user's data folder, never the folder of the compose file."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path


def data_folder() -> Path:
    """`$XDG_DATA_HOME/model-compose`."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "model-compose"


def place_of(kind: str, name: str, *parts: str | Sequence[str]) -> Path:
    """The folder for `name`, another one for each value of `parts`."""
    readable = re.sub(r"[^\w.-]+", "-", name)[:60]
    return data_folder() / kind / f"{readable}-{digest_of(parts)[:8]}"


def digest_of(value: object) -> str:
    """A short text that changes when the value does."""
    return hashlib.sha256(repr(value).encode()).hexdigest()[:32]
