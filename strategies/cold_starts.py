"""What a cold start of each model costs, and what holding it costs, measured at its loads."""

from __future__ import annotations

from collections import deque
from math import inf
from statistics import median
from typing import Annotated, Any

from pydantic import Field

LOADS = 5  # costs are medians over so many last loads of a model
GIB = 1 << 30
Price = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Memory = Annotated[Price, Field(description="The price of a GiB for an hour. If left out, that of `cost`.")]
Core = Annotated[Price, Field(description="The price of a core for an hour. If left out, that of `cost`.")]
WAITING = "What an hour of callers' waiting is worth. If left out, what `cost` says."
Waiting = Annotated[Price, Field(description=WAITING)]


class ColdStarts:
    """The costs of each model, from its last loads. Prices are per hour, so money is in 1/3600 of their currency."""

    def __init__(self, memory_gib_hour: float, cpu_hour: float, latency_hour: float) -> None:
        self._byte, self._core, self._waiting = memory_gib_hour / GIB, cpu_hour, latency_hour
        self._costs: dict[str, deque[float]] = {}  # of each of the last loads
        self._seconds: dict[str, deque[float]] = {}  # for how long the model could have been held at that cost
        self._medians: dict[str, float] = {}  # of these seconds, if they are known

    def record(self, model: Any) -> None:
        """Record the load that the model has just had."""
        model_id = model.model_id
        waited = max(1, model.load_waiters) * model.load_seconds
        load, holding = model.load_cpu_seconds * self._core + waited * self._waiting, model.nbytes * self._byte
        if model_id not in self._costs:
            self._costs[model_id], self._seconds[model_id] = deque(maxlen=LOADS), deque(maxlen=LOADS)
        self._costs[model_id].append(load + holding * model.load_seconds)
        self._seconds[model_id].append(load / holding + model.load_seconds if holding else inf)
        self._medians.pop(model_id, None)

    def count(self, model_id: str) -> int:
        """The number of loads that the model's costs are medians of."""
        return len(self._costs[model_id])

    def cost(self, model_id: str) -> float:
        """k: what a cold start of the model costs."""
        return median(self._costs[model_id])

    def seconds(self, model_id: str) -> float:
        """k/m: the seconds for which holding the model costs as much as a cold start; infinite if holding is free."""
        if (seconds := self._medians.get(model_id)) is None:
            seconds = self._medians[model_id] = median(self._seconds[model_id])
        return seconds
