"""Finding out what answers at a URL: any server that speaks OpenAI's API, this one or another."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import httpx2
import msgspec

from ..adapters.base import ModelCard, ModelState, Phase
from ..adapters.errors import ModelUnavailable, Unauthorized
from .console import Loading

SECONDS_TO_CONNECT = 5.0
SECONDS_BETWEEN_LOOKS = 0.1
MISSES_BEFORE_GIVING_UP = 100


class _Condition(msgspec.Struct, frozen=True):
    """How a model is, as `/health` tells it."""

    id: str
    state: Phase
    detail: str
    progress: float | None


class _Health(msgspec.Struct, frozen=True):
    """What of the body of `/health` is of use here."""

    models: list[_Condition]


def served_models(url: str, api_key: str | None) -> list[str] | None:
    """The names of the models at `url` (which ends in `/v1`); None if no server of that kind answers there.

    Raises Unauthorized if the server wants another key.
    """
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        response = httpx2.get(f"{url}/models", headers=headers, timeout=SECONDS_TO_CONNECT)
    except (httpx2.TransportError, httpx2.InvalidURL):
        return None
    if response.status_code in {401, 403}:
        raise Unauthorized(f"the server at {url} wants a key, or another one: --api-key KEY")
    with suppress(ValueError, TypeError, KeyError):
        return [str(model["id"]) for model in response.json()["data"]]
    return None


def wait_until_ready(url: str, model: str, loading: Loading, still_runs: Callable[[], None]) -> None:
    """Wait while `model` loads, showing how far it is; `still_runs` raises if waiting has become pointless.

    A server that does not tell (`/health` is this program's) is taken to be ready. Raises ModelUnavailable if the
    model failed to load or the server is gone.
    """
    misses = 0
    while misses < MISSES_BEFORE_GIVING_UP:
        still_runs()
        if (cards := conditions(url)) is None:
            misses += 1
            time.sleep(SECONDS_BETWEEN_LOOKS)
            continue
        loading.update([card for card in cards if card.id == model])
        state = next((card.state for card in cards if card.id == model), ModelState("ready"))
        if state.phase == "failed":
            raise ModelUnavailable(f"{model} cannot be served: {state.detail}")
        if state.phase != "loading":
            return
        time.sleep(SECONDS_BETWEEN_LOOKS)
    raise ModelUnavailable(f"no server answers at {url} any more")


def conditions(url: str) -> Sequence[ModelCard] | None:
    """The states of the models as `/health` tells them, none if it does not; None if nothing answers."""
    try:
        response = httpx2.get(f"{url.removesuffix('/v1')}/health", timeout=SECONDS_TO_CONNECT)
    except httpx2.TransportError:
        return None
    with suppress(msgspec.MsgspecError):
        models = msgspec.json.decode(response.content, type=_Health).models
        return [ModelCard(id=m.id, created=0, state=ModelState(m.state, m.detail, m.progress)) for m in models]
    return []
