"""Load a model on first use, and free it when it has been idle for some time."""

from collections.abc import Collection, Mapping, Sequence
from math import inf
from typing import Annotated, Any, ClassVar, Literal

import pluggy
from pydantic import ByteSize, Field, NonNegativeFloat, PositiveInt

from .cold_starts import ColdStarts, Core, Memory, Waiting
from .eviction import Eviction, Rule
from .learned_timeouts import LearnedTimeouts

Ttl = NonNegativeFloat | Literal["forever", "auto", "learned"]
TTL = "How long an idle model stays: `5min`, seconds, `forever`, `auto`, `learned`, or a mapping of these by model id. "
Ttls = Annotated[Ttl | dict[str, Ttl], Field(description=TTL + "A model that is not in the mapping stays 300 seconds.")]
Preload = Annotated[Sequence[str], Field(description="Models to load before the server is ready.")]
Pin = Annotated[Sequence[str], Field(description="Models that always stay in memory.")]
Capacity = Annotated[PositiveInt | None, Field(description="Models in memory at most, those in `pin` included.")]
Budget = Annotated[ByteSize | None, Field(description="Bytes of models in memory at most, such as `512MiB`.")]


class KeepAlive:
    """Loads a model on first use and frees it `ttl` after its last: `5min`, seconds, 0, `forever`, `auto`, `learned`.

    `auto` keeps an idle model until that has cost as much as a cold start, at the given prices or those of the app. The
    cost is at most twice that of a policy that knows the future (ski rental; Karlin et al., 1988). `learned` keeps it
    for the time that would have cost the least so far.
    """

    name = "keep-alive"
    grid: ClassVar = {"ttl": ("auto", "learned", "1s", "10s", "1min", "5min", "15min", "1h", "forever")}

    def __init__(self, *, ttl: Ttls = 300.0, preload: Preload = (), pin: Pin = (), memory_budget: Budget = None,
                 capacity: Capacity = None, evict: Rule = "best", memory_gib_hour: Memory = 0.004445,
                 cpu_hour: Core = 0.04048, latency_hour: Waiting = 0.0) -> None:  # fmt: skip
        self.pinned, self.memory_budget, self.capacity, self._preload = pin, memory_budget, capacity, preload
        self._ttl, self._others = (ttl, 300.0) if isinstance(ttl, dict) else ({}, ttl)
        self._cold_starts = ColdStarts(memory_gib_hour, cpu_hour, latency_hour)
        self._learned = LearnedTimeouts()
        limited = memory_budget is not None or capacity is not None
        self._eviction = Eviction(evict, capacity, memory_budget, pin) if limited else None
        self._learns = "learned" in (self._others, *self._ttl.values())

    def start(self, models: Mapping[str, int]) -> Sequence[str]:
        if unknown := self._ttl.keys() - models.keys():
            raise ValueError(f"there is no model '{min(unknown)}'; models: {', '.join(models)}")
        if self.capacity is not None and self.capacity <= len(self.pinned) < len(models):
            raise ValueError(
                f"'capacity' must be more than {len(self.pinned)}, the number of pinned models, so that others fit"
            )
        if self._eviction is not None:
            self._eviction.start(models)
        self._learned.forget_all_but(models)
        return self._preload

    def requested(self, model_id: str, now: float) -> None:
        if self._learns:
            self._learned.end_gap(model_id, now)
        if self._eviction is not None:
            self._eviction.requested(model_id)

    def loaded(self, model: Any, reason: str, now: float) -> None:
        self._cold_starts.record(model)
        if self._eviction is not None:
            self._eviction.loaded(model.model_id, model.nbytes, self._cold_starts.cost(model.model_id))

    def keep(self, model: Any, now: float) -> float:
        ttl = self._ttl.get(model.model_id, self._others)
        if ttl == "learned":
            return self._learned.begin_gap(model.model_id, self._cold_starts.seconds(model.model_id), now)
        return inf if ttl == "forever" else self._cold_starts.seconds(model.model_id) if ttl == "auto" else ttl

    def evict(self, candidates: Collection[Any], now: float) -> str:
        return self._eviction.choose(candidates) if self._eviction else str(next(iter(candidates)).model_id)

    def explain(self, model: Any, now: float) -> str:
        ttl = self._ttl.get(model.model_id, self._others)
        if ttl not in ("auto", "learned") or model.model_id in self.pinned:
            return ""
        seconds, loads = self._cold_starts.seconds(model.model_id), self._cold_starts.count(model.model_id)
        if seconds == inf:
            return "it stays, since holding it costs nothing"
        if ttl == "learned":
            return self._learned.explain(model.model_id, seconds)
        median = f"median of {loads} loads" if loads > 1 else "of one load"
        return f"its ttl is {seconds:.3g} s, in which holding it costs what a cold start does ({median})"

    def state(self) -> Any:
        return self._learned.state() if self._learns or self._learned.knows_models else None

    def restore(self, state: Any) -> None:
        self._learned.restore(state)


@pluggy.HookimplMarker("residency")
def register_strategies() -> list[type[KeepAlive]]:
    return [KeepAlive]
