"""What a cold start of each model costs, and what holding it costs, measured at its loads."""

from __future__ import annotations

from collections import deque
from math import inf
from statistics import median
from typing import Annotated, Any, NamedTuple

from pydantic import Field

LOADS = 5  # costs are medians over so many last loads of a model
GIB = 1 << 30
Price = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Memory = Annotated[Price, Field(description="The price of a GiB for an hour. If left out, that of `cost`.")]
Core = Annotated[Price, Field(description="The price of a core for an hour. If left out, that of `cost`.")]
WAITING = "What an hour of callers' waiting is worth. If left out, what `cost` says."
Waiting = Annotated[Price, Field(description=WAITING)]


class _Costs(NamedTuple):
    cold_start: float
    seconds: float
    """For how long the model can be held at the same cost."""


class ColdStarts:
    """The costs of each model, from its last loads. Prices are per hour, so money is in 1/3600 of their currency."""

    def __init__(self, memory_gib_hour: float, cpu_hour: float, latency_hour: float) -> None:
        self._byte, self._core, self._waiting = memory_gib_hour / GIB, cpu_hour, latency_hour
        self._loads: dict[str, deque[_Costs]] = {}
        self._medians: dict[str, _Costs] = {}

    def record(self, model: Any) -> None:
        """Record the load that the model has just had."""
        waited = max(1, model.load_waiters) * model.load_seconds
        load, holding = model.load_cpu_seconds * self._core + waited * self._waiting, model.nbytes * self._byte
        seconds = load / holding + model.load_seconds if holding else inf
        loads = self._loads.setdefault(model.model_id, deque(maxlen=LOADS))
        loads.append(_Costs(load + holding * model.load_seconds, seconds))
        self._medians[model.model_id] = _Costs(*map(median, zip(*loads, strict=True)))

    def count(self, model_id: str) -> int:
        """The number of loads that the model's costs are medians of."""
        return len(self._loads[model_id])

    def cost(self, model_id: str) -> float:
        """k: what a cold start of the model costs."""
        return self._medians[model_id].cold_start

    def seconds(self, model_id: str) -> float:
        """k/m: the seconds for which holding the model costs as much as a cold start; infinite if holding is free."""
        return self._medians[model_id].seconds
