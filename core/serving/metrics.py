"""The metrics of a server, for Prometheus; with PROMETHEUS_MULTIPROC_DIR, of all workers together.

No histogram has a label for the model: each is some twenty lines, and a server may have a thousand models. The line of
a model appears with its first value.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import psutil

from ..errors import SettingsError
from ..residency.events import Loaded, TimeoutChanged, Unloaded
from ..residency.versions import Version
from ..system import memory
from .events import Computed, Configured, Ended, Event, Forwarded, Queued

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
if not os.environ.get(MULTIPROCESS):  # prometheus-client would take an empty value for a path
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

disable_created_metrics()  # type: ignore[no-untyped-call]  # they add a line for each counter
EVICTIONS = ("capacity", "budget")
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
AGES = (1, 10, 60, 300, 1800, 3600, 6 * 3600, 24 * 3600)
MIB = 1 << 20
STARTED = ("strategy", "start")
MODEL = ("strategy", "model")
STRATEGY = ("strategy",)
LOADER = ("strategy", "loader")
CHANGE = ("strategy", "model", "loader", "reason")
MODEL_INFO = "The checkpoint of a model"
NO_MODEL = ""  # the label of requests that were refused before their body was read; no model id is empty


def check_multiprocess() -> None:
    """Raise SettingsError if PROMETHEUS_MULTIPROC_DIR is not a writable folder.

    prometheus-client itself would fail at the first count, with a traceback.
    """
    folder = os.environ.get(MULTIPROCESS)
    if folder and not (Path(folder).is_dir() and os.access(folder, os.W_OK)):
        raise SettingsError(f"{MULTIPROCESS} names {folder}, which is not a writable folder; make an empty one.")


class Definition(NamedTuple):
    """What a metric is called and means."""

    name: str
    """As it is scraped; of a histogram without `_bucket`, `_sum` and `_count`."""
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    text: str


class Metrics:
    """The metrics of one app, counted from its events."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self, versions: Callable[[], Iterable[tuple[str, Version]]] = tuple) -> None:
        """`versions` returns the id and version of each model, at each scrape."""
        self._registry = registry = CollectorRegistry()
        self._info = _ModelInfo(versions)
        registry.register(self._info)
        self.definitions = [
            Definition("residency_model_info", "gauge", ("model", "revision", "sha256"), f"{MODEL_INFO}; always 1")
        ]

        def counter(name: str, text: str, labels: tuple[str, ...]) -> Counter:
            self.definitions.append(Definition(f"residency_{name}_total", "counter", labels, text))
            return Counter(f"residency_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...] = SECONDS) -> Histogram:
            self.definitions.append(Definition(f"residency_{name}", "histogram", labels, text))
            return Histogram(f"residency_{name}", text, labels, buckets=buckets, registry=registry)

        def gauge(name: str, text: str, labels: tuple[str, ...] = (), mode: str = "livesum") -> Gauge:
            self.definitions.append(Definition(f"residency_{name}", "gauge", labels, text))
            return Gauge(f"residency_{name}", text, labels, registry=registry, multiprocess_mode=mode)  # type: ignore[arg-type]

        self.loads = counter("loads", "Loads of a model", CHANGE)
        self.unloads = counter("unloads", "Models that left memory; for capacity or budget, they were evicted", CHANGE)
        self.load_seconds = histogram("load_seconds", "Seconds of a load", LOADER)
        self.phase_seconds = histogram("load_phase_seconds", "Seconds of a load's phase", (*LOADER, "phase"))
        self.age = histogram("age_at_eviction_seconds", "Seconds that an evicted model was in memory", LOADER, AGES)
        self.resident = gauge("resident_bytes", "Parameters, buffers and engines in memory", STRATEGY)
        self.budget = gauge("budget_bytes", "The strategy's memory_budget; +Inf without one", STRATEGY)
        self.timeout = gauge(
            "timeout_seconds",
            "Seconds that an idle model stays, as its strategy last decided; +Inf if it does not expire",
            MODEL,
            mode="liveall",
        )
        self.requests = counter("requests", "Requests by how they ended", ("strategy", "model", "outcome"))
        self.latency = histogram("request_seconds", "Seconds from arrival to answer, cold or warm", STARTED)
        self.queue = histogram("queue_seconds", "Seconds that a request waited, without loading", STRATEGY)
        self.inference = counter("inference_seconds", "Seconds of forwards and engines; a batch counts once", MODEL)
        self.batch = histogram("batch_texts", "Texts that were computed together", STRATEGY, TEXTS)
        self.in_flight = gauge("in_flight", "Requests that wait or are being computed", STRATEGY)
        self.pss = gauge("process_pss_bytes", "Proportional set size of the process and its children", mode="liveall")
        self.private = gauge("process_private_bytes", "Private memory of the process and its children", mode="liveall")
        self._children: dict[str, _Children] = {}  # by strategy

    def record(self, event: Event) -> None:
        """Count an event."""
        match event:
            case Queued(strategy):
                self._children_of(strategy).in_flight.inc()
            case Computed(strategy, model_id, items, seconds):
                self._children_of(strategy).batch.observe(items)
                self.inference.labels(strategy, model_id).inc(seconds)
            case Forwarded(strategy, model_id, seconds):
                self.inference.labels(strategy, model_id).inc(seconds)
            case Ended():
                self._record_end(event)
            case Loaded():
                self._record_load(event)
            case Unloaded():
                self._record_unload(event)
            case TimeoutChanged(strategy, model_id, seconds):
                self.timeout.labels(strategy, model_id).set(seconds)
            case Configured(strategy, budget):
                self.budget.labels(strategy).set(math.inf if budget is None else budget)

    def record_overloaded(self, strategy: str, model_id: str) -> None:
        """Count a request that was refused before it reached a queue."""
        self.requests.labels(strategy, model_id, "overloaded").inc()

    def _children_of(self, strategy: str) -> _Children:
        if strategy not in self._children:
            self._children[strategy] = _Children(self, strategy)
        return self._children[strategy]

    def _record_end(self, event: Ended) -> None:
        self.requests.labels(event.strategy, event.model_id, event.outcome).inc()
        children = self._children_of(event.strategy)
        if event.outcome != "overloaded":
            children.in_flight.dec()
        if event.answer is not None:
            children.latency[event.answer.cold].observe(event.seconds)
            children.queue.observe(event.answer.queue)

    def _record_load(self, event: Loaded) -> None:
        self.loads.labels(event.strategy, event.model_id, event.loader, event.reason).inc()
        self.load_seconds.labels(event.strategy, event.loader).observe(event.seconds)
        for phase, part in event.phases.items():
            self.phase_seconds.labels(event.strategy, event.loader, phase).observe(part)
        self.resident.labels(event.strategy).inc(event.nbytes)

    def _record_unload(self, event: Unloaded) -> None:
        self.unloads.labels(event.strategy, event.model_id, event.loader, event.reason).inc()
        if event.reason in EVICTIONS:
            self.age.labels(event.strategy, event.loader).observe(event.seconds)
        self.resident.labels(event.strategy).dec(event.nbytes)

    def scrape(self) -> bytes:
        """The metrics in Prometheus' text format. Not for the event loop: to measure memory takes milliseconds."""
        pss, private = memory.pss_and_private(os.getpid())
        if pss is not None and private is not None:
            self.pss.set(pss * MIB)
            self.private.set(private * MIB)
        registry = self._registry
        if folder := os.environ.get(MULTIPROCESS):
            for file in Path(folder).glob("gauge_live*_*.db"):
                pid = int(file.stem.rpartition("_")[2])
                if not psutil.pid_exists(pid):  # a killed worker cannot do so itself
                    multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
            registry.register(self._info)
        return generate_latest(registry)

    def close(self) -> None:
        """Remove the gauges of this worker."""
        if os.environ.get(MULTIPROCESS):
            multiprocess.mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]


class _ModelInfo(Collector):
    """The version of each model, as labels of a metric whose value is always 1."""

    def __init__(self, versions: Callable[[], Iterable[tuple[str, Version]]]) -> None:
        self._versions = versions

    def collect(self) -> Iterator[Metric]:
        info = InfoMetricFamily("residency_model", MODEL_INFO, labels=["model"])
        for model_id, version in self._versions():
            info.add_metric([model_id], {"revision": version.revision or "", "sha256": version.sha256 or ""})
        yield info


class _Children:
    """The metrics of one strategy that every request updates. Finding them by label takes as long as the update."""

    def __init__(self, metrics: Metrics, strategy: str) -> None:
        self.in_flight = metrics.in_flight.labels(strategy)
        self.latency = {cold: metrics.latency.labels(strategy, "cold" if cold else "warm") for cold in (False, True)}
        self.queue = metrics.queue.labels(strategy)
        self.batch = metrics.batch.labels(strategy)
