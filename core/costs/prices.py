"""Prices, and the two quantities that decide how long to keep a model: m, of holding it, and k, of a cold start."""

from __future__ import annotations

from dataclasses import dataclass

from ..results.economics import PricesUsed, SizePrice
from ..results.header import Billing, Charge, CostSpec
from ..results.recorded import PageCache

MIB_PER_GIB = 1024
BYTES_PER_MIB = 1 << 20
HOUR = 3600.0
FARGATE = {"memory_gib_hour": 0.004445, "cpu_hour": 0.04048}  # the defaults of `cost`, and whose they are


@dataclass(frozen=True)
class Prices:
    """As `cost:` in an experiment states them, in one currency."""

    memory_gib_hour: float
    cpu_hour: float
    latency_hour: float
    charge: Charge
    """Which memory is paid for: `pss` or `private`."""
    billing: Billing
    """`average`: memory is paid for while it is held; `peak`: the most that was held is paid for all the time; `size`:
    the smallest of `sizes` that holds it is paid for, whatever is used of it. Memory and CPU time then have no price of
    their own: both prices are 0.
    """
    sizes: tuple[SizePrice, ...] = ()
    """The smallest first."""

    @classmethod
    def of(cls, cost: CostSpec) -> Prices:
        """As a run states them."""
        return cls(
            memory_gib_hour=cost.memory_gib_hour,
            cpu_hour=cost.cpu_hour,
            latency_hour=cost.latency_hour,
            charge=cost.charge,
            billing=cost.billing,
            sizes=tuple(
                SizePrice(memory_mib=each.memory / BYTES_PER_MIB, cpu=each.cpu, hour=each.hour) for each in cost.sizes
            ),
        )

    @property
    def recorded(self) -> PricesUsed:
        """As summary.json has them."""
        return PricesUsed(
            memory_gib_hour=self.memory_gib_hour,
            cpu_hour=self.cpu_hour,
            latency_hour=self.latency_hour,
            charge=self.charge,
            billing=self.billing,
            sizes=self.sizes,
        )

    @property
    def loads_from(self) -> PageCache:
        """Whether loads are priced from disk (`cold`) or page cache (`warm`).

        If freed mapped pages stop being paid for, others are assumed to reuse them; otherwise they stay cached.
        """
        return "cold" if self.charge == "pss" and self.billing == "average" else "warm"

    def size_for(self, mib: float, cores: float = 0.0) -> SizePrice | None:
        """The smallest size with as much memory and as many cores; None if none has."""
        return next((size for size in self.sizes if size.memory_mib >= mib and size.cpu >= cores), None)

    def holding(self, mib: float) -> float:
        """m: the cost of holding so much memory for a second."""
        return mib / MIB_PER_GIB * self.memory_gib_hour / HOUR

    def processor(self, seconds: float) -> float:
        """The cost of so many core seconds."""
        return seconds * self.cpu_hour / HOUR

    def waiting(self, seconds: float) -> float:
        """The cost of callers who wait for so long in all."""
        return seconds * self.latency_hour / HOUR

    def cold_start(self, *, processor: float, waiting: float, load: float, mib: float) -> float:
        """k: the cost of one cold start: of its extra CPU time, of its callers' waiting, and of the memory that a load
        holds before it can answer (all in seconds).
        """
        return self.processor(processor) + self.waiting(waiting) + self.holding(mib) * load
