"""The pool of one strategy, for threads: a lock, a timer, and loads and closings that run outside the lock."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from threading import Condition, Lock, Thread
from typing import TypeVar

from ..contracts import LoadReason, UnloadReason
from ..errors import LoadFailed, ModelCrashed
from .copies import RESIDENT, Copy, Lease
from .decisions import Decisions
from .host import Host
from .leases import CopyStatus, LeasedModel, ThreadLease
from .limits import start_strategy
from .loaded import LoadedModel, LoadRecord
from .pool import Pool
from .timer import Timer

log = logging.getLogger("residency")
ACQUIRE_TIMEOUT = 60.0  # seconds that a lease waits for a load or for capacity
ENGINE_TRIES = 3  # leases on an engine that had ended, or ends at once
Result = TypeVar("Result")


class Keeper:
    """The models of one strategy, for many threads.

    The lock is not held while a model is loaded or closed. A load runs in the first thread that waits for it. A closing
    runs in the thread whose call caused it.
    """

    def __init__(
        self,
        decisions: Decisions,
        host: Host,
        timer: Callable[[Callable[[], float], Callable[[], None]], Timer] = Timer,
        condition: Callable[[], Condition] = lambda: Condition(Lock()),
    ) -> None:
        """`timer` and `condition` are called once each."""
        self.host = host
        self.decisions = decisions
        self.count_queued: Callable[[str], int] = lambda model_id: 0
        """Returns how many requests are queued for a model. Set by the owner of the queues."""
        self._now = host.clock.now
        self._changed = condition()  # protects the attributes below; notified when a lease is granted or refused
        self._pool = Pool(decisions, self, {})
        self._closings: list[tuple[Copy, UnloadReason]] = []
        self._must_notify = False
        self._acquiring: Lease | None = None  # its thread is running, so it need not be notified
        self._timer = timer(self._now, self._expire)

    # Before the first request, and after the last one.

    def start(self, state: str | None = None) -> None:
        """Start the strategy with the state that it saved, if any, and load what it wants loaded.

        Raises ValueError if models do not fit, what the strategy raises, and, if no model can be loaded, the error of
        the first one.
        """
        preloads = self.start_strategy(self.decisions, self.host.model_ids, state)
        failures = self.preload(preloads)
        if failures and len(failures) == len(preloads):
            raise failures[0]

    def start_strategy(self, decisions: Decisions, model_ids: Collection[str], state: str | None) -> list[str]:
        """Start a strategy for these models. Returns the ids of those to load.

        Raises ValueError if models do not fit, and what the strategy raises.
        """
        sizes = {}
        for model_id in model_ids:
            with suppress(LoadFailed):  # it is logged; the other models can be served
                sizes[model_id] = self.host.size(model_id, decisions.budget)
        if state is not None:
            decisions.restore(state)
        preloads = start_strategy(decisions, sizes, model_ids, self._guessed(model_ids))
        with self._changed:
            self._pool.add_sizes(sizes)
        return preloads

    def _guessed(self, model_ids: Collection[str]) -> set[str]:
        """The models whose size is no more than a guess until they are loaded."""
        engines = {model_id: self.host.engine(model_id) for model_id in model_ids}
        return {model_id for model_id, choice in engines.items() if choice is not None and choice.memory is None}

    def preload(self, model_ids: Sequence[str]) -> list[Exception]:
        """Load these models. Log and return the errors."""
        failures: list[Exception] = []
        for model_id in model_ids:
            try:
                self.load(model_id, "preload")
            except Exception as error:
                log.warning("%s", error)
                failures.append(error)
        return failures

    def use_decisions(self, decisions: Decisions) -> None:
        """Use other decisions, which have been started, from now on, and free what they do not keep."""

        def change(now: float) -> None:
            self.decisions = decisions
            self._pool.set_decisions(decisions, now)

        self._apply(change)

    def retire(self) -> None:
        """Free engines whose command has changed, and models that an engine replaces, when their last lease ends."""
        for copy in self.residents():
            version = self.host.version(copy.model_id)
            if version != copy.model.version and (version is None or version.engine or copy.model.version.engine):
                self._apply(partial(self._pool.remove, copy.model_id))

    def remove(self, model_id: str) -> None:
        """Free a model that is no longer served when its last lease ends."""
        self._apply(lambda now: self._pool.remove(model_id, now))

    def state(self) -> str | None:
        """What the strategy has learned, as JSON."""
        with self._changed:
            return self.decisions.state()

    def close(self) -> None:
        """Close idle models now and the others when their last lease ends. Grant no further lease."""
        self._timer.close()
        self._apply(self._pool.shut_down)

    # For requests and operators.

    def record_request(self, model_id: str) -> None:
        """Tell the strategy that a request for the model has a queue slot."""
        if self.decisions.observes_requests:
            with self._changed:
                self.decisions.requested(model_id, self._now())

    @contextmanager
    def lease(self, model_id: str, reason: LoadReason = "request") -> Iterator[LeasedModel]:
        """Lease the model, and load it first if needed. Raises what `acquire` raises."""
        leased = self.acquire(model_id, reason)
        try:
            yield leased
        finally:
            self.release(leased)

    def acquire(self, model_id: str, reason: LoadReason = "request") -> LeasedModel:
        """A lease on the model, which is loaded first if needed. Call `release` exactly once, from any thread.

        Raises what the load raises, ModelCrashed for an engine that ends as soon as it is ready, and TimeoutError if
        the model is not in memory within ACQUIRE_TIMEOUT, and the time that an engine has to start in addition.
        """
        for _ in range(ENGINE_TRIES):
            leased = LeasedModel(self._acquire(model_id, reason))
            if not leased.model.has_ended():
                return leased
            self.release(leased)
        raise ModelCrashed(f"The engine of model '{model_id}' ends as soon as it is ready; its output is in the log.")

    def acquire_at_once(self, model_id: str) -> LeasedModel | None:
        """A lease on the model if it is in memory; else None. It never blocks, so an event loop may call it."""
        with self._changed:
            copy = self._pool.copy_of(model_id)
            if copy is None or copy.state is not RESIDENT or copy.draining is not None:
                return None
            lease = ThreadLease(model_id, "request")
            self._acquire_now(lease, self._now())
        return LeasedModel(lease)

    def release_at_once(self, leased: LeasedModel) -> bool:
        """End a lease if the model has others, which frees nothing and never blocks. Returns whether it is ended."""
        with self._changed:
            if leased.copy.leases < 2 or leased.has_crashed:
                return False
            self._pool.release(leased.lease, self._now(), leased.answered)
            return True

    def release(self, leased: LeasedModel) -> None:
        """End a lease. An engine that becomes idle is measured first, in this thread and without the lock."""
        if leased.model.has_ended():
            leased.has_crashed = True
        if leased.model.engine is None:
            self._apply(lambda now: self._release(leased, leased.model.nbytes, now))
        elif not self._apply(partial(self._release_unless_last, leased)):
            nbytes = leased.model.measure()
            self._apply(lambda now: self._release(leased, nbytes, now))
        model_id = leased.model.model_id
        if (seconds := self.decisions.timeouts.get(model_id)) is not None:
            self.host.record_timeout(model_id, seconds)

    def load(self, model_id: str, reason: LoadReason = "manual") -> None:
        """Load the model if it is not in memory. Raises what `lease` raises."""
        with self.lease(model_id, reason):
            pass

    def unload(self, model_id: str) -> bool:
        """Free a model for an operator. Returns False if it is in use, being loaded, or pinned."""
        return self._apply(lambda now: self._pool.unload(model_id, now))

    # What is in memory.

    def residents(self) -> list[Copy]:
        """The copies in memory, the oldest first."""
        with self._changed:
            return self._pool.residents()

    def waiting(self, model_id: str) -> int:
        """How many leases for the model are not granted yet."""
        with self._changed:
            return self._pool.waiting(model_id)

    def is_loading(self, model_id: str) -> bool:
        with self._changed:
            return self._pool.is_loading(model_id)

    def status(self, model_id: str) -> CopyStatus | None:
        """The state of the copy that a request for the model would use; None if there is none."""
        with self._changed:
            now, copy = self._now(), self._pool.copy_of(model_id)
            if copy is None or copy.model is None:
                return None
            expires = copy.due if copy.due < math.inf and not copy.leases else None
            return CopyStatus(copy.leases, copy.last_used, expires, self.decisions.explain(copy, now))

    def next_out(self) -> str | None:
        """The model that would be evicted now or, if nothing limits the memory, the one that expires first; or None."""
        with self._changed:
            return self._pool.next_out(self._now())

    # For `Versions`, which replaces one version of a model by another.

    def copies(self, model_id: str) -> list[Copy]:
        """The copies that later requests would use. A copy of an unshared strategy is freed with its request."""
        return [copy for copy in self.residents() if copy.model_id == model_id] if self.decisions.shared else []

    def replace(self, copy: Copy, fresh: LoadedModel) -> Callable[[], object]:
        """Let the copy answer with `fresh`, and return a function that frees the older model.

        The caller holds the model's `predict_lock`.
        """
        model: LoadedModel = copy.model
        older, loaded_at = model.replace(fresh), copy.loaded_at
        if older is None:  # the copy was closed in the meantime
            return fresh.close
        record = model.record
        self._apply(
            lambda now: self._pool.mark_replaced(
                copy, now, nbytes=record.nbytes, seconds=record.seconds, cpu_seconds=record.cpu_seconds
            )
        )

        def free() -> None:
            self.host.close(older, "removed", loaded_at)
            self.host.record_load(model, "manual", copy.loaded_at)

        return free

    # `Outlet`, called by the pool under the lock.

    def begin_load(self, copy: Copy) -> None:
        first = copy.waiting[0]
        assert isinstance(first, ThreadLease)
        first.must_load = copy
        self._must_notify |= first is not self._acquiring

    def begin_close(self, copy: Copy, reason: UnloadReason) -> None:
        self._closings.append((copy, reason))

    def grant(self, lease: Lease) -> None:
        self._must_notify |= lease is not self._acquiring

    refuse = grant

    def wake_at(self, moment: float) -> None:
        self._timer.wake_at(moment)

    def _apply(self, event: Callable[[float], Result], *, in_background: bool = False) -> Result:
        """Apply an event to the pool, at the current time; then close what it has unloaded."""
        with self._changed:
            result = event(self._now())
            closings, self._closings = self._closings, []
            if self._must_notify:
                self._must_notify = False
                self._changed.notify_all()
        if in_background and any(copy.model.engine for copy, _ in closings):
            Thread(target=self._close, args=[closings], name="closing", daemon=True).start()
        else:
            self._close(closings)
        return result

    def _close(self, closings: Sequence[tuple[Copy, UnloadReason]]) -> None:
        for copy, _ in closings[1:]:
            copy.model.begin_close()
        for copy, reason in closings:
            self.host.close(copy.model, reason, copy.loaded_at)
            self._apply(partial(self._pool.mark_closed, copy))

    def _expire(self) -> None:
        self._apply(self._pool.wake, in_background=True)  # an engine may take seconds to end

    def _acquire(self, model_id: str, reason: LoadReason) -> ThreadLease:
        if model_id not in self._pool.sizes:  # its size could not be read at the start
            self._pool.sizes[model_id] = self.host.size(model_id, self.decisions.budget)
        lease = ThreadLease(model_id, reason)
        self._apply(lambda now: self._acquire_now(lease, now))
        while lease.copy is None:
            if not lease.is_decided():
                self._wait(lease)
            if lease.error is not None:
                raise lease.error
            if (copy := lease.must_load) is not None:
                lease.must_load = None
                self._load(copy)
        return lease

    def _acquire_now(self, lease: ThreadLease, now: float) -> None:
        self._acquiring = lease
        self._pool.acquire(lease, now)
        self._acquiring = None

    def _wait(self, lease: ThreadLease) -> None:
        """Wait until the lease is decided. Raises TimeoutError after ACQUIRE_TIMEOUT, longer for an engine."""
        engine = self.host.engine(lease.model_id)
        seconds = ACQUIRE_TIMEOUT + (engine.within if engine else 0.0)
        with self._changed:
            if self._changed.wait_for(lease.is_decided, seconds):
                return
            copy = self._pool.copy_of(lease.model_id)
            is_loading = copy is not None and self._pool.is_loading(lease.model_id)
        self._apply(lambda now: self._pool.abandon(lease, now))
        waited = f"Waited {seconds:g} s for model '{lease.model_id}'"
        raise TimeoutError(f"{waited}, which is still being loaded." if is_loading else f"{waited}: no memory is free.")

    def _load(self, copy: Copy) -> None:
        """Load the copy, in the thread that must load it."""
        while True:
            try:
                model = self.host.load(copy.model_id)
            except BaseException as error:
                error.__cause__ = error.__context__ = None  # they hold the frames of the load, and so its memory
                self._apply(partial(self._mark_failed, copy, error))
                return
            if self._add_loaded(copy, model):
                self.host.record_load(model, copy.reason, copy.loaded_at)
                return
            with suppress(Exception):
                model.close()  # it is outdated: another version has become current during the load

    def _mark_failed(self, copy: Copy, error: BaseException, now: float) -> None:
        self._pool.mark_failed(copy, error, now, remember=not getattr(error, "transient", False))

    def _add_loaded(self, copy: Copy, model: LoadedModel) -> bool:
        """Add a loaded model to those in memory. Returns False if another version has become current."""
        with self.host.versions.switch_lock:
            if model.version != self.host.version(copy.model_id):
                return False
            copy.model = model
            self._apply(lambda now: self._mark_loaded(copy, model.record, now))
            return True

    def _mark_loaded(self, copy: Copy, record: LoadRecord, now: float) -> None:
        self._pool.mark_loaded(
            copy,
            now,
            nbytes=record.nbytes,
            seconds=record.seconds,
            cpu_seconds=record.cpu_seconds,
            waiters=0 if copy.reason == "preload" else self.count_queued(copy.model_id),
        )

    def _release_unless_last(self, leased: LeasedModel, now: float) -> bool:
        """Release the lease, but not if it is the last one on its copy. Returns whether it is released."""
        if leased.copy.leases == 1:
            return False
        self._release(leased, leased.model.nbytes, now)
        return True

    def _release(self, leased: LeasedModel, nbytes: int, now: float) -> None:
        if leased.has_crashed:
            self._pool.mark_crashed(leased.copy, now)
        self._pool.release(leased.lease, now, leased.answered, nbytes)
