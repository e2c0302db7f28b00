"""Lends the models of one strategy to threads: the pool behind a lock, with a timer; loads and closings outside it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from threading import TIMEOUT_MAX, Condition, Lock, Thread
from typing import NamedTuple, TypeVar

from ..contracts import LoadReason, UnloadReason
from ..errors import LoadFailed
from .copies import Copy, Lease
from .decisions import Decisions
from .host import Host
from .limits import start
from .loaded import LoadedModel, LoadRecord
from .pool import Pool

log = logging.getLogger("residency")
PATIENCE = 60.0  # seconds that a request waits for a load or for room
Result = TypeVar("Result")


class Waiting(Lease):
    """The lease of a thread that waits for it; the first one that waits for a model also loads it."""

    __slots__ = ("to_load",)

    def __init__(self, model_id: str, reason: LoadReason) -> None:
        super().__init__(model_id, reason)
        self.to_load: Copy | None = None

    def is_over(self) -> bool:
        return self.copy is not None or self.error is not None or self.to_load is not None


class Lent:
    """A model that somebody uses, and how many requests that has answered so far."""

    def __init__(self, copy: Copy) -> None:
        self.model: LoadedModel = copy.model
        self.asked_at = copy.asked_at  # when somebody first asked for this load
        self.loaded_at = copy.loaded_at
        self.answered = 0
        self.has_crashed = False


class Look(NamedTuple):
    """What there is to see of a model in memory; times are moments of the host's clock."""

    leases: int
    last_used: float
    expires: float | None
    explained: str  # by the strategy


class Timer:
    """A thread that calls `wake` at the moments that it is told."""

    def __init__(self, now: Callable[[], float], wake: Callable[[], None]) -> None:
        self._now, self._wake = now, wake
        self._changed = Condition()  # protects what stands below
        self._moment = math.inf
        self._thread: Thread | None = None
        self._closed = False

    def wake_at(self, moment: float) -> None:
        """In place of a later moment."""
        with self._changed:
            self._moment = min(self._moment, moment)
            if self._thread is None:
                thread = Thread(target=self._run, name="expiry", daemon=True)
                with suppress(RuntimeError):  # the system has no thread for us; the next expiry tries again
                    thread.start()
                    self._thread = thread
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed and (left := self._moment - self._now()) > 0:
                    self._changed.wait(min(left, TIMEOUT_MAX))
                if self._closed:
                    return
                self._moment = math.inf
            self._wake()


