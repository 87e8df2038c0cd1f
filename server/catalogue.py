"""Which models there are now, and how they are told of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..adapters.base import Adapter, ModelCard
from ..adapters.errors import ModelNotFound

_LISTED = 20
"""How many names a message gives."""


def cards(models: Sequence[Adapter]) -> list[ModelCard]:
    """All models as they are at this moment."""
    return [card for adapter in models for card in adapter.cards()]


def find(models: Sequence[Adapter], name: str) -> tuple[Adapter, ModelCard]:
    """The model of that name and the adapter that reaches it; raises `ModelNotFound`."""
    for adapter in models:
        for card in adapter.cards():
            if card.id == name:
                return adapter, card
    names = sorted(card.id for card in cards(models))
    there = ", ".join(names[:_LISTED]) + (" and others" if len(names) > _LISTED else "")
    raise ModelNotFound(f"no model {name[:200]!r} here; this server has: {there or 'none'}", param="model")


def described(card: ModelCard) -> dict[str, Any]:
    """A model as `/v1/models` shows it; `max_model_len` is vLLM's name, `status` llama.cpp's."""
    shown = {"id": card.id, "object": "model", "created": card.created, "owned_by": card.owned_by}
    if card.context_length is not None:
        shown["max_model_len"] = card.context_length
    return {**shown, "status": {"value": card.state.phase}}


def health(all_cards: Sequence[ModelCard]) -> dict[str, Any]:
    """`status` is ok as soon as some model answers and none is loaded for the first time; what was unloaded, and what
    is loaded because a request wants it, answers in a while.
    """
    phases = {"ready" if card.state.on_demand else card.state.phase for card in all_cards}
    status = "loading" if "loading" in phases else "ok" if phases & {"ready", "unloaded", "stopped"} else "failed"
    return {"status": status, "models": [_condition(card) for card in all_cards]}


def _condition(card: ModelCard) -> dict[str, Any]:
    state = card.state
    return {"id": card.id, "state": state.phase, "progress": state.progress, "detail": state.detail}
