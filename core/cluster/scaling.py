"""How many nodes a cluster needs, from what its nodes report: a pure rule, without a clock and without Ray."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from ..config.choices import Cost
from ..config.cluster import Resources

HOUR = 3600.0
GIB = 1 << 30
BUSY = 0.7  # the share of its cores up to which a node is used
SPARE = 0.8  # the share of that which the others may have after a node has gone, so that it need not come back
REMEMBERED = HOUR  # for which seconds a measured cost of cold starts is believed


class NodeLoad(NamedTuple):
    """What a node did of late."""

    busy: float
    """The share of its cores that it used."""
    requests: float
    """How many requests waited or were computed, on average."""
    cold_hour: float = 0.0
    """What its cold starts would cost in an hour at this pace, in the currency of `cost`."""


class Totals(NamedTuple):
    """What a node has counted since its start, and how many requests it has now."""

    at: float
    """Seconds, on any clock that does not go back."""
    cpu_seconds: float
    load_seconds: float = 0.0
    cold_seconds: float = 0.0
    """The time of all requests that waited for a load."""
    requests: float = 0.0

    @classmethod
    def read(cls, metrics: str, at: float, cpu_seconds: float) -> Totals:
        """From the text of a node's `/metrics`."""
        loads = cold = requests = 0.0
        for family in text_string_to_metric_families(metrics):
            for sample in family.samples:
                loads += sample.value if sample.name == "residency_load_seconds_sum" else 0.0
                requests += sample.value if sample.name == "residency_in_flight" else 0.0
                if sample.name == "residency_request_seconds_sum" and sample.labels["start"] == "cold":
                    cold += sample.value
        return cls(at, cpu_seconds, loads, cold, requests)

    def until(self, later: Totals, resources: Resources, cost: Cost | None) -> NodeLoad:
        """The load between these totals and later ones. A node that has started anew has counted nothing before."""
        seconds = max(later.at - self.at, 1e-3)
        cpu = max(later.cpu_seconds - self.cpu_seconds, 0.0) / seconds
        loads = max(later.load_seconds - self.load_seconds, 0.0) / seconds
        waits = max(later.cold_seconds - self.cold_seconds, 0.0) / seconds
        # In an hour, as many hours of a core and of callers as seconds in a second. A load keeps one core busy.
        cold = loads * cost.cpu_hour + waits * cost.latency_hour if cost else 0.0
        return NodeLoad(cpu / resources.num_cpus, later.requests, cold)


class ColdStarts(NamedTuple):
    """What cold starts cost in an hour with a number of nodes, and when that was measured."""

    hour: float
    at: float


def node_hour(resources: Resources, cost: Cost) -> float | None:
    """What a node costs in an hour; None if its memory is not set, or no size is large enough."""
    if resources.memory is None:
        return None
    if cost.billing == "size":
        fit = (each for each in cost.sizes if each.memory >= resources.memory and each.cpu >= resources.num_cpus)
        return next((size.hour for size in fit), None)
    return resources.num_cpus * cost.cpu_hour + resources.memory / GIB * cost.memory_gib_hour


def nodes_wanted(
    loads: Sequence[NodeLoad],
    queue: int,
    node_hour: float | None = None,
    known: Mapping[int, float] | None = None,
) -> int:
    """How many nodes are wanted in place of those whose `loads` are given; at least one.

    As many as keep each node below 70 % of its cores and below `queue` requests. One more if cold starts cost more in
    an hour than a node does (`node_hour`), unless one more is known to save less than it costs; one less only if it is
    not known to save more. `known` has what cold starts cost in an hour with other numbers of nodes.
    """
    count = len(loads)
    if not count:
        return 1
    full = sum(max(load.busy / BUSY, load.requests / queue) for load in loads)
    wanted = math.ceil(full)
    if wanted <= count:  # one less at a time, and only if the others have room
        wanted = count - 1 if count > 1 and full <= SPARE * (count - 1) else count
    if node_hour is None or wanted > count:
        return wanted
    cold, known = sum(load.cold_hour for load in loads), known or {}
    if cold - known.get(count + 1, 0.0) > node_hour:
        return count + 1
    return count if known.get(wanted, cold) - cold > node_hour else wanted


def remember(known: Mapping[int, ColdStarts], count: int, hour: float, now: float) -> dict[int, ColdStarts]:
    """What is known with the newest measurement: with `count` nodes, cold starts cost so much an hour."""
    fresh = {nodes: each for nodes, each in known.items() if now - each.at <= REMEMBERED}
    return fresh | {count: ColdStarts(hour, now)}
