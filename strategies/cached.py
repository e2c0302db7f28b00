"""Keep as many models as fit, and evict by the rule that would have cost the least so far."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, ClassVar

import pluggy
from pydantic import ByteSize, Field, PositiveInt

from .cold_starts import ColdStarts, Core, Memory, Waiting
from .eviction import Eviction, Rule

DEFAULT_CAPACITY = 2
Capacity = Annotated[PositiveInt | None, Field(description="Models in memory at most. 2, if neither option is given.")]
Budget = Annotated[ByteSize | None, Field(description="Bytes of models in memory at most, such as `512MiB`.")]


class Cached:
    """Keeps as many models as fit, and evicts by the best of three rules: LRU, SIEVE and aged GDSF.

    Each rule is simulated on the requests, and the one whose cold starts would have cost the least is followed. A model
    in use is never evicted, so a request may wait until one is idle.
    """

    name = "cached"
    grid: ClassVar = {"capacity": tuple(1 << exponent for exponent in range(16))}

    def __init__(self, *, capacity: Capacity = None, memory_budget: Budget = None, evict: Rule = "best",
                 memory_gib_hour: Memory = 0.004445, cpu_hour: Core = 0.04048,
                 latency_hour: Waiting = 0.0) -> None:  # fmt: skip
        self.capacity = DEFAULT_CAPACITY if capacity is None and memory_budget is None else capacity
        self.memory_budget = memory_budget
        self._cold_starts = ColdStarts(memory_gib_hour, cpu_hour, latency_hour)
        self._eviction = Eviction(evict, self.capacity, memory_budget)

    def start(self, models: Mapping[str, int]) -> Collection[str]:
        self._eviction.start(models)
        return ()

    def requested(self, model_id: str, now: float) -> None:
        self._eviction.requested(model_id)

    def loaded(self, model: Any, reason: str, now: float) -> None:
        self._cold_starts.record(model)
        self._eviction.loaded(model.model_id, model.nbytes, self._cold_starts.cost(model.model_id))

    def evict(self, candidates: Collection[Any], now: float) -> str:
        return self._eviction.choose(candidates)


@pluggy.HookimplMarker("residency")
def register_strategies() -> list[type[Cached]]:
    return [Cached]
