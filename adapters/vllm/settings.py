"""What has to be known to reach a model on other servers."""

from __future__ import annotations

import msgspec

from .connection import Patience


class UpstreamSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where models are and what they are called.

    `base_urls` are servers with the same models, which are used as one; more may be added later. Of their models the
    one called `model` is offered, as `name` if that is given; without `model` all of them are, under their own names.
    `aliases` are further names, each with the server's own name of a model. `api_key` is for the servers.
    `interval` is how many seconds lie between two looks at a server. A conversation stays at one server until that has
    `lead` more requests than the one with the fewest.
    """

    base_urls: tuple[str, ...] = ()
    model: str | None = None
    name: str | None = None
    aliases: dict[str, str] = {}
    api_key: str | None = None
    patience: Patience = Patience()
    interval: float = 10.0
    lead: int = 4
