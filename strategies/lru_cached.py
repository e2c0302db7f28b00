"""Keep the most recently used models, as many as fit."""

from __future__ import annotations

from typing import ClassVar

import pluggy
from pydantic import ByteSize, PositiveInt

DEFAULT_CAPACITY = 2


class LruCached:
    """Keeps the most recently used models: `capacity` of them, or what fits into `memory_budget`.

    By default it keeps two models. A model in use is never evicted, so a request may wait until one is idle.
    """

    name = "lru-cached"
    grid: ClassVar = {"capacity": tuple(1 << exponent for exponent in range(16))}

    def __init__(self, *, capacity: PositiveInt | None = None, memory_budget: ByteSize | None = None) -> None:
        self.capacity = DEFAULT_CAPACITY if capacity is None and memory_budget is None else capacity
        self.memory_budget = memory_budget


@pluggy.HookimplMarker("residency")
def register_strategies() -> list[type[LruCached]]:
    return [LruCached]
