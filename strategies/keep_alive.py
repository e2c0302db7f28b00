"""Load on first use, and free some time after the last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from threading import TIMEOUT_MAX, Condition, Thread
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Literal

import pluggy
from pydantic import ByteSize, Field, NonNegativeFloat

from ._cold_starts import ColdStarts, Prices
from ._pool import Pool

if TYPE_CHECKING:
    from core.contracts import Explanation, Load, Model

DEFAULT_TTL = 300.0  # seconds
Ttl = NonNegativeFloat | Literal["forever", "auto"]
Price = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]  # a number, and no duration


class KeepAlive:
    """Loads a model on first use and frees it `ttl` after its last: `5min`, or seconds, 0, `forever`, or `auto`.

    `auto` keeps each model until holding it has cost as much as its next cold start would, as measured load by load;
    `memory_gib_hour` (of a GiB), `cpu_hour` (of a core) and `latency_hour` (of a caller's waiting) are the prices, in
    one currency. The defaults are AWS Fargate's, and that waiting costs nothing.

    `ttl` may be a mapping by model id; a model that is not in it has 300 seconds. `preload` names models
    that are loaded at start-up, `pin` those that are never freed; with a `memory_budget` the least
    recently used make room before their time.
    """

    name = "keep-alive"
    shares = True

    def __init__(
        self,
        load: Load,
        *,
        ttl: Ttl | dict[str, Ttl] = DEFAULT_TTL,
        preload: Sequence[str] = (),
        pin: Sequence[str] = (),
        memory_budget: ByteSize | None = None,
        memory_gib_hour: Price = 0.004445,
        cpu_hour: Price = 0.04048,
        latency_hour: Price = 0.0,
    ) -> None:
        self._model_ids = load.model_ids
        self._ttl: Mapping[str, Ttl] = ttl if isinstance(ttl, dict) else dict.fromkeys(load.model_ids, ttl)
        self._preload = preload
        self._budget = memory_budget
        self._cold_starts = ColdStarts(load, Prices(memory_gib_hour, cpu_hour, latency_hour))
        self._pool = Pool(self._cold_starts, budget=memory_budget, pinned=pin)
        self._changed = Condition()  # protects `_closed`; wakes the thread that frees
        self._closed = False

    def start(self) -> None:
        for model_id in (*self._ttl, *self._preload):
            if model_id not in self._model_ids:
                raise ValueError(f"there is no model '{model_id}'; models: {', '.join(self._model_ids)}")
        self._pool.check()
        for model_id in self._preload:
            with self.acquire(model_id):
                pass
        Thread(target=self._free_expired, name="keep-alive", daemon=True).start()

    @contextmanager
    def acquire(self, model_id: str) -> Iterator[Model]:
        try:
            with ExitStack() as lease:
                with self._cold_starts.awaited(model_id):
                    model = lease.enter_context(self._pool.lease(model_id))
                yield model
        finally:
            if self._seconds(model_id) == 0:
                self._pool.free(model_id, "expired")
            with self._changed:
                self._changed.notify()

    def preload(self, model_id: str) -> None:
        with self.acquire(model_id):  # its time runs from now
            pass

    def evict(self, model_id: str) -> bool:
        return self._pool.free(model_id, "manual")

    def explain(self, model_id: str) -> Explanation:
        """With a ttl of 0 or `forever` nothing is about to expire; why an `auto` one is as it is."""
        known = self._pool.explain(model_id)
        idle = self._pool.idle()
        ends = {i: since + self._seconds(i) for i, since in idle.items() if 0 < self._seconds(i) < float("inf")}
        if model_id in ends:
            known["expires"] = self._cold_starts.epoch(ends[model_id])
            if self._budget is None and model_id == min(ends, key=lambda i: ends[i]):
                known |= {"next_out": True, "why": "its time is up first"}
        if known and self._of(model_id) == "auto":
            known["why"] = "; ".join(filter(None, (known["why"], self._cold_starts.explain(model_id))))
        return known

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._pool.close()

    def _seconds(self, model_id: str) -> float:
        ttl = self._of(model_id)
        if ttl == "auto":
            return self._cold_starts.seconds(model_id)
        return float("inf") if ttl == "forever" else ttl

    def _of(self, model_id: str) -> Ttl:
        return self._ttl.get(model_id, DEFAULT_TTL)

    def _free_expired(self) -> None:
        """A thread of its own: sleep until the next model's time is up, or something changed."""
        while True:
            with self._changed:
                ends = [since + self._seconds(model_id) for model_id, since in self._pool.idle().items()]
                soonest = min(ends, default=float("inf"))
                if not self._closed and soonest > monotonic():
                    self._changed.wait(min(soonest - monotonic(), TIMEOUT_MAX))
                if self._closed:
                    return
            for model_id in self._pool.idle():
                self._pool.free(model_id, "expired", idle_for=self._seconds(model_id))


@pluggy.HookimplMarker("residency")
def register_strategies() -> list[type[KeepAlive]]:
    return [KeepAlive]
