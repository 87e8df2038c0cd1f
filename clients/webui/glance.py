"""The server at a glance: what its models do, as HTML, with the rates between two looks. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import msgspec
from prometheus_client.parser import text_string_to_metric_families

_PREFIX = "modelcompose_model_"


class Model(msgspec.Struct, frozen=True):
    """A model as `/health` tells of it; one that is not ours is loaded and unloaded elsewhere."""

    id: str
    state: str
    detail: str = ""
    progress: float | None = None
    context: int | None = None
    is_ours: bool = True


class Counts(msgspec.Struct, frozen=True):
    """What `/metrics` says at one moment (`at`, in seconds of any clock): for each model its counters, and memory."""

    at: float
    models: Mapping[str, Mapping[str, float]] = {}
    memory: Mapping[str, float] = {}

    def of(self, model: str, name: str) -> float:
        return self.models.get(model, {}).get(name, 0.0)


def counts(text: str, at: float) -> Counts:
    """What the text of `/metrics` says."""
    models: dict[str, dict[str, float]] = {}
    memory: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "modelcompose_memory_bytes":
                memory[sample.labels["of"]] = sample.value
            elif sample.name.startswith(_PREFIX) and not sample.name.endswith("_created"):
                name = sample.name.removeprefix(_PREFIX).removesuffix("_total")
                models.setdefault(sample.labels["model"], {})[name] = sample.value
    return Counts(at, models, memory)


def rate(model: str, before: Counts | None, now: Counts) -> float:
    """Tokens a second that a model made between two looks."""
    if before is None or now.at <= before.at:
        return 0.0
    made = now.of(model, "generated_tokens") - before.of(model, "generated_tokens")
    return max(0.0, made / (now.at - before.at))


def glance(models: Sequence[Model], workflows: Sequence[str], before: Counts | None, now: Counts) -> str:
    """Figures of the whole server, and a card for each model; workflows have no state of their own."""
    ours = [model for model in models if model.id not in workflows]
    speed = sum(rate(model.id, before, now) for model in ours)
    tiles = [
        ("Tokens a second", f"{speed:,.0f}"),
        ("Running", f"{sum(now.of(model.id, 'running') for model in ours):.0f}"),
        ("Waiting in the queue", f"{sum(now.of(model.id, 'waiting') for model in ours):.0f}"),
        ("Memory", _memory(now.memory)),
    ]
    shown = "".join(f'<div class="tile"><dt>{label}</dt><dd>{value}</dd></div>' for label, value in tiles)
    cards = "".join(_card(model, before, now) for model in ours)
    return (
        f'<dl class="tiles">{shown}</dl><h2>Models</h2><div class="cards">{cards}</div>{_workflows(models, workflows)}'
    )


def _memory(memory: Mapping[str, float]) -> str:
    if not memory:
        return "–"
    used = memory.get("server", 0.0) + memory.get("children", 0.0)
    return f"{size(used)}<small> of {size(memory.get('machine', 0.0))}</small>"


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


STATES = {
    "ready": "Ready",
    "loading": "Loading",
    "failed": "Failed",
    "unloaded": "Idle",
    "stopped": "Stopped",
}


def _card(model: Model, before: Counts | None, now: Counts) -> str:
    name = escape(model.id)
    state = STATES.get(model.state, model.state)
    facts = [
        ("Tokens a second", f"{rate(model.id, before, now):.0f}"),
        ("Running", f"{now.of(model.id, 'running'):.0f}"),
        ("Waiting", f"{now.of(model.id, 'waiting'):.0f}"),
        ("Requests", f"{now.of(model.id, 'requests'):,.0f}"),
        ("Tokens made", f"{now.of(model.id, 'generated_tokens'):,.0f}"),
    ]
    shown = "".join(f"<div><dt>{label}</dt><dd>{value}</dd></div>" for label, value in facts)
    return (
        f'<section class="card" aria-label="{name}" data-model="{name}"><header><h3>{name}</h3>'
        f'<span class="pill {escape(model.state)}" role="status">{escape(state)}</span>{_switch(model)}</header>'
        f'{_progress(model)}<p class="detail">{escape(_detail(model))}</p><dl class="facts">{shown}</dl></section>'
    )


def _detail(model: Model) -> str:
    """What it does, or how much it can hold."""
    return model.detail or (f"{model.context:,} tokens of context" if model.context else "")


def _progress(model: Model) -> str:
    if model.state != "loading":
        return ""
    value = "" if model.progress is None else f'value="{model.progress:.3f}"'
    share = "" if model.progress is None else f"<span>{model.progress:.0%}</span>"
    return f'<div class="progress"><progress max="1" {value} aria-label="Loading"></progress>{share}</div>'


def _switch(model: Model) -> str:
    if not model.is_ours:
        return ""
    act, label = ("load", "Load") if model.state in {"unloaded", "stopped", "failed"} else ("unload", "Unload")
    name = escape(model.id)
    return (
        f'<button type="button" class="plain-button" data-act="{act}" data-model="{name}" '
        f'aria-label="{label} {name}">{label}</button>'
    )


def _workflows(models: Sequence[Model], workflows: Sequence[str]) -> str:
    if not workflows:
        return ""
    states = {model.id: model.state for model in models}
    rows = "".join(
        f'<li><span class="dot {escape(states.get(name, "ready"))}" aria-hidden="true"></span>{escape(name)}'
        f"<small>{escape(STATES.get(states.get(name, 'ready'), ''))}</small></li>"
        for name in workflows
    )
    return f'<h2>Workflows</h2><ul class="rows">{rows}</ul>'
