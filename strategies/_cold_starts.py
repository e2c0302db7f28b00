"""What a cold start costs and what holding the model costs, each as measured, and the time to live where they meet."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from threading import Lock
from time import perf_counter, process_time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from core.contracts import Load, Model

GIB = 1 << 30
HOUR = 3600.0
LATEST = 5  # loads of a model, whose median counts: a first one finds nothing prepared
Clock = Callable[[], float]


class Prices(NamedTuple):
    """In one currency: of a GiB for an hour, of a core, and of an hour of a caller's waiting."""

    memory_gib_hour: float
    cpu_hour: float
    latency_hour: float


class ColdStarts:
    """`core.contracts.Load` that measures each load on its way.

    Whoever keeps a model for k/m seconds after its last use pays at most twice what he would have, had he known
    when the next request comes (ski rental; Karlin et al., 1988). k is the price of a cold start: of its processor
    time, of those who wait for it, and of the memory that it takes while it lasts. m is the price of holding the
    model's bytes for a second.
    """

    def __init__(
        self, load: Load, prices: Prices, *, clock: Clock = perf_counter, processor: Clock = process_time
    ) -> None:
        self._load = load
        self._prices = prices
        self._clock = clock
        self._processor = processor
        self._lock = Lock()  # protects what stands below
        self._waiting: defaultdict[str, int] = defaultdict(int)
        self._latest: dict[str, deque[float]] = {}  # k/m of each model's latest loads

    @property
    def model_ids(self) -> tuple[str, ...]:
        return self._load.model_ids

    def size(self, model_id: str) -> int:
        return self._load.size(model_id)

    def epoch(self, moment: float) -> float:
        return self._load.epoch(moment)

    def __call__(self, model_id: str) -> Model:
        began, before = self._clock(), self._processor()
        model = self._load(model_id)
        seconds, processor = self._clock() - began, self._processor() - before
        # The clock counts all threads, also those that answer others meanwhile: of one load, at most one core for as
        # long as it took. What a process of its own computes the clock does not see: there it is that core.
        processor = seconds if getattr(model, "own_process", False) else min(processor, seconds)
        with self._lock:
            latest = self._latest.setdefault(model_id, deque(maxlen=LATEST))
            latest.append(self._worth(model.nbytes, seconds, processor, max(1, self._waiting[model_id])))
        return model

    @contextmanager
    def awaited(self, model_id: str) -> Iterator[None]:
        """Someone waits for the model. Whom a batch lets share an acquire is one."""
        with self._lock:
            self._waiting[model_id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._waiting[model_id] -= 1

    def seconds(self, model_id: str) -> float:
        """k/m; infinite until the model was loaded once, and where memory costs nothing."""
        with self._lock:
            return median(self._latest.get(model_id) or [float("inf")])

    def explain(self, model_id: str) -> str:
        seconds, loads = self.seconds(model_id), len(self._latest.get(model_id, ()))
        if seconds == float("inf"):
            return "its ttl is infinite: holding it costs nothing"
        return (
            f"its ttl is {seconds:.3g} s, in which holding it costs as much as a cold start (median of {loads} loads)"
        )

    def _worth(self, nbytes: int, seconds: float, processor: float, waiting: int) -> float:
        """k/m, in seconds."""
        holding = nbytes / GIB * self._prices.memory_gib_hour / HOUR
        if not holding:
            return float("inf")
        cold = (processor * self._prices.cpu_hour + waiting * seconds * self._prices.latency_hour) / HOUR
        return cold / holding + seconds
