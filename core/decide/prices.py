"""Prices, and the two quantities that decide how long a model should stay: m, of holding it, and k, of a cold start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MIB_PER_GIB = 1024
HOUR = 3600.0
FARGATE = {"memory_gib_hour": 0.004445, "cpu_hour": 0.04048}  # the defaults of `cost`, and whose they are


@dataclass(frozen=True)
class Prices:
    """As `cost:` in an experiment states them, in one currency."""

    memory_gib_hour: float
    cpu_hour: float
    latency_hour: float
    charge: str
    """Which memory is paid for: `pss` or `private`."""
    billing: str
    """`average`: freed memory serves someone else; `peak`: the most that was held is paid for all the time."""

    @classmethod
    def of(cls, cost: Mapping[str, Any]) -> Prices:
        """From the `cost` of a run's record."""
        return cls(**{key: value for key, value in cost.items() if key != "trifle"})

    def holding(self, mib: float) -> float:
        """m: what holding so much memory costs per second."""
        return mib / MIB_PER_GIB * self.memory_gib_hour / HOUR

    def processor(self, seconds: float) -> float:
        """What so many core seconds cost."""
        return seconds * self.cpu_hour / HOUR

    def waiting(self, seconds: float) -> float:
        """What callers' waiting for so long costs."""
        return seconds * self.latency_hour / HOUR

    def cold_start(self, *, processor: float, waiting: float, load: float, mib: float) -> float:
        """k: of one cold start, from its extra processor time, its callers' waiting, and how long a load holds memory
        that serves nobody yet (all in seconds).
        """
        return self.processor(processor) + self.waiting(waiting) + self.holding(mib) * load
