"""Where the Web UI is."""

from __future__ import annotations

from typing import NamedTuple

DEFAULT_WEBUI_PORT = 8081


class WebUIPlace(NamedTuple):
    """The address it listens on; port 0 stands for any free one."""

    host: str
    port: int
