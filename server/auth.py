"""Who may use the API."""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from starlette.datastructures import Headers

from ..adapters.errors import Unauthorized


def authorize(headers: Headers, keys: Sequence[str]) -> None:
    """Raises `Unauthorized` unless no key is configured or the request has one of them as a bearer token."""
    if not keys:
        return
    scheme, _, given = headers.get("authorization", "").partition(" ")
    given = given.strip()
    if scheme.lower() != "bearer" or not given:
        # OpenAI has a code for a wrong key only.
        raise Unauthorized("This server needs an API key: send it in the header 'Authorization: Bearer KEY'.", code="")
    # Constant time, so that how long it takes tells nothing about a key.
    if not any(hmac.compare_digest(given.encode(), key.encode()) for key in keys):
        raise Unauthorized("Incorrect API key: it is not one of those this server was started with.")
