"""Prices, and the two quantities that decide how long a model should stay: m, of holding it, and k, of a cold start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MIB_PER_GIB = 1024
BYTES_PER_MIB = 1 << 20
HOUR = 3600.0
FARGATE = {"memory_gib_hour": 0.004445, "cpu_hour": 0.04048}  # the defaults of `cost`, and whose they are


@dataclass(frozen=True)
class Size:
    """Of a task or a machine, as a host lists it."""

    memory_mib: float
    cpu: float
    """Cores, or a part of one."""
    hour: float
    """Its price, memory and processor included."""


@dataclass(frozen=True)
class Prices:
    """As `cost:` in an experiment states them, in one currency."""

    memory_gib_hour: float
    cpu_hour: float
    latency_hour: float
    charge: str
    """Which memory is paid for: `pss` or `private`."""
    billing: str
    """`average`: freed memory serves someone else; `peak`: the most that was held is paid for all the time; `size`: the
    smallest of `sizes` that holds it is, whatever is used of it. Then memory and processor time have no price of their
    own: both are 0.
    """
    sizes: tuple[Size, ...] = ()
    """From the smallest."""

    @classmethod
    def of(cls, cost: Mapping[str, Any]) -> Prices:
        """From the `cost` of a run's record."""
        sizes = (Size(each["memory"] / BYTES_PER_MIB, each["cpu"], each["hour"]) for each in cost.get("sizes", ()))
        stated = {key: value for key, value in cost.items() if key != "trifle"}  # which is no price
        return cls(**{**stated, "sizes": tuple(sizes)})

    @property
    def loads_from(self) -> str:
        """The page cache, `cold` or `warm`, from which a load is priced. Where mapped pages are paid for until they are
        freed, someone else uses them then; where they are free, or paid for all the time, they are still there.
        """
        return "cold" if self.charge == "pss" and self.billing == "average" else "warm"

    def size_for(self, mib: float, cores: float = 0.0) -> Size | None:
        """The smallest that holds so much and has so many cores; None where none does."""
        return next((size for size in self.sizes if size.memory_mib >= mib and size.cpu >= cores), None)

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
