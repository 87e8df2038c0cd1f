"""How the app is served: uvicorn's settings, and when Python looks for garbage."""

from __future__ import annotations

import gc

import uvicorn
from starlette.types import ASGIApp

from .protocol import Http

SECONDS_KEPT_ALIVE = 75
SECONDS_FOR_LAST_WORDS = 4
OBJECTS_BETWEEN_COLLECTIONS = 10_000


def config_of(app: ASGIApp, *, last_words: int = SECONDS_FOR_LAST_WORDS) -> uvicorn.Config:
    """Uvicorn's settings; answers may take `last_words` seconds to end when the server does."""
    return uvicorn.Config(
        app,
        http=Http,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=SECONDS_KEPT_ALIVE,
        timeout_graceful_shutdown=last_words,
    )


def collect_less() -> None:
    """Look for garbage less often, and no more among what is there by now.

    Nearly all of it goes without being looked for; what Python would look at after every 700 new objects are the
    requests under way, which took a tenth of the time of 64 at once.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
