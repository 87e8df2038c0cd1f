"""How much memory this process and all it has started take, in Prometheus' form."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import psutil
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class Memory(Collector):
    """Looks when somebody asks. What processes share, as they do a model's file, is counted for each of them."""

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(
            "modelcompose_memory_bytes",
            "Memory of this process (`server`) and all it has started (`children`), and what the machine has.",
            labels=["of"],
        )
        own = psutil.Process()
        family.add_metric(["server"], own.memory_info().rss)
        family.add_metric(["children"], sum(map(_resident, own.children(recursive=True))))
        machine = psutil.virtual_memory()
        family.add_metric(["machine"], machine.total)
        family.add_metric(["available"], machine.available)
        yield family


def _resident(process: psutil.Process) -> int:
    with suppress(psutil.Error):
        return int(process.memory_info().rss)
    return 0
