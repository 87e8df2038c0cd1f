"""Counts and times in Prometheus' text format."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ..adapters.base import ModelCard
from .memory import Memory
from .record import Record

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_GAUGES = {
    "running": "Requests being answered now.",
    "waiting": "Requests waiting for their turn now.",
    "rows": "Answers being generated now.",
    "kv_used": "Share of the KV cache that is taken now.",
}
_COUNTERS = {
    "requests": "Requests taken.",
    "cancelled": "Requests given up because their client left.",
    "preempted": "Answers interrupted for want of memory.",
    "prompt_tokens": "Tokens of prompts that were computed.",
    "cached_tokens": "Tokens of prompts that were in the cache.",
    "generated_tokens": "Tokens generated.",
    "steps": "Steps of the model.",
    "step_seconds": "Time that the steps took.",
    "engine_starts": "Starts of the model's process.",
}


class Metrics:
    """What one app counts; every app has its own registry, so that several can be in one process."""

    def __init__(self, cards: Callable[[], Sequence[ModelCard]]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Models(cards))
        self._answered = _Answered()
        self._registry.register(self._answered)
        self._registry.register(Memory())

    def observe(self, record: Record, now: float) -> None:
        """Count a request that ended at the time `now`."""
        if record.endpoint:
            self._answered.observe(record, now)

    def text(self) -> bytes:
        """All of it, in the text format that every Prometheus reads."""
        return generate_latest(self._registry)


class _Tally:
    """How many requests there were, and how many took how long: a place for each bucket, the last above all borders."""

    def __init__(self) -> None:
        self.count = 0
        self.whole, self.first = ([0] * (len(_SECONDS) + 1) for _ in range(2))
        self.sum_whole = self.sum_first = 0.0

    def add(self, other: _Tally) -> None:
        self.count += other.count
        self.whole = [one + two for one, two in zip(self.whole, other.whole, strict=True)]
        self.first = [one + two for one, two in zip(self.first, other.first, strict=True)]
        self.sum_whole += other.sum_whole
        self.sum_first += other.sum_first


class _Answered(Collector):
    """The answered requests. The library's own counters take a lock and a loop for each number, which is more than a
    relayed request may cost; here all is done in one thread.
    """

    def __init__(self) -> None:
        self._tallies: defaultdict[tuple[str, str, int | None], _Tally] = defaultdict(_Tally)

    def observe(self, record: Record, now: float) -> None:
        tally = self._tallies[record.endpoint, record.model, record.status]
        tally.count += 1
        seconds = now - record.started
        tally.whole[bisect_left(_SECONDS, seconds)] += 1
        tally.sum_whole += seconds
        if record.first_token is not None:
            seconds = record.first_token - record.started
            tally.first[bisect_left(_SECONDS, seconds)] += 1
            tally.sum_first += seconds

    def collect(self) -> Iterable[Metric]:
        text = "Answered requests; the status is 'left' if the client did before there was one."
        requests = CounterMetricFamily("modelcompose_http_requests", text, labels=["endpoint", "model", "status"])
        by_model: defaultdict[tuple[str, str], _Tally] = defaultdict(_Tally)
        for (endpoint, model, status), tally in self._tallies.items():
            requests.add_metric([endpoint, model, str(status or "left")], tally.count)
            by_model[endpoint, model].add(tally)
        whole = _durations("request", "From the request to the end of its answer.")
        first = _durations("first_token", "From the request to the first piece of its answer.")
        for (endpoint, model), tally in by_model.items():
            if model:
                whole.add_metric([endpoint, model], _cumulated(tally.whole), tally.sum_whole)
            if sum(tally.first):
                first.add_metric([endpoint, model], _cumulated(tally.first), tally.sum_first)
        return [requests, whole, first]


def _durations(name: str, text: str) -> HistogramMetricFamily:
    return HistogramMetricFamily(f"modelcompose_{name}_seconds", text, labels=["endpoint", "model"])


def _cumulated(counts: Sequence[int]) -> list[tuple[str, float]]:
    borders = [*map(str, map(float, _SECONDS)), "+Inf"]
    return list(zip(borders, map(float, accumulate(counts)), strict=True))


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
