"""Which models are in memory, and the leases on them: a state machine without thread, lock or clock.

Events come in as calls. Effects go out through an `Outlet`: begin a load, begin to close a copy, grant or refuse a
lease, wake the pool at a time. A server wraps the pool in a lock and a timer, a simulation in a heap of events.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping

from ..contracts import LoadReason, UnloadReason
from .capacity import Capacity
from .copies import CLOSING, LOADING, RESIDENT, WAITING, Copy, Lease, Outlet
from .decisions import Candidates, Decisions
from .expiries import Expiries

FAILURE_CACHE_SECONDS = 1.0  # a failed load is reported, not retried, for this long
CLOSED = "the pool of models is closed"


class Pool:
    """Grants leases on models, loads each model once however many leases wait for it, and evicts as its strategy says.

    It never exceeds the strategy's capacity and budget: memory is reserved before a load begins, and counted until an
    evicted model is closed. A copy that does not fit waits, in order of arrival.
    """

    def __init__(self, decisions: Decisions, outlet: Outlet, sizes: Mapping[str, int]) -> None:
        """`sizes` are bytes by model id. A model whose size cannot be read is left out."""
        self._outlet = outlet
        self.sizes = dict(sizes)
        self._capacity = Capacity(decisions)
        self._set_decisions(decisions)
        self._copies: dict[str, Copy] = {}  # by model id, if the strategy shares
        self._unshared: dict[Copy, None] = {}  # if it does not: one for each lease
        self._idle: dict[str, Copy] = {}  # eviction candidates, in order of `last_used`
        self._candidates = Candidates(self._idle)
        self._waiting: deque[Copy] = deque()  # for capacity to be reserved
        self._reserved: deque[Copy] = deque()  # wait for evicted copies to be closed
        self._expiries = Expiries()
        self._failures: dict[str, tuple[BaseException, float]] = {}  # and the time until which each is reported
        self._crashed: set[str] = set()  # models whose next load has the reason `crash`
        self._is_making_room = False  # guards against recursion
        self._closed = False

    def _set_decisions(self, decisions: Decisions) -> None:
        self._decisions = decisions
        self._shared = decisions.shared
        self._pinned = decisions.pinned
        self._is_limited = decisions.is_limited
        self._capacity.set_limits(decisions)

    def add_sizes(self, sizes: Mapping[str, int]) -> None:
        """Add the sizes of models, in bytes by model id. A model in memory keeps its measured size."""
        self.sizes.update((model_id, nbytes) for model_id, nbytes in sizes.items() if model_id not in self._copies)

    def set_decisions(self, decisions: Decisions, now: float) -> None:
        """Use other decisions from now on, and free what they do not keep."""
        self._set_decisions(decisions)
        for copy in self.residents():
            decisions.loaded(copy, copy.reason, now)
        for copy in sorted(self.residents(), key=lambda copy: copy.last_used):
            if copy.state is RESIDENT and not copy.leases:  # it may have been evicted for one before
                self._idle.pop(copy.model_id, None)
                self._mark_idle(copy, now)
        self._enforce_limits(now)
        self._make_room(now)

    def remove(self, model_id: str, now: float) -> None:
        """Free a model that is no longer served, now or when its last lease ends."""
        self.sizes.pop(model_id, None)
        self._failures.pop(model_id, None)
        for copy in self._copies_of(model_id):
            if copy.state is RESIDENT and not copy.leases:
                self._unload(copy, "removed", now)
            elif copy.draining is None and copy.state is not WAITING:
                self._drain(copy, "removed")

    def residents(self) -> list[Copy]:
        """The copies in memory, the oldest first."""
        found = (copy for copies in (self._copies.values(), self._unshared) for copy in copies)
        return sorted((c for c in found if c.state is RESIDENT), key=lambda copy: copy.loaded_at)

    def copy_of(self, model_id: str) -> Copy | None:
        """The copy on which a new lease for the model would be granted, or None."""
        return self._copies.get(model_id)

    def waiting(self, model_id: str) -> int:
        """How many leases for the model are not granted yet."""
        return sum(len(copy.waiting) + len(copy.blocked) for copy in self._copies_of(model_id))

    def is_loading(self, model_id: str) -> bool:
        return any(copy.state is LOADING for copy in self._copies_of(model_id))

    def _copies_of(self, model_id: str) -> list[Copy]:
        shared = [self._copies[model_id]] if model_id in self._copies else []
        return shared + [copy for copy in self._unshared if copy.model_id == model_id]

    def next_out(self, now: float) -> str | None:
        """The model that would be evicted now or, if nothing limits the memory, the one that expires first; or None."""
        if self._is_limited:
            return self._decisions.evict(self._candidates, now) if self._idle else None
        ends = {copy.due: model_id for model_id, copy in self._idle.items() if copy.due < math.inf}
        return ends[min(ends)] if ends else None

    def acquire(self, lease: Lease, now: float) -> None:
        """Grant the lease, now or when its model is in memory, or refuse it."""
        copy = self._copies.get(lease.model_id) if self._shared else None
        if copy is None:
            self._add_copy(lease, now)
        elif copy.draining is not None:
            copy.blocked = [*copy.blocked, lease]
        elif copy.state is RESIDENT:
            self._grant(copy, lease)
        else:
            copy.waiting.append(lease)

    def release(self, lease: Lease, now: float, answered: int = 1, nbytes: int | None = None) -> None:
        """End a lease under which `answered` requests were answered. `nbytes` is the size of the model now."""
        copy = lease.copy
        assert copy is not None
        copy.leases -= 1
        if answered:
            copy.uses += answered
            copy.last_used = now
            copy.resident = None
        is_resized = nbytes is not None and nbytes != copy.nbytes and copy.state is RESIDENT
        if is_resized:
            assert nbytes is not None
            self._resize(copy, nbytes)
        if not copy.leases:
            if copy.state is CLOSING:  # the model crashed
                self._outlet.begin_close(copy, "crash")
            elif copy.draining is not None:
                self._unload(copy, copy.draining, now)
            else:
                self._mark_idle(copy, now)
        if is_resized or self._is_limited:
            self._enforce_limits(now)

    def abandon(self, lease: Lease, now: float) -> None:
        """Cancel a lease that is not granted yet."""
        for copy in self._copies_of(lease.model_id):
            copy.blocked = [each for each in copy.blocked if each is not lease]
            if lease in copy.waiting:
                copy.waiting.remove(lease)
                if copy.state is WAITING and not copy.waiting:
                    self._discard(copy)
                    self._make_room(now)

    def mark_loaded(
        self, copy: Copy, now: float, nbytes: int, seconds: float, cpu_seconds: float, waiters: int
    ) -> None:
        """Record that the copy is in memory with `nbytes`, while `waiters` requests are queued for its model."""
        copy.state = RESIDENT
        copy.loaded_at = copy.last_used = now
        copy.load_seconds, copy.load_cpu_seconds, copy.load_waiters = seconds, cpu_seconds, waiters
        if self._failures or self._crashed:
            self._failures.pop(copy.model_id, None)
            self._crashed.discard(copy.model_id)
        is_resized = nbytes != copy.nbytes
        if is_resized:
            self._resize(copy, nbytes)
        self._decisions.loaded(copy, copy.reason, now)
        waiting, copy.waiting = copy.waiting, []
        for lease in waiting:
            self._grant(copy, lease)
        if not waiting:
            if copy.draining is not None:
                self._unload(copy, copy.draining, now)
            else:
                self._mark_idle(copy, now)
        if is_resized:
            self._enforce_limits(now)
        if self._waiting:  # the new copy may be evicted for them
            self._make_room(now)

    def mark_failed(self, copy: Copy, error: BaseException, now: float, *, remember: bool = True) -> None:
        """Refuse the leases that wait for a failed load; if `remember`, also those that are requested soon after."""
        if remember:
            self._failures[copy.model_id] = error, now + FAILURE_CACHE_SECONDS
        self._refuse(self._discard(copy), error)
        if self._waiting:
            self._make_room(now)

    def mark_closed(self, copy: Copy, now: float) -> None:
        """Record that the copy is closed, so that its memory is free."""
        self._capacity.vacate(copy)
        if self._waiting or self._reserved:
            self._make_room(now)

    def mark_crashed(self, copy: Copy, now: float) -> None:
        """Unload a copy whose process has ended. The next lease loads the model again."""
        if copy.state is RESIDENT:
            self._crashed.add(copy.model_id)
            self._unload(copy, "crash", now)

    def mark_replaced(self, copy: Copy, now: float, *, nbytes: int, seconds: float, cpu_seconds: float) -> None:
        """Record that the copy now holds another version of its model."""
        if copy.state is not RESIDENT:  # it is being closed
            self._resize(copy, nbytes)
            return
        self._decisions.unloaded(copy, "removed", now)
        copy.resident = None
        copy.asked_at, copy.loaded_at, copy.last_used = now - seconds, now, now
        copy.load_seconds, copy.load_cpu_seconds, copy.load_waiters, copy.uses = seconds, cpu_seconds, 0, 0
        self._resize(copy, nbytes)
        self._decisions.loaded(copy, "manual", now)
        self._enforce_limits(now)

    def wake(self, now: float) -> None:
        """Free the copies that have expired."""
        for due, copy in self._expiries.pop_until(now):
            if self._idle.get(copy.model_id) is not copy:
                continue
            if copy.due > due:  # it was used in the meantime
                self._expiries.arm(copy)
            else:
                self._unload(copy, "expired", now)
        if (following := self._expiries.next) < math.inf:
            self._outlet.wake_at(following)

    def unload(self, model_id: str, now: float) -> bool:
        """Free a model for an operator. Returns False if it is in use, being loaded, or pinned."""
        copy = self._copies.get(model_id)
        if copy is None:
            return True
        if copy is not self._idle.get(model_id):
            return False
        self._unload(copy, "manual", now)
        return True

    def shut_down(self, now: float) -> None:
        """Free idle copies now and the others when their last lease ends. Refuse every further lease."""
        self._closed = True
        for copy in [*self._waiting, *self._reserved]:
            self._refuse(self._discard(copy), RuntimeError(CLOSED))
        for copy in [*self._copies.values(), *self._unshared]:
            blocked, copy.blocked = copy.blocked, ()
            self._refuse(blocked, RuntimeError(CLOSED))
            if copy.state is RESIDENT and not copy.leases:
                self._unload(copy, "shutdown", now)
            elif copy.draining is None:
                self._drain(copy, "shutdown")
            else:
                copy.draining = "shutdown"

    def _add_copy(self, lease: Lease, now: float) -> None:
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
            self._unshared[copy] = None
        if self._waiting or self._reserved or (self._is_limited and not self._capacity.is_free_without_eviction(copy)):
            self._waiting.append(copy)
            self._make_room(now)
        else:
            self._capacity.reserve(copy)
            self._begin(copy)

    def _begin(self, copy: Copy) -> None:
        self._capacity.occupy(copy)
        copy.state = LOADING
        self._outlet.begin_load(copy)

    def _refuse(self, leases: Iterable[Lease], error: BaseException) -> None:
        for lease in leases:
            lease.error = error
            self._outlet.refuse(lease)

    def _grant(self, copy: Copy, lease: Lease) -> None:
        copy.leases += 1
        if copy.leases == 1:
            self._idle.pop(copy.model_id, None)
        lease.copy = copy
        self._outlet.grant(lease)

    def _mark_idle(self, copy: Copy, now: float) -> None:
        """Free the copy, whose last lease has ended, or keep it as the strategy says."""
        if not self._shared or (self._unshared and copy in self._unshared):
            self._unload(copy, "request", now)
            return
        copy.due = math.inf
        if copy.model_id not in self._pinned:
            if self._is_limited and copy.nbytes > self._capacity.budget:
                self._unload(copy, "budget", now)
                return
            self._idle[copy.model_id] = copy
            if self._decisions.has_keep:
                seconds = self._decisions.keep(copy, now)
                if seconds == 0:
                    self._unload(copy, "request", now)
                    return
                copy.due = now + seconds
                if copy.due < copy.armed and self._expiries.arm(copy):
                    self._outlet.wake_at(copy.due)
        if self._waiting:
            self._make_room(now)

    def _unload(self, copy: Copy, reason: UnloadReason, now: float) -> None:
        """Take the copy out of the pool and close it. Its memory is counted until it is closed."""
        if self._copies.get(copy.model_id) is copy:
            del self._copies[copy.model_id]
        self._unshared.pop(copy, None)
        if self._idle.get(copy.model_id) is copy:
            del self._idle[copy.model_id]
        if copy.draining is None:
            self._drain(copy, reason)
        copy.state = CLOSING
        self._decisions.unloaded(copy, reason, now)
        if not copy.leases:
            self._outlet.begin_close(copy, reason)
        if copy.blocked:
            blocked, copy.blocked = copy.blocked, ()
            for lease in blocked:
                self.acquire(lease, now)
        if self._waiting and not self._is_making_room:
            self._make_room(now)

    def _drain(self, copy: Copy, reason: UnloadReason) -> None:
        """Grant no further lease on the copy. Its memory can be reserved for others."""
        copy.draining = reason
        self._capacity.cancel_reservation(copy)

    def _resize(self, copy: Copy, nbytes: int) -> None:
        self._capacity.resize(copy, nbytes)
        self.sizes[copy.model_id] = nbytes

    def _enforce_limits(self, now: float) -> None:
        """Evict until the copies in memory, some of which may have grown, are within the limits."""
        while reason := self._capacity.exceeded():
            if self._capacity.reserved <= 1 or not self._evict_one(reason, now):
                return

    def _discard(self, copy: Copy) -> list[Lease]:
        """Forget a copy that was never in memory, and return the leases that waited for it."""
        if copy in self._waiting:
            self._waiting.remove(copy)  # nothing was reserved yet
        else:
            if copy.state is LOADING:
                self._capacity.vacate(copy)
            else:
                self._reserved.remove(copy)
            if copy.draining is None:
                self._drain(copy, "request")
        if self._copies.get(copy.model_id) is copy:
            del self._copies[copy.model_id]
        self._unshared.pop(copy, None)
        copy.state = CLOSING
        waiting, copy.waiting = copy.waiting, []
        return waiting

    def _make_room(self, now: float) -> None:
        """Evict for the copies that wait, in order, and begin the loads that fit."""
        if self._is_making_room or self._closed:
            return
        self._is_making_room = True
        while self._waiting and self._evict_for(self._waiting[0], now):
            copy = self._waiting.popleft()
            self._capacity.reserve(copy)
            self._reserved.append(copy)
        self._is_making_room = False
        while self._reserved:
            if not self._capacity.is_free_for(self._reserved[0]):
                return
            self._begin(self._reserved.popleft())

    def _evict_for(self, copy: Copy, now: float) -> bool:
        """Evict until the copy fits. Returns False if it does not fit and nothing more can be evicted."""
        while reason := self._capacity.exceeded_with(copy):
            if not self._evict_one(reason, now):
                return False
        return True

    def _evict_one(self, reason: UnloadReason, now: float) -> bool:
        """Evict one model, now if one is idle, else when its last lease ends. Returns False without a candidate."""
        if not self._shared:
            return False
        if self._idle:
            self._unload(self._idle[self._decisions.evict(self._candidates, now)], reason, now)
            return True
        in_use = {copy.model_id: copy for copy in self._in_use()}
        if in_use:
            self._drain(in_use[self._decisions.evict(Candidates(in_use), now)], reason)
        return bool(in_use)

    def _in_use(self) -> list[Copy]:
        """Models in use that may be evicted, the least recently used first."""
        in_use = (copy for copy in self._copies.values() if copy.state is RESIDENT and copy.leases)
        evictable = (copy for copy in in_use if copy.draining is None and copy.model_id not in self._pinned)
        return sorted(evictable, key=lambda copy: copy.last_used)
