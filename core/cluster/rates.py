"""What is asked of each model, from the counters of all nodes: the difference of two readings, smoothed."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from ..http.schemas import StrategiesAnswer
from .homes import Demand

REQUESTS, INFERENCE = "residency_requests_total", "residency_inference_seconds_total"
BUDGET = "residency_budget_bytes"
READ = (REQUESTS, INFERENCE, BUDGET)  # parsing all metrics of a thousand models would take a second
HALF_LIFE = 30.0  # seconds after which a request counts for half
FORGOTTEN = 1e-4  # requests a second; a model that is asked for less often, once in hours, has the home of its hash
USUAL_SERVICE = 0.01  # seconds, until a forward has been measured


@dataclass(frozen=True)
class Reading:
    """What a node has counted since it began, and what it has in memory."""

    requests: Mapping[str, float]
    """By model."""
    inference: Mapping[str, float]
    """Seconds of forwards, by model."""
    nbytes: Mapping[str, int]
    """Of each model that the node has loaded, as last measured."""
    resident: Mapping[str, str]
    """The strategy under which each model is in memory."""
    budget: int | None
    """Bytes of all strategies together; None if one has no limit."""

    @staticmethod
    def of(metrics: str, strategies: StrategiesAnswer) -> Reading:
        """The reading in two answers of a node."""
        requests, inference, budget = defaultdict[str, float](float), defaultdict[str, float](float), 0.0
        for sample in _samples(metrics):
            model = sample.labels.get("model")
            if sample.name == BUDGET:
                budget += sample.value
            elif model and sample.name == REQUESTS:
                requests[model] += sample.value
            elif model and sample.name == INFERENCE:
                inference[model] += sample.value
        return Reading(
            requests,
            inference,
            {used.model: used.nbytes for each in strategies.strategies for used in each.used}
            | {model.model: model.bytes for each in strategies.strategies for model in each.resident},
            {model.model: each.name for each in strategies.strategies for model in each.resident},
            int(budget) if budget and math.isfinite(budget) else None,
        )


def _samples(metrics: str) -> Iterator[Sample]:
    lines = [line for line in metrics.splitlines() if line.startswith(READ)]
    for family in text_string_to_metric_families("\n".join([*lines, ""])):
        yield from family.samples


@dataclass
class Rates:
    """Requests in a second and seconds of service of each model, over all nodes."""

    _before: dict[str, Reading] = field(default_factory=dict)
    _then: float | None = None
    _intervals: int = 0
    _requests: dict[str, float] = field(default_factory=dict)  # in a second
    _busy: dict[str, float] = field(default_factory=dict)  # seconds of forwards in a second
    _nbytes: dict[str, int] = field(default_factory=dict)

    def add(self, now: float, readings: Mapping[str, Reading]) -> None:
        """Take the readings of all nodes that answer, at the time `now` in seconds."""
        for reading in readings.values():
            self._nbytes.update(reading.nbytes)
        if self._then is not None and now > self._then:
            self._intervals += 1
            seconds = now - self._then
            # The first intervals weigh alike; then a reading weighs less the older it is.
            share = max(1 / self._intervals, 1 - 0.5 ** (seconds / HALF_LIFE))
            requests, inference = defaultdict[str, float](float), defaultdict[str, float](float)
            for slot, reading in readings.items():
                if before := self._before.get(slot):
                    _add_differences(requests, before.requests, reading.requests)
                    _add_differences(inference, before.inference, reading.inference)
            _smooth(self._requests, requests, seconds, share)
            _smooth(self._busy, inference, seconds, share)
        self._then = now
        self._before |= readings

    def demands(self) -> dict[str, Demand]:
        """What is asked of each model that is in use."""
        return {
            model: Demand(rate, self._service(model, rate), self._nbytes.get(model, 0))
            for model, rate in self._requests.items()
            if rate >= FORGOTTEN
        }

    def _service(self, model: str, rate: float) -> float:
        busy = self._busy.get(model, 0.0)
        return busy / rate if busy else USUAL_SERVICE


def _add_differences(total: dict[str, float], before: Mapping[str, float], now: Mapping[str, float]) -> None:
    for model, count in now.items():
        earlier = before.get(model, 0.0)
        total[model] += count - earlier if count >= earlier else count  # less: the node has begun anew


def _smooth(values: dict[str, float], counted: Mapping[str, float], seconds: float, share: float) -> None:
    for model in values.keys() | counted.keys():
        value = values.get(model, 0.0)
        values[model] = value + share * (counted.get(model, 0.0) / seconds - value)
