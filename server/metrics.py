"""Counts and times in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..adapters.base import ModelCard
from .record import Record

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_GAUGES = {"running": "Requests being answered now.", "waiting": "Requests waiting for their turn now."}
_COUNTERS = {
    "requests": "Requests taken.",
    "cancelled": "Requests given up because their client left.",
    "prompt_tokens": "Tokens of prompts.",
    "generated_tokens": "Tokens generated.",
    "engine_starts": "Starts of the model's process.",
}


class Metrics:
    """What one app counts; every app has its own registry, so that several can be in one process."""

    def __init__(self, cards: Callable[[], Sequence[ModelCard]]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Models(cards))
        self._requests = Counter(
            "modelcompose_http_requests",
            "Answered requests; the status is 'left' if the client did before there was one.",
            ("endpoint", "model", "status"),
            registry=self._registry,
        )
        self._seconds, self._first = (
            Histogram(
                f"modelcompose_{name}_seconds", text, ("endpoint", "model"), registry=self._registry, buckets=_SECONDS
            )
            for name, text in (
                ("request", "From the request to the end of its answer."),
                ("first_token", "From the request to the first piece of its answer."),
            )
        )
        # The library looks them up in a slower way.
        self._count = cache(self._requests.labels)
        self._time, self._time_first = cache(self._seconds.labels), cache(self._first.labels)

    def observe(self, record: Record, now: float) -> None:
        """Count a request that ended at the time `now`."""
        if not record.endpoint:
            return
        self._count(record.endpoint, record.model, record.status or "left").inc()
        if record.model:
            self._time(record.endpoint, record.model).observe(now - record.started)
        if record.first_token is not None:
            self._time_first(record.endpoint, record.model).observe(record.first_token - record.started)

    def text(self) -> bytes:
        """All of it, in the text format that every Prometheus reads."""
        return generate_latest(self._registry)


class _Models(Collector):
    """The models' own counters, read when somebody asks."""

    def __init__(self, cards: Callable[[], Sequence[ModelCard]]) -> None:
        self._cards = cards

    def collect(self) -> Iterable[Metric]:
        cards = self._cards()
        ready = GaugeMetricFamily("modelcompose_model_ready", "1 if the model answers.", labels=["model"])
        for card in cards:
            ready.add_metric([card.id], card.state.phase == "ready")
        yield ready
        for name, text in (_GAUGES | _COUNTERS).items():
            kind = GaugeMetricFamily if name in _GAUGES else CounterMetricFamily
            family = kind(f"modelcompose_model_{name}", text, labels=["model"])
            for card in cards:
                family.add_metric([card.id], getattr(card.counters, name))
            yield family
