"""Keep the most recently used models, as many as fit."""

from __future__ import annotations

from typing import Annotated, ClassVar

import pluggy
from pydantic import ByteSize, Field, PositiveInt

DEFAULT_CAPACITY = 2
Capacity = Annotated[PositiveInt | None, Field(description="Models in memory at most. 2, if neither option is given.")]
Budget = Annotated[ByteSize | None, Field(description="Bytes of models in memory at most, such as `512MiB`.")]


class LruCached:
    """Keeps the most recently used models: `capacity` of them, or what fits into `memory_budget`.

    By default it keeps two models. A model in use is never evicted, so a request may wait until one is idle.
    """

    name = "lru-cached"
    grid: ClassVar = {"capacity": tuple(1 << exponent for exponent in range(16))}

    def __init__(self, *, capacity: Capacity = None, memory_budget: Budget = None) -> None:
        self.capacity = DEFAULT_CAPACITY if capacity is None and memory_budget is None else capacity
        self.memory_budget = memory_budget


@pluggy.HookimplMarker("residency")
def register_strategies() -> list[type[LruCached]]:
    return [LruCached]
