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
    sent = given.encode("latin-1")
    if not any(hmac.compare_digest(sent, spelling) for key in keys for spelling in _spellings(key)):
        raise Unauthorized("Incorrect API key: it is not one of those this server was started with.")


def _spellings(key: str) -> tuple[bytes, ...]:
    """A key as clients may send it: HTTP has no encoding for what is not ASCII, some take UTF-8, browsers Latin-1."""
    utf8 = key.encode(errors="surrogateescape")
    return (utf8, key.encode("latin-1")) if max(key, default="") <= "\xff" else (utf8,)
