"""A server process under one strategy, simulated event by event.

As in core/serving: each model has a lane, which serves who waits for it in turn; there is one compute slot, and four
loads at most run at a time, beside it. A lane acquires its model, which may load it, or wait for room; then it waits
for the slot, takes a batch of those who wait by then, and lets go of the model. It closes what it evicts before its own
load, and, where a model is freed after each use, that one before it serves the next.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush, heapreplace

import numpy as np

from .draws import draws_of
from .memory import RESIDENT, Memory
from .outcome import Outcome
from .profile import ModelProfile
from .setting import Setting

LOAD_SLOTS = 4  # a served app's, as the next two are
EFFICIENT = 8  # of many that wait, a batch takes half, but not fewer than these
MAX_QUEUE = 128  # requests for one model that are not answered yet; beyond, a served app says 503


class Server:
    """Times in seconds; `models` by index, as in `asked`."""

    def __init__(
        self, setting: Setting, models: Sequence[ModelProfile], timeouts: Sequence[float], max_batch: int, seed: int
    ) -> None:
        count = len(models)
        self._models, self._timeouts = models, timeouts
        self._most = max_batch if setting.shares else 1
        self._warm, self._first, self._load_seconds = draws_of(models, seed)
        self._further = [model.further for model in models]
        self._queues: list[deque[float]] = [deque() for _ in models]
        self._busy = [False] * count  # from the arrival that it serves to its last answer
        self._memory = Memory(setting, models, self._busy)
        self._state = self._memory.state
        self._idle_since = [0.0] * count
        self._loaded_at = [-math.inf] * count  # its latest load
        self._fresh, self._armed = [False] * count, [False] * count  # not used since its load; has an expiry
        self._done = math.inf  # when the slot is free; it and the heaps below end in a time that never comes
        self._running, self._batch = -1, [0.0]
        self._ready: deque[int] = deque()  # lanes that wait for the slot
        self._loads, self._expiries = [(math.inf, -1)], [(math.inf, -1)]
        self._closings = [(math.inf, -1, False)]  # when a lane has closed a model, and whether it was to load its own
        self._loading = 0
        self._load_queue: deque[int] = deque()
        # What comes out.
        self._latencies: list[float] = []
        self._cold = 0
        self._loads_of = [0] * count
        self._work, self._slot_work = [0.0] * count, 0.0
        self._longest = 0
        for model in range(count) if setting.preloads else ():
            self.preload(model)

    def preload(self, model: int) -> None:
        """It is in memory when the first request arrives."""
        self._memory.reserve(model, 0.0)
        self._state[model] = RESIDENT
        self._memory.touch(model)
        self._loads_of[model] += 1
        self._rest(model, 0.0)

    def run(self, at: Sequence[float], asked: Sequence[int]) -> Outcome:
        """Serve requests that arrive at these times, ascending, each for one model."""
        arrivals = [*at, math.inf]
        loads, expiries, closings, queues, busy = self._loads, self._expiries, self._closings, self._queues, self._busy
        answers, sent, total, now = self._latencies, 0, len(asked), 0.0
        while len(answers) < total:
            now = min(arrivals[sent], self._done, loads[0][0], closings[0][0])
            if expiries[0][0] < now:
                self._expire()
            elif self._done == now:
                self._computed(now)
            elif loads[0][0] == now:
                self._loaded(now)
            elif closings[0][0] == now:
                self._closed(now)
            else:
                model = asked[sent]
                sent += 1
                queues[model].append(now)
                if not busy[model]:
                    busy[model] = True
                    self._acquire(model, now)
        return self._outcome(now, asked)

    def _acquire(self, model: int, now: float) -> None:
        if self._memory.limited:
            self._memory.touch(model)
        if self._state[model] == RESIDENT:
            self._compute(model, now)
        elif (empty := self._memory.make_room(model, now)) is not None:
            self._load(model, empty, now)
        else:
            self._memory.wait(model)

    def _load(self, model: int, empty: float, now: float) -> None:
        """Into room that is empty from then on."""
        self._memory.reserve(model, empty)
        if empty > now:
            self._work[model] += empty - now
            heappush(self._closings, (empty, model, True))
        else:
            self._load_queue.append(model)
            self._begin_loads(now)

    def _closed(self, now: float) -> None:
        _, model, to_load = heappop(self._closings)
        if to_load:
            self._load_queue.append(model)
            self._begin_loads(now)
        else:
            self._let_go(model, now)

    def _begin_loads(self, now: float) -> None:
        while self._load_queue and self._loading < LOAD_SLOTS:
            model = self._load_queue.popleft()
            seconds = next(self._load_seconds[model])
            self._loading += 1
            self._work[model] += seconds
            heappush(self._loads, (now + seconds, model))

    def _loaded(self, now: float) -> None:
        _, model = heappop(self._loads)
        self._loading -= 1
        self._begin_loads(now)
        self._state[model], self._loaded_at[model], self._fresh[model] = RESIDENT, now, True
        self._loads_of[model] += 1
        if self._memory.limited:
            self._memory.mark()
        self._compute(model, now)

    def _compute(self, model: int, now: float) -> None:
        if self._done == math.inf:
            self._start(model, now)
        else:
            self._ready.append(model)

    def _start(self, model: int, now: float) -> None:
        """Take those who wait now, and compute them."""
        queue = self._queues[model]
        waiting = len(queue)
        self._longest = max(self._longest, waiting)
        if waiting == 1 or self._most == 1:
            self._batch = [queue.popleft()]
        else:
            size = min(waiting, self._most, max(EFFICIENT, waiting // 2))
            self._batch = [queue.popleft() for _ in range(size)]
        seconds = next(self._first[model] if self._fresh[model] else self._warm[model])
        seconds += (len(self._batch) - 1) * self._further[model]
        self._fresh[model] = False
        self._work[model] += seconds
        self._slot_work += seconds
        self._running, self._done = model, now + seconds

    def _computed(self, now: float) -> None:
        model, loaded = self._running, self._loaded_at[self._running]
        profile = self._models[model]
        for arrival in self._batch:
            if arrival <= loaded:  # a load ran, or began, while it waited
                self._cold += 1
                self._latencies.append(now - arrival + profile.around_cold)
            else:
                self._latencies.append(now - arrival + profile.around)
        self._done = math.inf
        if self._ready:
            self._start(self._ready.popleft(), now)
        self._release(model, now)

    def _release(self, model: int, now: float) -> None:
        """The lane lets go of its model, and acquires it again where others wait for it."""
        more = bool(self._queues[model])
        if more and self._timeouts[model] and not self._memory.leaves(model):
            self._acquire(model, now)
        elif not self._timeouts[model] and (unload := self._models[model].unload):
            self._work[model] += unload
            heappush(self._closings, (now + unload, model, False))
        else:
            self._let_go(model, now)

    def _let_go(self, model: int, now: float) -> None:
        self._rest(model, now)
        if self._queues[model]:
            self._busy[model] = True
            self._acquire(model, now)

    def _rest(self, model: int, now: float) -> None:
        """Nobody uses the model now."""
        self._busy[model] = False
        timeout = self._timeouts[model]
        self._idle_since[model] = now
        if timeout == 0:
            self._memory.free(model, now)
        elif timeout < math.inf and not self._armed[model]:
            self._armed[model] = True
            heappush(self._expiries, (now + timeout, model))
        while (waiter := self._memory.next_in(now)) is not None:
            self._load(*waiter, now)

    def _expire(self) -> None:
        """A model's time is up, unless it was used in the meantime; then its expiry is put off until it is."""
        due, model = self._expiries[0]
        end = self._idle_since[model] + self._timeouts[model]
        if self._state[model] == RESIDENT and not self._busy[model] and end > due:
            heapreplace(self._expiries, (end, model))
            return
        heappop(self._expiries)
        self._armed[model] = False
        if self._state[model] == RESIDENT and not self._busy[model]:
            self._memory.free(model, due)

    def _outcome(self, now: float, asked: Sequence[int]) -> Outcome:
        for model, state in enumerate(self._state):
            if state == RESIDENT:
                self._memory.free(model, now)
        busiest = max(self._slot_work, *self._work)
        return Outcome(
            latencies=np.array(self._latencies),
            requests=np.bincount(asked, minlength=len(self._models)).tolist(),
            cold=self._cold,
            loads=self._loads_of,
            seconds=now,
            mib_seconds=self._memory.mib_seconds,
            peak_mib=self._memory.peak,
            busy=busiest / now if now else 0.0,
            exceeded=self._longest > MAX_QUEUE,
        )
