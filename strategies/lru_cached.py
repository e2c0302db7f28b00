"""Keep the most recently used models, as many as fit."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import pluggy
from pydantic import ByteSize, PositiveInt

from ._pool import Pool

if TYPE_CHECKING:
    from core.contracts import Explanation, Load, Model

DEFAULT_CAPACITY = 2


class LruCached:
    """Keeps the most recently used models: `capacity` of them, or what fits into `memory_budget`.

    With neither option two models are kept. A model in use is never evicted; a request that finds
    every place in use waits until one is free.
    """

    name = "lru-cached"
    shares = True

    def __init__(
        self, load: Load, *, capacity: PositiveInt | None = None, memory_budget: ByteSize | None = None
    ) -> None:
        if capacity is None and memory_budget is None:
            capacity = DEFAULT_CAPACITY
        self._pool = Pool(load, capacity=capacity, budget=memory_budget)

    def start(self) -> None:
        self._pool.check()

    def acquire(self, model_id: str) -> AbstractContextManager[Model]:
        return self._pool.lease(model_id)

    def preload(self, model_id: str) -> None:
        self._pool.preload(model_id)

    def evict(self, model_id: str) -> bool:
        return self._pool.free(model_id, "manual")

    def explain(self, model_id: str) -> Explanation:
        return self._pool.explain(model_id)

    def close(self) -> None:
        self._pool.close()


@pluggy.HookimplMarker("residency")
def register_strategies() -> list[type[LruCached]]:
    return [LruCached]
