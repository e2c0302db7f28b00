"""What `/metrics` tells, in the terms of Prometheus; with PROMETHEUS_MULTIPROC_DIR, of all workers together.

Only counters are kept by model, each from when it first counts: a histogram is some twenty lines, and a server may
have a thousand models.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import psutil

from ..errors import SettingsError
from ..residency.events import Loaded, Unloaded
from ..residency.versions import Version
from ..system import memory
from .events import (
    Computed,
    Configured,
    Ended,
    Event,
    Queued,
)

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
if not os.environ.get(MULTIPROCESS):  # empty is as good as unset, but not to prometheus-client when it is imported
    os.environ.pop(MULTIPROCESS, None)
from prometheus_client import (  # noqa: E402
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    multiprocess,
)
from prometheus_client.core import InfoMetricFamily, Metric  # noqa: E402
from prometheus_client.registry import Collector  # noqa: E402

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second line for each counter, which nobody reads
EVICTIONS = ("capacity", "budget")
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
AGES = (1, 10, 60, 300, 1800, 3600, 6 * 3600, 24 * 3600)
MIB = 1 << 20
STRATEGY = ("strategy",)
LOADER = ("strategy", "loader")
CHANGE = ("strategy", "model", "loader", "reason")
NO_MODEL = ""  # the label of requests that were refused before their body was read; no model id is empty


def check_multiprocess() -> None:
    """Raises SettingsError: prometheus-client itself fails at the first count, with a traceback."""
    folder = os.environ.get(MULTIPROCESS)
    if folder and not (Path(folder).is_dir() and os.access(folder, os.W_OK)):
        raise SettingsError(
            f"{MULTIPROCESS} names {folder}, which is no folder that can be written to; make it, empty."
        )


class Metrics:
    """One app's metrics, counted from what happens in its engine."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self, versions: Callable[[], Iterable[tuple[str, Version]]] = tuple) -> None:
        """`versions` gives each model's id and version, whenever they are asked for."""
        self._registry = registry = CollectorRegistry()
        self._info = _ModelInfo(versions)
        registry.register(self._info)

        def counter(name: str, text: str, labels: tuple[str, ...]) -> Counter:
            return Counter(f"residency_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...] = SECONDS) -> Histogram:
            return Histogram(f"residency_{name}", text, labels, buckets=buckets, registry=registry)

        def gauge(name: str, text: str, labels: tuple[str, ...] = (), mode: str = "livesum") -> Gauge:
            return Gauge(f"residency_{name}", text, labels, registry=registry, multiprocess_mode=mode)  # type: ignore[arg-type]

        self.loads = counter("loads", "Loads of a model", CHANGE)
        self.unloads = counter("unloads", "Models that left memory; by capacity or budget they were evicted", CHANGE)
        self.load_seconds = histogram("load_seconds", "Seconds of a load", LOADER)
        self.phase_seconds = histogram("load_phase_seconds", "Seconds of a load's phase", (*LOADER, "phase"))
        self.age = histogram("age_at_eviction_seconds", "Seconds that an evicted model was in memory", LOADER, AGES)
        self.resident = gauge("resident_bytes", "Parameters and buffers in memory", STRATEGY)
        self.budget = gauge("budget_bytes", "The strategy's memory_budget", STRATEGY)
        self.requests = counter("requests", "Requests by how they ended", ("strategy", "model", "outcome"))
        self.latency = histogram("request_seconds", "Seconds from arrival to answer", ("strategy", "start"))
        self.queue = histogram("queue_seconds", "Seconds that a request waited, without loading", STRATEGY)
        self.batch = histogram("batch_texts", "Texts that were computed together", STRATEGY, TEXTS)
        self.in_flight = gauge("in_flight", "Requests that wait or are computed", STRATEGY)
        self.pss = gauge("process_pss_bytes", "Proportional set size of the process and its children", mode="liveall")
        self.private = gauge("process_private_bytes", "Memory that they have written", mode="liveall")
        self._children: dict[str, _Children] = {}  # by strategy

    def hear(self, event: Event) -> None:
        """Count what has happened."""
        match event:
            case Queued(strategy):
                self._of(strategy).in_flight.inc()
            case Computed(strategy, texts):
                self._of(strategy).batch.observe(texts)
            case Ended():
                self._ended(event)
            case Loaded():
                self._loaded(event)
            case Unloaded():
                self._unloaded(event)
            case Configured(strategy, budget):
                self.budget.labels(strategy).set(math.inf if budget is None else budget)

    def overloaded(self, strategy: str, model_id: str) -> None:
        """Count a request that was refused before it came to a queue."""
        self.requests.labels(strategy, model_id, "overloaded").inc()

    def _of(self, strategy: str) -> _Children:
        if strategy not in self._children:
            self._children[strategy] = _Children(self, strategy)
        return self._children[strategy]

    def _ended(self, event: Ended) -> None:
        self.requests.labels(event.strategy, event.model_id, event.outcome).inc()
        children = self._of(event.strategy)
        if event.outcome != "overloaded":
            children.in_flight.dec()
        if event.answer is not None:
            children.latency[event.answer.cold].observe(event.seconds)
            children.queue.observe(event.answer.queue)

    def _loaded(self, event: Loaded) -> None:
        self.loads.labels(event.strategy, event.model_id, event.loader, event.reason).inc()
        self.load_seconds.labels(event.strategy, event.loader).observe(event.seconds)
        for phase, part in event.phases.items():
            self.phase_seconds.labels(event.strategy, event.loader, phase).observe(part)
        self.resident.labels(event.strategy).inc(event.nbytes)

    def _unloaded(self, event: Unloaded) -> None:
        self.unloads.labels(event.strategy, event.model_id, event.loader, event.reason).inc()
        if event.reason in EVICTIONS:
            self.age.labels(event.strategy, event.loader).observe(event.seconds)
        self.resident.labels(event.strategy).dec(event.nbytes)

    def scrape(self) -> bytes:
        """Prometheus' text format. Reads the memory anew, which takes milliseconds: not in the event loop."""
        pss, private = memory.at_rest(os.getpid())
        if pss is not None and private is not None:
            self.pss.set(pss * MIB)
            self.private.set(private * MIB)
        registry = self._registry
        if folder := os.environ.get(MULTIPROCESS):
            for file in Path(folder).glob("gauge_live*_*.db"):
                pid = int(file.stem.rpartition("_")[2])
                if not psutil.pid_exists(pid):  # it was killed, and could not say that it counts no more
                    multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
            registry.register(self._info)
        return generate_latest(registry)

    def close(self) -> None:
        """This worker's gauges count no more."""
        if os.environ.get(MULTIPROCESS):
            multiprocess.mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]


class _ModelInfo(Collector):
    """Which version of each model is served, as labels; the value is always 1."""

    def __init__(self, versions: Callable[[], Iterable[tuple[str, Version]]]) -> None:
        self._versions = versions

    def collect(self) -> Iterator[Metric]:
        info = InfoMetricFamily("residency_model", "The checkpoint of a model", labels=["model"])
        for model_id, version in self._versions():
            info.add_metric([model_id], {"revision": version.revision or "", "sha256": version.sha256 or ""})
        yield info


class _Children:
    """The metrics of one strategy that every request changes: to find them by their labels takes as long again."""

    def __init__(self, metrics: Metrics, strategy: str) -> None:
        self.in_flight = metrics.in_flight.labels(strategy)
        self.latency = {cold: metrics.latency.labels(strategy, "cold" if cold else "warm") for cold in (False, True)}
        self.queue = metrics.queue.labels(strategy)
        self.batch = metrics.batch.labels(strategy)
