"""Replays requests through a pool, one after the other, and adds up what the strategy pays for them.

Loads and answers take no time, though a load reports how long it would take. So no request shares a load or waits for
memory, and strategies differ only in what they decide.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from ..contracts import UnloadReason
from .copies import Copy, Lease
from .decisions import Decisions
from .limits import start_strategy
from .pool import Pool


class ReplayedModel(NamedTuple):
    """A model with its costs, all in one currency."""

    nbytes: int
    load_seconds: float
    load_cpu_seconds: float
    holding: float
    """m: the cost of a second in memory."""
    cold_start: float
    """k: the cost of a load."""


class Replay:
    """Requests to one strategy, over a pool whose outlet this is. Times are seconds, and must not decrease."""

    def __init__(self, decisions: Decisions, models: Mapping[str, ReplayedModel]) -> None:
        """Start the strategy. Raises ValueError if it cannot start, and what it raises itself."""
        self.loads: Counter[str] = Counter()
        """Of each model, preloads included."""
        self.held: defaultdict[str, float] = defaultdict(float)
        """Seconds in memory, of each model, until it was freed."""
        self.most_bytes = 0
        """The most that were in memory at a time."""
        self._bytes = 0
        self._models = models
        self._decisions = decisions
        sizes = {name: model.nbytes for name, model in models.items()}
        self._pool = Pool(decisions, self, sizes)
        self._to_load: list[Copy] = []
        self._to_close: list[Copy] = []
        self._wake = math.inf
        for model_id in start_strategy(decisions, sizes, sizes):
            self._use(Lease(model_id, "preload"), 0.0, answered=0)

    @property
    def cold_starts(self) -> float:
        """The cost of all loads."""
        return sum(count * self._models[model_id].cold_start for model_id, count in self.loads.items())

    @property
    def holding(self) -> float:
        """The cost of memory, of models that have been freed since."""
        return sum(seconds * self._models[model_id].holding for model_id, seconds in self.held.items())

    def request(self, model_id: str, now: float) -> bool:
        """Answer a request. Returns whether the model had to be loaded for it."""
        self._advance(now)
        before = self.loads[model_id]
        self._decisions.requested(model_id, now)
        self._use(Lease(model_id), now, answered=1)
        return self.loads[model_id] > before

    def due(self, model_id: str) -> float:
        """When the model, which is idle, expires; in the past if it is not in memory."""
        copy = self._pool.copy_of(model_id)
        return -math.inf if copy is None else copy.due

    def end(self, now: float) -> None:
        """Free every model."""
        self._advance(now)
        self._pool.shut_down(now)
        self._settle(now)

    def _advance(self, now: float) -> None:
        """Free the models that expire until now."""
        while self._wake <= now:
            moment, self._wake = self._wake, math.inf
            self._pool.wake(moment)
            self._settle(moment)

    def _use(self, lease: Lease, now: float, answered: int) -> None:
        self._pool.acquire(lease, now)
        self._settle(now)
        if lease.copy is None:
            raise RuntimeError(f"model '{lease.model_id}' waits forever: nothing in memory may be evicted for it")
        self._pool.release(lease, now, answered)
        self._settle(now)

    def _settle(self, now: float) -> None:
        """Load and close at once."""
        while self._to_load or self._to_close:
            while self._to_close:
                copy = self._to_close.pop()
                self._bytes -= copy.nbytes
                self.held[copy.model_id] += now - copy.loaded_at
                self._pool.mark_closed(copy, now)
            while self._to_load:
                copy = self._to_load.pop()
                model = self._models[copy.model_id]
                self.loads[copy.model_id] += 1
                self._bytes += copy.nbytes
                self.most_bytes = max(self.most_bytes, self._bytes)
                self._pool.mark_loaded(copy, now, copy.nbytes, model.load_seconds, model.load_cpu_seconds, 1)

    # What the pool asks.

    def begin_load(self, copy: Copy) -> None:
        self._to_load.append(copy)

    def begin_close(self, copy: Copy, reason: UnloadReason) -> None:
        self._to_close.append(copy)

    def grant(self, lease: Lease) -> None:
        """Nothing waits for it: it is granted at once."""

    def refuse(self, lease: Lease) -> None:
        raise AssertionError("a replayed load does not fail")

    def wake_at(self, moment: float) -> None:
        self._wake = min(self._wake, moment)