class Keeper:
    """The models of one strategy, for many threads.

    Its lock is never held while a model is loaded or closed. A load runs in the thread of whoever first waits for it,
    a closing in the thread whose event caused it.
    """

    def __init__(
        self,
        decisions: Decisions,
        host: Host,
        timer: Callable[[Callable[[], float], Callable[[], None]], Timer] = Timer,
        condition: Callable[[], Condition] = lambda: Condition(Lock()),
    ) -> None:
        """`timer` and `condition` are made by the keeper, once each."""
        self.host = host
        self.decisions = decisions
        self.queued: Callable[[str], int] = lambda model_id: 0
        """How many requests are queued for a model; whoever has the queues says so."""
        self._now = host.clock.now
        self._changed = condition()  # protects what stands below; woken when a lease is granted or refused
        self._pool = Pool(decisions, self, {})
        self._closings: list[tuple[Copy, UnloadReason]] = []
        self._wakes = False
        self._asking: Lease | None = None  # who needs no waking
        self._timer = timer(self._now, self._expire)

    # Before the first request, and after the last one.

    def start(self, state: str | None = None) -> None:
        """Load what the strategy wants loaded at the start; `state` is what it had learned. Raises ValueError for what
        can never be kept, what the strategy raises, and, where none of them can be loaded, why the first one cannot.
        """
        preloads = self.begin(self.decisions, self.host.model_ids, state)
        failures = self.preload(preloads)
        if failures and len(failures) == len(preloads):
            raise failures[0]

    def begin(self, decisions: Decisions, model_ids: Collection[str], state: str | None) -> list[str]:
        """Start a strategy on these models; what it wants loaded. Raises ValueError, and what the strategy raises."""
        sizes = {}
        for model_id in model_ids:
            with suppress(LoadFailed):  # it is logged; one broken model must not keep the others from being served
                sizes[model_id] = self.host.size(model_id)
        if state is not None:
            decisions.restore(state)
        preloads = start(decisions, sizes, model_ids)
        with self._changed:
            self._pool.expect(sizes)
        return preloads

    def preload(self, model_ids: Sequence[str]) -> list[Exception]:
        """Load these models; why some of them cannot be, which is logged."""
        failures: list[Exception] = []
        for model_id in model_ids:
            try:
                self.load(model_id, "preload")
            except Exception as error:
                log.warning("%s", error)
                failures.append(error)
        return failures

    def decide_by(self, decisions: Decisions) -> None:
        """Go by other decisions from now on, which have begun; what is in memory stays as far as they keep it."""

        def change(now: float) -> None:
            self.decisions = decisions
            self._pool.decide_by(decisions, now)

        self._tell(change)

    def remove(self, model_id: str) -> None:
        """The model is served no more: free it when its last lease ends."""
        self._tell(lambda now: self._pool.remove(model_id, now))

    def state(self) -> str | None:
        """What the strategy has learned, as JSON."""
        with self._changed:
            return self.decisions.state()

    def close(self) -> None:
        """Close what nobody uses now, and the rest when its last lease ends; lend out nothing more."""
        self._timer.close()
        self._tell(self._pool.shut_down)

    # What requests and people ask for.

    def requested(self, model_id: str) -> None:
        """A request for the model was accepted."""
        if self.decisions.hears_requests:
            with self._changed:
                self.decisions.requested(model_id, self._now())

    @contextmanager
    def lease(self, model_id: str, reason: LoadReason = "request") -> Iterator[Lent]:
        """Raises what the load raises, and TimeoutError when it or room for it takes too long."""
        lease = self._acquired(model_id, reason)
        assert lease.copy is not None
        lent = Lent(lease.copy)
        try:
            yield lent
        finally:
            self._tell(lambda now: self._released(lease, lent, now))

    def load(self, model_id: str, reason: LoadReason = "manual") -> None:
        """Bring the model into memory; raises as `lease`."""
        with self.lease(model_id, reason):
            pass

    def unload(self, model_id: str) -> bool:
        """Free the model by hand; whether it is gone, which it is not while it is used, loaded or pinned."""
        return self._tell(lambda now: self._pool.unload(model_id, now))

    # What is there, for whoever looks.

    def residents(self) -> list[Copy]:
        """What is in memory, the oldest first."""
        with self._changed:
            return self._pool.residents()

    def waiting(self, model_id: str) -> int:
        """How many leases of the model wait for it to be in memory, or to be loaded anew."""
        with self._changed:
            return self._pool.waiting(model_id)

    def is_loading(self, model_id: str) -> bool:
        with self._changed:
            return self._pool.is_loading(model_id)

    def look(self, model_id: str) -> Look | None:
        """At the copy that a request for the model would get; None where there is none."""
        with self._changed:
            now, copy = self._now(), self._pool.copy_of(model_id)
            if copy is None or copy.model is None:
                return None
            expires = copy.due if copy.due < math.inf and not copy.leases else None
            return Look(copy.leases, copy.last_used, expires, self.decisions.explain(copy, now))

    def next_out(self) -> str | None:
        """Which model would go if room were needed now, or whose time is up first."""
        with self._changed:
            return self._pool.next_out(self._now())

    # Another version of a model, as `Versions` brings it in.

    def copies(self, model_id: str) -> list[Copy]:
        """Those that later requests would be answered by; one that is loaded for a request ends with it."""
        return [copy for copy in self.residents() if copy.model_id == model_id] if self.decisions.shared else []

    def replace(self, copy: Copy, fresh: LoadedModel) -> Callable[[], object]:
        """Let the copy answer as `fresh`, and return what is to be called to free the older one; for whoever has the
        model's turn.
        """
        model: LoadedModel = copy.model
        older, loaded_at = model.replace(fresh), copy.loaded_at
        if older is None:  # it was closed meanwhile, and stays so
            return fresh.close
        record = model.record
        self._tell(
            lambda now: self._pool.replaced(
                copy, now, nbytes=record.nbytes, seconds=record.seconds, cpu_seconds=record.cpu_seconds
            )
        )

        def free() -> None:
            self.host.close(older, "removed", loaded_at)
            self.host.arrived(model, "manual", copy.loaded_at)

        return free

    # The pool's outlet: called under the lock.

    def begin_load(self, copy: Copy) -> None:
        first = copy.waiting[0]
        assert isinstance(first, Waiting)
        first.to_load = copy
        self._wakes |= first is not self._asking

    def begin_close(self, copy: Copy, reason: UnloadReason) -> None:
        self._closings.append((copy, reason))

    def granted(self, lease: Lease) -> None:
        self._wakes |= lease is not self._asking

    refused = granted

    def wake_at(self, moment: float) -> None:
        self._timer.wake_at(moment)

    # Within.

    def _tell(self, event: Callable[[float], Result]) -> Result:
        """Tell the pool of an event; then close what it has let go."""
        with self._changed:
            result = event(self._now())
            closings, self._closings = self._closings, []
            if self._wakes:
                self._wakes = False
                self._changed.notify_all()
        for copy, reason in closings:
            self.host.close(copy.model, reason, copy.loaded_at)
            self._tell(partial(self._pool.closed, copy))
        return result

    def _expire(self) -> None:
        self._tell(self._pool.wake)

    def _acquired(self, model_id: str, reason: LoadReason) -> Waiting:
        if model_id not in self._pool.sizes:  # it could not be read at the start
            self._pool.sizes[model_id] = self.host.size(model_id)
        lease = Waiting(model_id, reason)
        self._tell(lambda now: self._ask(lease, now))
        while lease.copy is None:
            if not lease.is_over():
                self._wait(lease)
            if lease.error is not None:
                raise lease.error
            if (copy := lease.to_load) is not None:
                lease.to_load = None
                self._load(copy)
        return lease

    def _ask(self, lease: Waiting, now: float) -> None:
        self._asking = lease
        self._pool.acquire(lease, now)
        self._asking = None

    def _wait(self, lease: Waiting) -> None:
        """Raises TimeoutError when nothing has become of the lease for too long."""
        with self._changed:
            if self._changed.wait_for(lease.is_over, PATIENCE):
                return
            copy = self._pool.copy_of(lease.model_id)
            is_loading = copy is not None and self._pool.is_loading(lease.model_id)
        self._tell(lambda now: self._pool.abandon(lease, now))
        what = f"loading '{lease.model_id}'" if is_loading else f"room for '{lease.model_id}', all of which is in use"
        raise TimeoutError(f"Waited {PATIENCE:g} s in vain for {what}.")

    def _load(self, copy: Copy) -> None:
        """In the thread of whoever waits for it first."""
        while True:
            try:
                model = self.host.load(copy.model_id)
            except BaseException as error:
                error.__cause__ = error.__context__ = None  # which hold the frames of the load, and half a model
                self._tell(partial(self._failed, copy, error))
                return
            if self._join(copy, model):
                self.host.arrived(model, copy.reason, copy.loaded_at)
                return
            with suppress(Exception):
                model.close()  # another version has become the model's while this one was loaded

    def _failed(self, copy: Copy, error: BaseException, now: float) -> None:
        self._pool.failed(copy, error, now, remember=not getattr(error, "transient", False))

    def _join(self, copy: Copy, model: LoadedModel) -> bool:
        """Let a loaded model join those in memory, unless another version has become the current one."""
        with self.host.versions.moment:
            if model.version != self.host.version(copy.model_id):
                return False
            copy.model = model
            self._tell(lambda now: self._joined(copy, model.record, now))
            return True

    def _joined(self, copy: Copy, record: LoadRecord, now: float) -> None:
        self._pool.loaded(
            copy,
            now,
            nbytes=record.nbytes,
            seconds=record.seconds,
            cpu_seconds=record.cpu_seconds,
            waiters=0 if copy.reason == "preload" else self.queued(copy.model_id),
        )

    def _released(self, lease: Waiting, lent: Lent, now: float) -> None:
        assert lease.copy is not None
        if lent.has_crashed:
            self._pool.crashed(lease.copy, now)
        self._pool.release(lease, now, lent.answered, lent.model.nbytes)
