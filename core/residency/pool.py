"""What is in memory, and who may use it: a state machine without thread, lock or clock.

Events come in as calls; what is to be done goes out through an `Outlet`: begin to load, begin to close, a lease is
granted or refused, come back at that time. A server wraps the pool in a lock and a timer, a simulation in a heap.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping

from ..contracts import LoadReason, UnloadReason
from .copies import Copy, Lease, Outlet, State
from .decisions import Candidates, Decisions
from .expiries import Expiries
from .room import Room

FAILURE_SECONDS = 1.0  # for so long a failed load answers for the next ones
CLOSED = "this pool is closed"


class Pool:
    """Lends models out, loads each once however many ask for it, and keeps what its strategy keeps.

    It never holds more than the strategy's capacity and budget: what a load will take is reserved before it begins,
    what an evicted model took is given back after it is closed. Who finds no room waits in line.
    """

    def __init__(self, decisions: Decisions, outlet: Outlet, sizes: Mapping[str, int]) -> None:
        """`sizes` are bytes by model id, of all models that can be asked for and whose size can be read."""
        self._outlet = outlet
        self.sizes = dict(sizes)
        self._room = Room(decisions)
        self._take(decisions)
        self._copies: dict[str, Copy] = {}  # of a strategy that shares: the one that a request would join
        self._own: dict[Copy, None] = {}  # of one that does not
        self._idle: dict[str, Copy] = {}  # that may go, by `last_used`
        self._candidates = Candidates(self._idle)
        self._line: deque[Copy] = deque()  # that wait for room
        self._promised: deque[Copy] = deque()  # that wait for those that go for them to be closed
        self._expiries = Expiries()
        self._failures: dict[str, tuple[BaseException, float]] = {}  # and until when they answer for others
        self._crashed: set[str] = set()  # models whose next load is owed to a crash
        self._is_finding = False  # room, at this moment
        self._closed = False

    def _take(self, decisions: Decisions) -> None:
        self._decide = decisions
        self._shared = decisions.shared
        self._pinned = decisions.pinned
        self._is_limited = decisions.is_limited
        self._room.limit(decisions)

    def expect(self, sizes: Mapping[str, int]) -> None:
        """Models of these sizes can be asked for; what is in memory has been measured."""
        self.sizes.update((model_id, nbytes) for model_id, nbytes in sizes.items() if model_id not in self._copies)

    def decide_by(self, decisions: Decisions, now: float) -> None:
        """Go by other decisions from now on; what is in memory stays as far as they keep it."""
        self._take(decisions)
        for copy in self.residents():
            decisions.loaded(copy, copy.reason, now)
        for copy in sorted(self.residents(), key=lambda copy: copy.last_used):
            if copy.state is State.RESIDENT and not copy.leases:  # none of those before has had it evicted
                self._idle.pop(copy.model_id, None)
                self._rest(copy, now)
        self._keep_within(now)
        self._find_room(now)

    def remove(self, model_id: str, now: float) -> None:
        """Nobody will ask for the model any more: free it, now or when its last lease ends."""
        self.sizes.pop(model_id, None)
        self._failures.pop(model_id, None)
        for copy in self._of(model_id):
            if copy.state is State.RESIDENT and not copy.leases:
                self._unload(copy, "removed", now)
            elif copy.leaving is None and copy.state is not State.WAITING:
                self._name(copy, "removed")

    def residents(self) -> list[Copy]:
        """What is in memory, the oldest first."""
        found = (copy for copies in (self._copies.values(), self._own) for copy in copies)
        return sorted((c for c in found if c.state is State.RESIDENT), key=lambda copy: copy.loaded_at)

    def copy_of(self, model_id: str) -> Copy | None:
        """The copy that a request for the model would join."""
        return self._copies.get(model_id)

    def waiting(self, model_id: str) -> int:
        """Leases of the model that are not granted yet."""
        return sum(len(copy.waiting) + len(copy.later) for copy in self._of(model_id))

    def is_loading(self, model_id: str) -> bool:
        return any(copy.state is State.LOADING for copy in self._of(model_id))

    def _of(self, model_id: str) -> list[Copy]:
        joined = [self._copies[model_id]] if model_id in self._copies else []
        return joined + [copy for copy in self._own if copy.model_id == model_id]

    def next_out(self, now: float) -> str | None:
        """Which model would go if room were needed now, or, where nothing limits the memory, whose time is up first."""
        if self._is_limited:
            return self._decide.evict(self._candidates, now) if self._idle else None
        ends = {copy.due: model_id for model_id, copy in self._idle.items() if copy.due < math.inf}
        return ends[min(ends)] if ends else None

    def acquire(self, lease: Lease, now: float) -> None:
        """Grant the lease now, or when its model is in memory; or refuse it."""
        copy = self._copies.get(lease.model_id) if self._shared else None
        if copy is None:
            self._miss(lease, now)
        elif copy.leaving is not None:
            copy.later = [*copy.later, lease]
        elif copy.state is State.RESIDENT:
            self._lend(copy, lease)
        else:
            copy.waiting.append(lease)

    def release(self, lease: Lease, now: float, answered: int = 1, nbytes: int | None = None) -> None:
        """The lease ends, and with it as many requests as were answered. `nbytes` is what the model takes now."""
        copy = lease.copy
        assert copy is not None
        copy.leases -= 1
        if answered:
            copy.uses += answered
            copy.last_used = now
            copy.resident = None
        is_measured = nbytes is not None and nbytes != copy.nbytes and copy.state is State.RESIDENT
        if is_measured:
            assert nbytes is not None
            self._measure(copy, nbytes)
        if not copy.leases:
            if copy.state is State.GONE:  # it crashed
                self._outlet.begin_close(copy, "crash")
            elif copy.leaving is not None:
                self._unload(copy, copy.leaving, now)
            else:
                self._rest(copy, now)
        if is_measured:
            self._keep_within(now)

    def abandon(self, lease: Lease, now: float) -> None:
        """Whoever waits for the lease does not want it any more."""
        for copy in self._of(lease.model_id):
            copy.later = [each for each in copy.later if each is not lease]
            if lease in copy.waiting:
                copy.waiting.remove(lease)
                if copy.state is State.WAITING and not copy.waiting:
                    self._drop(copy)
                    self._find_room(now)

    def loaded(self, copy: Copy, now: float, nbytes: int, seconds: float, cpu_seconds: float, waiters: int) -> None:
        """The copy is in memory, and takes `nbytes`; `waiters` requests are queued for the model."""
        copy.state = State.RESIDENT
        copy.loaded_at = copy.last_used = now
        copy.load_seconds, copy.load_cpu_seconds, copy.load_waiters = seconds, cpu_seconds, waiters
        if self._failures or self._crashed:
            self._failures.pop(copy.model_id, None)
            self._crashed.discard(copy.model_id)
        is_measured = nbytes != copy.nbytes
        if is_measured:
            self._measure(copy, nbytes)
        self._decide.loaded(copy, copy.reason, now)
        waiting, copy.waiting = copy.waiting, []
        for lease in waiting:
            self._lend(copy, lease)
        if not waiting:
            if copy.leaving is not None:
                self._unload(copy, copy.leaving, now)
            else:
                self._rest(copy, now)
        if is_measured:
            self._keep_within(now)
        if self._line:  # there is one more that could be named
            self._find_room(now)

    def failed(self, copy: Copy, error: BaseException, now: float, *, remember: bool = True) -> None:
        """The load has failed, for all who wait for it and, where that is remembered, for who comes in a moment."""
        if remember:
            self._failures[copy.model_id] = error, now + FAILURE_SECONDS
        self._refuse(self._drop(copy), error)
        if self._line:
            self._find_room(now)

    def closed(self, copy: Copy, now: float) -> None:
        """What the copy took is free again."""
        self._room.give_back(copy)
        if self._line or self._promised:
            self._find_room(now)

    def crashed(self, copy: Copy, now: float) -> None:
        """The copy answers no more; the next lease loads another one."""
        if copy.state is State.RESIDENT:
            self._crashed.add(copy.model_id)
            self._unload(copy, "crash", now)

    def replaced(self, copy: Copy, now: float, *, nbytes: int, seconds: float, cpu_seconds: float) -> None:
        """Another version of the model has taken the copy's place."""
        if copy.state is not State.RESIDENT:  # it goes at this moment
            self._measure(copy, nbytes)
            return
        self._decide.unloaded(copy, "removed", now)
        copy.resident = None
        copy.asked_at, copy.loaded_at, copy.last_used = now - seconds, now, now
        copy.load_seconds, copy.load_cpu_seconds, copy.load_waiters, copy.uses = seconds, cpu_seconds, 0, 0
        self._measure(copy, nbytes)
        self._decide.loaded(copy, "manual", now)
        self._keep_within(now)

    def wake(self, now: float) -> None:
        """Free what has expired by now."""
        for due, copy in self._expiries.up_to(now):
            if self._idle.get(copy.model_id) is not copy:
                continue
            if copy.due > due:  # it was used in the meantime
                self._expiries.arm(copy)
            else:
                self._unload(copy, "expired", now)
        if self._expiries.next < math.inf:
            self._outlet.wake_at(self._expiries.next)

    def unload(self, model_id: str, now: float) -> bool:
        """Free the model by hand; whether it is gone, which it is not while it is used, loaded or pinned."""
        copy = self._copies.get(model_id)
        if copy is None:
            return True
        if copy is not self._idle.get(model_id):
            return False
        self._unload(copy, "manual", now)
        return True

    def shut_down(self, now: float) -> None:
        """Free what nobody uses now, and the rest when its last lease ends; grant nothing more."""
        self._closed = True
        for copy in [*self._line, *self._promised]:
            self._refuse(self._drop(copy), RuntimeError(CLOSED))
        for copy in [*self._copies.values(), *self._own]:
            later, copy.later = copy.later, ()
            self._refuse(later, RuntimeError(CLOSED))
            if copy.state is State.RESIDENT and not copy.leases:
                self._unload(copy, "shutdown", now)
            elif copy.leaving is None:
                self._name(copy, "shutdown")
            else:
                copy.leaving = "shutdown"

    def _miss(self, lease: Lease, now: float) -> None:
        if self._closed or self._failures:
            error, until = self._failures.get(lease.model_id, (None, 0.0))
            if self._closed or (error is not None and now < until):
                self._refuse([lease], RuntimeError(CLOSED) if self._closed or error is None else error)
                return
        reason: LoadReason = "crash" if lease.model_id in self._crashed else lease.reason
        copy = Copy(lease.model_id, self.sizes.get(lease.model_id, 0), reason, now)
        copy.waiting.append(lease)
        if self._shared:
            self._copies[lease.model_id] = copy
        else:
            self._own[copy] = None
        if self._line or self._promised or (self._is_limited and not self._room.has_some_for(copy)):
            self._line.append(copy)
            self._find_room(now)
        else:
            self._room.promise(copy)
            self._begin(copy)

    def _begin(self, copy: Copy) -> None:
        self._room.take(copy)
        copy.state = State.LOADING
        self._outlet.begin_load(copy)

    def _refuse(self, leases: Iterable[Lease], error: BaseException) -> None:
        for lease in leases:
            lease.error = error
            self._outlet.refused(lease)

    def _lend(self, copy: Copy, lease: Lease) -> None:
        copy.leases += 1
        if copy.leases == 1:
            self._idle.pop(copy.model_id, None)
        lease.copy = copy
        self._outlet.granted(lease)

    def _rest(self, copy: Copy, now: float) -> None:
        """Nobody uses the copy now."""
        if not self._shared or (self._own and copy in self._own):
            self._unload(copy, "request", now)
            return
        copy.due = math.inf
        if copy.model_id not in self._pinned:
            if self._is_limited and copy.nbytes > self._room.budget:
                self._unload(copy, "budget", now)
                return
            self._idle[copy.model_id] = copy
            if not self._decide.keeps_all:
                seconds = self._decide.keep(copy, now)
                if seconds == 0:
                    self._unload(copy, "request", now)
                    return
                copy.due = now + seconds
                if self._expiries.arm(copy):
                    self._outlet.wake_at(copy.due)
        if self._line:
            self._find_room(now)

    def _unload(self, copy: Copy, reason: UnloadReason, now: float) -> None:
        """Take it out of the pool; its memory is counted until it is closed."""
        if self._copies.get(copy.model_id) is copy:
            del self._copies[copy.model_id]
        self._own.pop(copy, None)
        if self._idle.get(copy.model_id) is copy:
            del self._idle[copy.model_id]
        if copy.leaving is None:
            self._name(copy, reason)
        copy.state = State.GONE
        self._decide.unloaded(copy, reason, now)
        if not copy.leases:
            self._outlet.begin_close(copy, reason)
        if copy.later:
            later, copy.later = copy.later, ()
            for lease in later:
                self.acquire(lease, now)
        if self._line:
            self._find_room(now)

    def _name(self, copy: Copy, reason: UnloadReason) -> None:
        """It goes: nobody joins its leases, and others may count on its room."""
        copy.leaving = reason
        self._room.withdraw(copy)

    def _measure(self, copy: Copy, nbytes: int) -> None:
        self._room.measure(copy, nbytes)
        self.sizes[copy.model_id] = nbytes

    def _keep_within(self, now: float) -> None:
        """Make room for what is there already, of which some takes more than it was counted with."""
        while reason := self._room.exceeded():
            if self._room.staying <= 1 or not self._name_one(reason, now):
                return

    def _drop(self, copy: Copy) -> list[Lease]:
        """Forget a copy that never came to be in memory; return who has waited for it."""
        if copy in self._line:
            self._line.remove(copy)  # nothing was reserved yet
        else:
            if copy.state is State.LOADING:
                self._room.give_back(copy)
            else:
                self._promised.remove(copy)
            if copy.leaving is None:
                self._name(copy, "request")
        if self._copies.get(copy.model_id) is copy:
            del self._copies[copy.model_id]
        self._own.pop(copy, None)
        copy.state = State.GONE
        waiting, copy.waiting = copy.waiting, []
        return waiting

    def _find_room(self, now: float) -> None:
        """Name models that go for those in line, in order, and begin the loads that there is room for."""
        if self._is_finding or self._closed:
            return
        self._is_finding = True
        while self._line and self._makes_room_for(self._line[0], now):
            copy = self._line.popleft()
            self._room.promise(copy)
            self._promised.append(copy)
        self._is_finding = False
        while self._promised:
            if not self._room.has_come_for(self._promised[0]):
                return
            self._begin(self._promised.popleft())

    def _makes_room_for(self, copy: Copy, now: float) -> bool:
        """Name models that go until the copy fits beside those that stay."""
        while reason := self._room.lacking_for(copy):
            if not self._name_one(reason, now):
                return False
        return True

    def _name_one(self, reason: UnloadReason, now: float) -> bool:
        """Have one model go: at once if nobody uses it, otherwise when its last lease ends. Whether there was one."""
        if not self._shared:
            return False
        if self._idle:
            self._unload(self._idle[self._decide.evict(self._candidates, now)], reason, now)
            return True
        lent = {copy.model_id: copy for copy in self._lent()}
        if lent:
            self._name(lent[self._decide.evict(Candidates(lent), now)], reason)
        return bool(lent)

    def _lent(self) -> list[Copy]:
        """What is in use and could go, the one first whose latest use is the longest ago."""
        lent = (copy for copy in self._copies.values() if copy.state is State.RESIDENT and copy.leases)
        could_go = (copy for copy in lent if copy.leaving is None and copy.model_id not in self._pinned)
        return sorted(could_go, key=lambda copy: copy.last_used)
