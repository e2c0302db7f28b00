"""A server simulated the slow and obvious way, as core/serving reads: lanes are coroutines that wait for conditions,
all of which are looked at again whenever anything has happened. Times are constants; all models are alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

Step = Iterator["float | Callable[[], bool]"]  # what it yields is waited for: a time, or a condition


@dataclass
class SlowServer:
    """`timeout` and `capacity` may be infinite; without `batched`, each request is computed by itself."""

    service: float
    further: float
    load: float
    unload: float
    timeout: float
    capacity: float
    batched: bool
    now: float = 0.0
    latencies: list[float] = field(default_factory=list)
    cold: int = 0
    loads: int = 0
    held: float = 0.0  # models × seconds
    closing: float = 0.0  # seconds that the latest eviction takes

    def run(self, arrivals: Sequence[tuple[float, int]], models: int) -> list[float]:
        """The latencies."""
        self.queues: list[list[float]] = [[] for _ in range(models)]
        self.serving = [False] * models
        self.lent = [False] * models
        self.since: dict[int, float] = {}  # models in memory, or on their way there
        self.loaded: dict[int, float] = {}  # those that are there
        self.latest = [-1.0] * models  # load
        self.uses = [0] * models
        self.order: list[int] = []  # of all models ever used; the least recently used first
        self.slot: list[int] = []  # the first one has it
        self.loading: list[int] = []  # four have it
        self.room: list[int] = []
        self.leaving: dict[int, int] = {}  # by who waits: a model that goes for it
        self.waiting: list[tuple[float | Callable[[], bool], Step]] = []
        self._spawn(self._clients(arrivals))
        while len(self.latencies) < len(arrivals):
            self._next()
        self.held += sum(self.now - since for since in self.since.values())
        return self.latencies

    def _spawn(self, steps: Step) -> None:
        for condition in steps:
            if not (callable(condition) and condition()):
                self.waiting.append((condition, steps))
                return

    def _next(self) -> None:
        for entry in self.waiting:
            if callable(entry[0]) and entry[0]():
                self.waiting.remove(entry)
                self._spawn(entry[1])
                return
        self.now, index = min((e[0], i) for i, e in enumerate(self.waiting) if not callable(e[0]))
        self._spawn(self.waiting.pop(index)[1])

    def _clients(self, arrivals: Sequence[tuple[float, int]]) -> Step:
        for at, model in arrivals:
            yield at
            self.queues[model].append(at)
            if not self.serving[model]:
                self.serving[model] = True
                self._spawn(self._lane(model))

    def _lane(self, model: int) -> Step:
        queue = self.queues[model]
        while queue:
            yield from self._acquire(model)
            self.slot.append(model)
            yield lambda: self.slot[0] == model
            size = min(len(queue), 32, max(8, len(queue) // 2)) if self.batched else 1
            batch = [queue.pop(0) for _ in range(size)]
            yield self.now + self.service + (size - 1) * self.further
            self.latencies += [self.now - arrival for arrival in batch]
            self.cold += sum(arrival <= self.latest[model] for arrival in batch)
            self.slot.pop(0)
            if self.timeout == 0:
                yield self.now + self.unload
            self.lent[model] = False
            if self.timeout == 0:
                self._free(model)
        self.serving[model] = False
        if 0 < self.timeout < float("inf"):
            self._spawn(self._expiry(model, self.uses[model]))

    def _expiry(self, model: int, uses: int) -> Step:
        yield self.now + self.timeout
        if model in self.loaded and self.uses[model] == uses:
            self._free(model)

    def _acquire(self, model: int) -> Step:
        yield lambda: model not in self.leaving.values()
        self.uses[model] += 1
        if model in self.order:
            self.order.remove(model)
        self.order.append(model)
        if model not in self.loaded:
            self.room.append(model)
            yield lambda: self.room[0] == model and self._makes_room()
            self.room.pop(0)
            self.leaving.pop(model, None)
            self.since[model] = self.now + self.closing
            yield self.since[model]
            self.loading.append(model)
            yield lambda: model in self.loading[:4]
            yield self.now + self.load
            self.loading.remove(model)
            self.loaded[model] = self.latest[model] = self.now
            self.loads += 1
        self.lent[model] = True

    def _makes_room(self) -> bool:
        self.closing = 0.0
        if len(self.since) < self.capacity:
            return True
        idle = [model for model in self.order if model in self.loaded and not self.lent[model]]
        if idle:
            self.closing = self.unload
            self._free(idle[0], after=self.unload)
            return True
        for waiter in self.room:
            marked = self.leaving.values()
            lent = [model for model in self.order if model in self.loaded and model not in marked]
            if lent and waiter not in self.leaving:
                self.leaving[waiter] = lent[0]
        return False

    def _free(self, model: int, after: float = 0.0) -> None:
        self.held += self.now + after - self.since.pop(model)
        del self.loaded[model]
        self.leaving = {waiter: marked for waiter, marked in self.leaving.items() if marked != model}
