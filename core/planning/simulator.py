"""A server process under one strategy, simulated event by event: the strategy itself, over the pool of a served app.

As in core/serving: each model has a lane, which serves who waits for it in turn; there is one compute slot, and four
loads at most run at a time, beside it. A lane waits for a lease of its model, which may be loaded for that, or wait for
room; then it waits for the slot, takes a batch of those who wait by then, and releases the model. What its events make
the pool close, it closes before it goes on.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush

from ..contracts import UnloadReason
from ..residency.copies import Copy, Lease
from ..residency.decisions import Decisions
from ..residency.limits import start_strategy
from ..residency.pool import Pool
from .draws import draws_of
from .outcome import Outcome
from .profile import ModelProfile
from .tally import Tally

LOAD_SLOTS = 4  # a served app's, as the next one is
EFFICIENT = 8  # of many that wait, a batch takes half, but not fewer than these
BEFORE = -1e-9  # seconds: what is preloaded is there when the first request arrives
NOBODY = -1
NO_COPY = Copy("", 0, "request", 0.0)


class _Closing:
    """What a lane, or the thread of expiries, has to close: the first is on its way."""

    def __init__(self, lane: int, copies: deque[Copy] | None = None) -> None:
        self.lane = lane
        self.copies = deque() if copies is None else copies


class Server(Tally):
    """Times in seconds; models by index, as in `asked`. It is the pool's outlet."""

    def __init__(
        self, decisions: Decisions, names: Sequence[str], models: Sequence[ModelProfile], max_batch: int, seed: int
    ) -> None:
        self._set_up(decisions, max_batch)
        for name, model, *draws in zip(names, models, *draws_of(models, seed), strict=True):
            self.add(name, model, *draws)
        sizes = {name: model.nbytes for name, model in zip(names, models, strict=True)}
        for name in start_strategy(decisions, sizes, sizes):
            self.preload(self._index[name])

    def _set_up(self, decisions: Decisions, max_batch: int) -> None:
        """Begin without a model."""
        Tally.__init__(self, decisions)
        self._pool = Pool(decisions, self, {})
        self._is_shared = decisions.shared
        self._most = max_batch if decisions.shared else 1
        self._index: dict[str, int] = {}
        self._load_s: list[float] = []
        self._load_cpu: list[float] = []
        self._warm: list[Iterator[float]] = []
        self._first: list[Iterator[float]] = []
        self._load_seconds: list[Iterator[float]] = []
        self._further: list[float] = []
        self._mosts: list[int] = []  # requests of a batch
        self._unload: list[float] = []
        self._around: list[tuple[float, float]] = []
        self._busy: list[bool] = []  # from the arrival that a lane serves to its last answer
        self._leases: list[Lease] = []  # each lane's
        self._now, self._wake = BEFORE, math.inf
        # The heaps end in a time that never comes.
        self._ready: deque[int] = deque()  # lanes that wait for the slot
        self._loads: list[tuple[float, int, Copy, float]] = [(math.inf, 0, NO_COPY, 0.0)]  # the last are seconds
        self._closings: list[tuple[float, int, _Closing]] = [(math.inf, 0, _Closing(NOBODY))]
        self._deferred: dict[int, Copy] = {}  # loads of lanes that close other models at this moment
        self._is_closing: set[int] = set()  # lanes, or the thread of expiries
        self._released: set[int] = set()  # lanes that serve the next ones when they have closed what they had to
        self._timer_free = BEFORE
        self._number = 0  # of entries in them, so that copies are never compared
        self._loading = 0
        self._load_queue: deque[Copy] = deque()
        self._to_close: deque[Copy] = deque()

    def add(
        self, name: str, model: ModelProfile, warm: Iterator[float], first: Iterator[float], load: Iterator[float]
    ) -> int:
        """Serve one model more, whose seconds are drawn from these; returns its index."""
        index = self._index[name] = len(self._index)
        self._count_model(model.mib, model.weights_mib)
        self._pool.sizes[name] = model.nbytes
        self._load_s.append(model.load_s)
        self._load_cpu.append(model.load_cpu)
        self._warm.append(warm)
        self._first.append(first)
        self._load_seconds.append(load)
        self._further.append(model.further)
        self._mosts.append(model.parallel if model.parallel and self._is_shared else self._most)
        self._unload.append(model.unload)
        self._around.append((model.around, model.around_cold))
        self._busy.append(False)
        self._leases.append(Lease(name, "request", index))
        return index

    def preload(self, model: int, answered: int = 0) -> None:
        """It has been loaded when the first request arrives, and has answered so many."""
        lease = Lease(self._leases[model].model_id, "preload", NOBODY)
        self._pool.acquire(lease, BEFORE)
        self._at_once()
        if lease.copy is not None:
            self._pool.release(lease, BEFORE, answered)
            self._at_once()

    def _at_once(self) -> None:
        """Load and close in no time."""
        while self._load_queue or self._to_close:
            while self._to_close:
                self._gone(self._to_close.popleft(), BEFORE)
            while self._load_queue:
                copy = self._load_queue.popleft()
                self._in_memory(copy, self._load_s[copy.model], BEFORE)

    def run(self, at: Sequence[float], asked: Sequence[int]) -> Outcome:
        """Serve requests that arrive at these times, ascending, each for one model."""
        arrivals, total = [*at, math.inf], len(asked)
        middle = total // 2
        if middle:
            self._end_half(self._serve(arrivals, asked, 0, middle, total), asked[:middle])
        return self._outcome(self._serve(arrivals, asked, middle, total, total), asked)

    def _serve(self, arrivals: Sequence[float], asked: Sequence[int], sent: int, stop: int, total: float) -> float:
        """Do all that happens from the arrival of request number `sent` until that of number `stop`, which has a time
        and need not exist, or until `total` requests are answered; returns the time of that.
        """
        loads, closings, queues, busy = self._loads, self._closings, self._queues, self._busy
        answers, now = self._latencies, 0.0
        hears, acquire, leases = self._decisions.observes_requests, self._pool.acquire, self._leases
        while len(answers) < total:
            now, done, loaded, closed = arrivals[sent], self._done, loads[0][0], closings[0][0]
            if done < now:
                now = done
            if loaded < now:
                now = loaded
            if closed < now:
                now = closed
            wake = self._wake
            if wake < now and NOBODY not in self._is_closing and (wake := max(wake, self._timer_free)) < now:
                self._expire(wake)
            elif done == now:
                self._computed(now)
            elif loaded == now:
                self._loaded(now)
            elif closed == now:
                self._closed(now)
            elif sent == stop:
                break
            else:
                model = asked[sent]
                sent += 1
                queues[model].append(now)
                if hears:
                    self._decisions.requested(leases[model].model_id, now)
                if not busy[model]:  # as in _acquire, at once
                    busy[model] = True
                    self._now = now
                    acquire(leases[model], now)
                    if self._to_close or self._load_queue:
                        self._go_on(model, now)
        return now

    # The pool's outlet.

    def grant(self, lease: Lease) -> None:
        model = lease.owner
        if model == NOBODY:
            return
        if self._done == math.inf:
            self._start(model, self._now)
        else:
            self._ready.append(model)

    def refuse(self, lease: Lease) -> None:
        raise AssertionError("a simulated load does not fail")

    def begin_load(self, copy: Copy) -> None:
        copy.model = model = self._index[copy.model_id]
        now = self._now
        self._copies_of[model] += 1
        self._mib_seconds_of[model] -= self._mib[model] * now
        self._held += self._mib[model]
        if self._held > self._peak:
            self._peak = self._held
        self._weights_held += self._weights_mib[model]
        if self._weights_held > self._weights_peak:
            self._weights_peak = self._weights_held
        if self._is_closing and (lane := copy.waiting[0].owner) in self._is_closing:
            self._deferred[lane] = copy
        elif self._to_close or self._load_queue or self._loading == LOAD_SLOTS or now == BEFORE:
            self._load_queue.append(copy)
        else:
            self._load(copy, now)

    def begin_close(self, copy: Copy, reason: UnloadReason) -> None:
        self._to_close.append(copy)

    def wake_at(self, moment: float) -> None:
        self._wake = moment

    # What happens.

    def _acquire(self, model: int, now: float) -> None:
        self._now = now
        self._pool.acquire(self._leases[model], now)
        if self._to_close or self._load_queue:
            self._go_on(model, now)

    def _go_on(self, lane: int, now: float) -> bool:
        """Close what an event of the lane has made the pool close, and begin loads; whether the lane is done."""
        copies = self._to_close
        while copies and not self._unload[copies[0].model]:
            left = len(copies) - 1
            self._gone(copies.popleft(), now)
            copies.rotate(len(copies) - left)  # what that makes necessary comes first
        if not copies:
            if self._load_queue:
                self._begin_loads(now)
            return True
        self._to_close = deque()
        return self._close_next(_Closing(lane, copies), now)

    def _close_next(self, closing: _Closing, now: float) -> bool:
        """As a thread does: one after the other, what one closing makes necessary before the next one."""
        copies = closing.copies
        while copies:
            seconds = self._unload[copies[0].model]
            if seconds:
                self._is_closing.add(closing.lane)
                if closing.lane != NOBODY:
                    self._work[closing.lane] += seconds
                self._number += 1
                heappush(self._closings, (now + seconds, self._number, closing))
                break
            self._gone(copies.popleft(), now)
            if self._to_close:
                copies.extendleft(reversed(self._to_close))
                self._to_close.clear()
        else:
            if self._is_closing:
                self._is_closing.discard(closing.lane)
                if (copy := self._deferred.pop(closing.lane, None)) is not None:
                    self._load_queue.append(copy)
        if self._load_queue:
            self._begin_loads(now)
        return not copies

    def _begin_loads(self, now: float) -> None:
        while self._load_queue and self._loading < LOAD_SLOTS:
            self._load(self._load_queue.popleft(), now)

    def _load(self, copy: Copy, now: float) -> None:
        model = copy.model
        seconds = next(self._load_seconds[model])
        self._loading += 1
        self._work[model] += seconds
        self._number += 1
        heappush(self._loads, (now + seconds, self._number, copy, seconds))

    def _gone(self, copy: Copy, now: float) -> None:
        model = copy.model
        self._copies_of[model] -= 1
        self._mib_seconds_of[model] += self._mib[model] * now
        self._held -= self._mib[model]
        self._weights_held -= self._weights_mib[model]
        self._pool.mark_closed(copy, now)

    def _closed(self, now: float) -> None:
        _, _, closing = heappop(self._closings)
        self._now = now
        self._gone(closing.copies.popleft(), now)
        closing.copies.extendleft(reversed(self._to_close))
        self._to_close.clear()
        if not self._close_next(closing, now):
            return
        if closing.lane == NOBODY:
            self._timer_free = now
        elif closing.lane in self._released:
            self._released.discard(closing.lane)
            self._next(closing.lane, now)

    def _loaded(self, now: float) -> None:
        _, _, copy, seconds = heappop(self._loads)
        self._loading -= 1
        self._in_memory(copy, seconds, now)
        if self._to_close or self._load_queue:
            self._go_on(copy.model, now)

    def _in_memory(self, copy: Copy, seconds: float, now: float) -> None:
        model = copy.model
        self._loads_of[model] += 1
        self._now = now
        self._pool.mark_loaded(copy, now, copy.nbytes, seconds, self._load_cpu[model], len(self._queues[model]))

    def _start(self, model: int, now: float) -> None:
        """Take those who wait now, and compute them."""
        queue, copy = self._queues[model], self._leases[model].copy
        assert copy is not None
        is_first = copy.uses == 0 and copy.loaded_at > BEFORE
        seconds = next(self._first[model] if is_first else self._warm[model])
        waiting = len(queue)
        if waiting > self._longest:
            self._longest = waiting
        most = self._mosts[model]
        if waiting == 1 or most == 1:
            self._batch = [queue.popleft()]
        else:
            size = min(waiting, most, max(EFFICIENT, waiting // 2))
            self._batch = [queue.popleft() for _ in range(size)]
            seconds += (size - 1) * self._further[model]
        self._work[model] += seconds
        self._slot_work += seconds
        self._running, self._done = model, now + seconds

    def _computed(self, now: float) -> None:
        model, batch, latencies = self._running, self._batch, self._latencies
        lease = self._leases[model]
        assert lease.copy is not None
        loaded_at, (around, around_cold) = lease.copy.loaded_at, self._around[model]
        for arrival in batch:
            if loaded_at >= arrival:  # a load that takes no time ends when its request arrives
                self._cold += 1
                if self._loads_of[model] == 1:
                    self._at_first.append(len(latencies))
                latencies.append(now - arrival + around_cold)
            else:
                latencies.append(now - arrival + around)
        self._done, self._now, answered = math.inf, now, len(batch)
        if self._ready:
            self._start(self._ready.popleft(), now)
        self._pool.release(lease, now, answered)
        if (self._to_close or self._load_queue) and not self._go_on(model, now):
            self._released.add(model)  # it goes on when it has closed what it had to
        elif self._queues[model]:
            self._acquire(model, now)
        else:
            self._busy[model] = False

    def _next(self, lane: int, now: float) -> None:
        """The lane serves those who came meanwhile."""
        if self._queues[lane]:
            self._acquire(lane, now)
        else:
            self._busy[lane] = False

    def _expire(self, now: float) -> None:
        self._wake, self._now = math.inf, now
        self._pool.wake(now)
        if self._to_close:
            self._go_on(NOBODY, now)
