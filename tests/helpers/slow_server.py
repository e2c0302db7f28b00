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

    def run(self, arrivals: Sequence[tuple[float, int]], models: int) -> list[float]:
        """The latencies."""
        self.queues: list[list[float]] = [[] for _ in range(models)]
        self.serving = [False] * models
        self.lent = [False] * models
        self.since: dict[object, float] = {}  # copies in memory, on their way there, or being closed
        self.loaded: dict[int, object] = {}  # those that a request would get, by their models
        self.latest = [-1.0] * models  # load
        self.uses = [0] * models
        self.order: list[int] = []  # of all models ever loaded; the least recently used first
        self.slot: list[int] = []  # the first one has it
        self.loading: list[int] = []  # four have it
        self.line: list[int] = []  # for whom no room was found yet
        self.promised: list[int] = []  # for whom it was, though it may not have come yet
        self.staying = 0  # models in memory that do not go, or that room was found for
        self.leaving: set[int] = set()  # models that go when they are no longer lent
        self.due: list[tuple[int, int]] = []  # models whose time is up, and of which use it was counted
        self.expiring = False
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
            self._used(model)
            self.lent[model] = False
            if self.timeout == 0 or model in self.leaving:
                yield from self._close([self._taken(model), *self._find_room()])
            else:
                yield from self._close(self._find_room())
        self.serving[model] = False
        if 0 < self.timeout < float("inf"):
            self._spawn(self._expiry(model, self.uses[model]))

    def _expiry(self, model: int, uses: int) -> Step:
        yield self.now + self.timeout
        self.due.append((model, uses))
        if not self.expiring:
            self.expiring = True
            self._spawn(self._timer())

    def _timer(self) -> Step:
        """The thread of expiries: it looks again when it has closed what was due."""
        while self.due:
            due, self.due = self.due, []
            unused = [model for model, uses in due if model in self.loaded and self.uses[model] == uses]
            yield from self._close([*map(self._taken, unused), *self._find_room()])
        self.expiring = False

    def _used(self, model: int) -> None:
        if model in self.order:
            self.order.remove(model)
        self.order.append(model)

    def _acquire(self, model: int) -> Step:
        self.uses[model] += 1
        if model not in self.loaded:
            copy = object()
            self.line.append(model)
            yield from self._close(self._find_room())
            yield lambda: self.promised[:1] == [model] and len(self.since) < self.capacity
            self.promised.pop(0)
            self.since[copy] = self.now
            self.loading.append(model)
            yield lambda: model in self.loading[:4]
            yield self.now + self.load
            self.loading.remove(model)
            self.loaded[model] = copy
            self.latest[model] = self.now
            self.loads += 1
            self._used(model)
            self.lent[model] = True
            yield from self._close(self._find_room())
        self.lent[model] = True

    def _find_room(self) -> list[object]:
        """For those in line, in their order; what is to be closed for them."""
        going = []
        while self.line:
            if self.staying < self.capacity:
                self.staying += 1
                self.promised.append(self.line.pop(0))
                continue
            there = [model for model in self.order if model in self.loaded and model not in self.leaving]
            if idle := [model for model in there if not self.lent[model]]:
                going.append(self._taken(idle[0]))
            elif there:
                self.leaving.add(there[0])
                self.staying -= 1
            else:
                break
        return going

    def _taken(self, model: int) -> object:
        """Nobody gets the copy any more."""
        if model not in self.leaving:
            self.staying -= 1
        self.leaving.discard(model)
        return self.loaded.pop(model)

    def _close(self, copies: list[object]) -> Step:
        while copies:
            if self.unload:
                yield self.now + self.unload
            copy, *copies = copies
            self.held += self.now - self.since.pop(copy)
            copies = [*self._find_room(), *copies]
