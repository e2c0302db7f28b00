"""The result of a simulation, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..costs.economics import MILLION
from ..costs.prices import HOUR, MIB_PER_GIB, Prices
from ..results.economics import SizePrice
from ..results.plan import CostParts, OutcomeFigures
from ..stats.estimates import percentile
from .profile import ModelProfile

SAME = 0.05  # what differs by a smaller share is the same: the simulator's error is larger


@dataclass(frozen=True)
class ByModel:
    """How often each model was requested and loaded, and what it held; in the order of the profile."""

    requests: Sequence[int]
    loads: Sequence[int]
    mib_seconds: Sequence[float]
    """Charged memory, summed over time."""
    seconds: float
    """From the beginning of the workload to the last answer."""


@dataclass(frozen=True)
class NodeOutcome:
    """What one of several nodes did."""

    requests: int
    """That it answered."""
    cold: int
    loads: int
    busy: float
    """Share of the time that its busiest part was at work."""
    core_seconds: float
    """CPU time of its loads and requests."""
    weights_mib: float
    """The most weights that it held at a time."""
    models: int
    """In its memory at the end."""


@dataclass(frozen=True)
class NodesOutcome:
    """What several nodes did."""

    each: Sequence[NodeOutcome]
    distinct: int
    """Models in the memory of any node at the end."""


@dataclass(frozen=True)
class Outcome:
    """The result of one setting under one sequence of arrivals; seconds and MiB."""

    latencies: NDArray[np.float64]
    """In the order of the answers."""
    at_first: NDArray[np.bool_]
    """Which of these requests waited for the first load of their model."""
    requests: Sequence[int]
    """For each model."""
    cold: int
    """Requests that waited for a load."""
    loads: Sequence[int]
    """Of each model, those before the first request included."""
    least_keep: float | None
    """Seconds after which the first model was to be freed, if nobody requested it; None: at once, or never."""
    seconds: float
    """From the beginning of the workload to the last answer."""
    mib_seconds_of: Sequence[float]
    """Charged memory of each model, summed over time."""
    peak_mib: float
    """The most that the models held at a time."""
    weights_mib: float
    """The most of their weights that was in memory at a time."""
    busy: float
    """Share of the time that the busiest of the compute slot and the lanes was at work."""
    exceeded: bool
    """Whether more requests waited for a model than a served app lets wait."""
    halves: tuple[Outcome, ...] = ()
    """The outcomes of both halves of the requests, if there are two or more. The first half ends when the first request
    of the second one arrives, and the second begins with what is in memory and with what the strategy has learned.
    Memory is charged until that moment in the first half, and from then on in the second; loads and requests belong to
    the half in which they end. `least_keep` and `exceeded` cover all that happened until the end of the half.
    """
    nodes: NodesOutcome | None = None
    """Of several nodes. Then `weights_mib` and `busy` are those of the node with the most, and `peak_mib` is the sum of
    their peaks; `latencies` are put together from parts of the workload, so that they are only about in order.
    """

    @property
    def servers(self) -> int:
        """How many servers there are."""
        return len(self.nodes.each) if self.nodes is not None else 1

    @property
    def mib_seconds(self) -> float:
        """Charged memory of all models, summed over time."""
        return sum(self.mib_seconds_of)

    @property
    def by_model(self) -> ByModel:
        """The figures of each model."""
        return ByModel(self.requests, self.loads, self.mib_seconds_of, self.seconds)

    def money(
        self, base_mib: float, models: Sequence[ModelProfile], prices: Prices, size: SizePrice | None = None
    ) -> CostParts:
        """The cost of the whole workload; `size` is the one that is billed for each server, if sizes are. `base_mib` is
        the memory of an empty one.
        """
        holding = prices.holding(self._charged(base_mib, prices)) * self.seconds
        if size is not None:
            holding = self.servers * size.hour / HOUR * self.seconds
        processor = prices.processor(self.core_seconds(models))
        further = self.cold * models[0].load_further_s  # the same under all models of a loader
        waiting = prices.waiting(float(self.latencies.sum()) + further)
        total = holding + processor + waiting
        return CostParts(holding=holding, processor=processor, waiting=waiting, total=total)

    def core_seconds(self, models: Sequence[ModelProfile]) -> float:
        """CPU time of all loads and requests."""
        counts = zip(self.loads, self.requests, models, strict=True)
        return sum(x * each.load_cpu + y * each.request_cpu for x, y, each in counts)

    def busiest_cores(self, models: Sequence[ModelProfile]) -> float:
        """Cores that the busiest server's loads and requests take on average."""
        nodes = self.nodes
        most = self.core_seconds(models) if nodes is None else max(each.core_seconds for each in nodes.each)
        return most / self.seconds

    def _charged(self, base_mib: float, prices: Prices) -> float:
        """MiB that are paid for all the time."""
        if prices.billing == "peak":
            return self.servers * base_mib + self.peak_mib
        return self.servers * base_mib + (self.mib_seconds / self.seconds if self.seconds else 0.0)

    def keep_alive_cost(self, models: Sequence[ModelProfile], prices: Prices) -> float:
        """The cost by the keep-alive theory: m for each second in memory except during loads, k for each load."""
        starts = zip(self.loads, models, strict=True)
        unheld = sum(n * (model.cold_start(prices) - prices.holding(model.mib) * model.load_s) for n, model in starts)
        return prices.holding(self.mib_seconds) + unheld

    def figures(
        self, base_mib: float, models: Sequence[ModelProfile], prices: Prices, size: SizePrice | None = None
    ) -> OutcomeFigures:
        """The result in figures."""
        money = self.money(base_mib, models, prices, size)
        count = len(self.latencies)
        return OutcomeFigures(
            cold_share=self.cold / count,
            loads=sum(self.loads),
            mean_ms=float(self.latencies.mean()) * 1e3,
            p50_ms=_milliseconds(self.latencies, 0.5),
            p99_ms=_milliseconds(self.latencies, 0.99),
            mean_mib=self.servers * base_mib + self.mib_seconds / self.seconds,
            peak_mib=self.servers * base_mib + self.peak_mib,
            gib_hours=self._charged(base_mib, prices) / MIB_PER_GIB * self.seconds / HOUR,
            busy=self.busy,
            capacity_exceeded=self.exceeded,
            cost=money,
            cost_per_hour=money.total / self.seconds * HOUR,
            cost_per_million=money.total / count * MILLION,
        )


def _milliseconds(latencies: NDArray[np.float64], q: float) -> float | None:
    value = percentile(latencies, q)
    return None if value is None else value * 1e3
