"""What the one who runs the server may choose about its HTTP side."""

from __future__ import annotations

import msgspec


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Without `api_keys` nobody is asked for one. `keep_alive` (seconds) is how long a stream may be silent before a
    comment goes out. `strict` refuses body fields the server does not know. `max_choices` bounds `n` times prompts.
    `base_path` is where the runs API begins; it is empty or begins with a slash.
    """

    api_keys: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ("*",)
    keep_alive: float = 15.0
    strict: bool = False
    max_body_bytes: int = 32 * 1024 * 1024
    max_choices: int = 1024
    base_path: str = "/api"
