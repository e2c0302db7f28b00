"""Load a model on first use, and free it when it has been idle for some time."""

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from math import inf
from statistics import median
from typing import Annotated, Any, ClassVar, Literal

import pluggy
from pydantic import ByteSize, Field, NonNegativeFloat

Ttl = NonNegativeFloat | Literal["forever", "auto"]
TTL = "How long an idle model stays: `5min`, seconds, `forever` or `auto`, or a mapping of these by model id. "
Ttls = Annotated[Ttl | dict[str, Ttl], Field(description=TTL + "A model that is not in the mapping stays 300 seconds.")]
Preload = Annotated[Sequence[str], Field(description="Models to load before the server is ready.")]
Pin = Annotated[Sequence[str], Field(description="Models that always stay in memory.")]
Budget = Annotated[ByteSize | None, Field(description="Bytes of models in memory at most, such as `512MiB`.")]
Price = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Memory = Annotated[Price, Field(description="For `auto`: the price of a GiB for an hour. If left out, that of `cost`.")]
Core = Annotated[Price, Field(description="For `auto`: the price of a core for an hour. If left out, that of `cost`.")]
WAITING = "For `auto`: what an hour of callers' waiting is worth. If left out, what `cost` says."
Waiting = Annotated[Price, Field(description=WAITING)]


class KeepAlive:
    """Loads a model on first use and frees it `ttl` after its last: `5min`, or seconds, 0, `forever`, or `auto`.

    `auto` keeps an idle model until that has cost as much as a cold start, at the given prices or those of the app. The
    cost is at most twice that of a policy that knows the future (ski rental; Karlin et al., 1988).
    """

    name = "keep-alive"
    grid: ClassVar = {"ttl": ("auto", "1s", "10s", "1min", "5min", "15min", "1h", "forever")}

    def __init__(self, *, ttl: Ttls = 300.0, preload: Preload = (), pin: Pin = (), memory_budget: Budget = None,
                 memory_gib_hour: Memory = 0.004445, cpu_hour: Core = 0.04048,
                 latency_hour: Waiting = 0.0) -> None:  # fmt: skip
        self.pinned, self.memory_budget, self._preload = pin, memory_budget, preload
        self._ttl, self._others = (ttl, 300.0) if isinstance(ttl, dict) else ({}, ttl)
        self._byte, self._core, self._waiting = memory_gib_hour / (1 << 30), cpu_hour, latency_hour
        self._worths: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=5))  # TTLs of the last loads

    def start(self, models: Mapping[str, int]) -> Sequence[str]:
        if unknown := self._ttl.keys() - models.keys():
            raise ValueError(f"there is no model '{min(unknown)}'; models: {', '.join(models)}")
        return self._preload

    def loaded(self, model: Any, reason: str, now: float) -> None:
        waited = max(1, model.load_waiters) * model.load_seconds
        load, holding = model.load_cpu_seconds * self._core + waited * self._waiting, model.nbytes * self._byte
        self._worths[model.model_id].append(load / holding + model.load_seconds if holding else inf)

    def keep(self, model: Any, now: float) -> float:
        ttl = self._ttl.get(model.model_id, self._others)
        return inf if ttl == "forever" else median(self._worths[model.model_id]) if ttl == "auto" else ttl

    def explain(self, model: Any, now: float) -> str:
        if self._ttl.get(model.model_id, self._others) != "auto":
            return ""
        seconds, loads = self.keep(model, now), len(self._worths[model.model_id])
        if seconds == inf:
            return "it stays, since holding it costs nothing"
        return f"its ttl is {seconds:.3g} s, in which holding it costs what a cold start does (median of {loads} loads)"


@pluggy.HookimplMarker("residency")
def register_strategies() -> list[type[KeepAlive]]:
    return [KeepAlive]
