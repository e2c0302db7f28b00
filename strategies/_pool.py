"""Models in memory that several requests share: what `lru-cached`, `keep-alive` and `on-demand` have in common."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from threading import Condition
from time import monotonic
from typing import TYPE_CHECKING

from pydantic import ByteSize

from ._limits import Limits

if TYPE_CHECKING:
    from core.contracts import Explanation, Load, Model, Reason

log = logging.getLogger("residency")
PATIENCE = 60.0  # seconds that a request waits for a load or for room
FAILURE_SECONDS = 1.0  # for so long a failed load answers for the next ones


class _Entry:
    """A model that is in memory, or on its way there."""

    def __init__(self) -> None:
        self.model: Model | None = None
        self.error: BaseException | None = None
        self.users = 0  # leases and waiting requests; above 0 the entry is never evicted
        self.size = 0  # bytes
        self.reserved = False  # whether it is counted; not while it waits for room
        self.leaving = False  # its users go on, but whoever comes waits until it is gone
        self.idle_since = 0.0  # `monotonic`, when `users` became 0
        self.last_use = monotonic()


class Pool:
    """Lends models out, loads each once however many ask for it, and keeps what nobody uses.

    A lease guarantees that its model stays open until it ends. The pool never holds more than `capacity`
    models or `budget` bytes: a load's are reserved before it begins, an evicted model's are given back
    after it is closed. A request for whose model there is no room waits.
    """

    def __init__(
        self,
        load: Load,
        *,
        capacity: int | None = None,
        budget: ByteSize | None = None,
        pinned: Collection[str] = (),
    ) -> None:
        self._load = load
        self._limits = Limits(capacity, budget, pinned)
        # Protects everything below, and every field of an entry; never held while a model loads or closes.
        self._changed = Condition()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()  # least recently used first
        self._failures: dict[str, tuple[BaseException, float]] = {}  # and until when they answer for others
        # What is in memory: entries with a reservation, and evicted models until they are closed.
        self._count = 0
        self._bytes = 0
        self._closed = False

    def check(self) -> None:
        """Raise ValueError for a model that can never fit, or for a pinned one that there is not."""
        self._limits.check(self._load)

    @contextmanager
    def lease(self, model_id: str) -> Iterator[Model]:
        """Raises what the load raises, and TimeoutError when it or room for it takes too long."""
        entry = self._join(model_id)
        try:
            assert entry.model is not None
            yield entry.model
        finally:
            self._leave(entry)

    def free(self, model_id: str, reason: Reason, *, idle_for: float = 0.0) -> bool:
        """Close the model if it is there, not pinned, and unused for `idle_for` seconds; whether it is gone."""
        with self._changed:
            entry = self._entries.get(model_id)
            if entry is None:
                return True
            if not self._evictable(model_id, entry) or monotonic() - entry.idle_since < idle_for:
                return False
            del self._entries[model_id]
        self._close(entry, reason)
        return True

    def preload(self, model_id: str) -> None:
        """Load the model as a request would; raises what the load raises."""
        with self.lease(model_id):
            pass

    def explain(self, model_id: str) -> Explanation:
        """Who uses the model, and whether it is the next to be evicted, and why."""
        with self._changed:
            entry = self._entries.get(model_id)
            if entry is None:
                return {}
            next_out = self._least_recently_used() if self._limits.exist else None
            why = self._limits.why(model_id, entry.users, next_out)
            last_use = self._load.epoch(entry.last_use)
            return {"in_use": entry.users, "last_use": last_use, "next_out": model_id == next_out, "why": why}

    def idle(self) -> dict[str, float]:
        """Since when (`monotonic`) each model is unused that could be freed."""
        with self._changed:
            return {i: e.idle_since for i, e in self._entries.items() if self._evictable(i, e)}

    def close(self) -> None:
        """Close what nobody uses now, and the rest when its last lease ends; lend out nothing more."""
        with self._changed:
            self._closed = True
            idle = [i for i, e in self._entries.items() if e.model is not None and e.users == 0]
            entries = [self._entries.pop(model_id) for model_id in idle]
            self._changed.notify_all()
        for entry in entries:
            self._close(entry, "shutdown")

    def _join(self, model_id: str) -> _Entry:
        """Use the model's entry, or make it: whoever makes it loads, all others wait for that."""
        with self._changed:
            self._wait(lambda: not getattr(self._entries.get(model_id), "leaving", False), f"a place for '{model_id}'")
            self._raise_if_closed()
            entry = self._entries.get(model_id)
            if joined := entry is not None:
                self._entries.move_to_end(model_id)
                entry.last_use = monotonic()
            else:
                error, until = self._failures.get(model_id, (None, 0.0))
                if error is not None and monotonic() < until:
                    raise error
                entry = self._entries[model_id] = _Entry()
            entry.users += 1
            if joined:
                try:
                    self._wait(lambda: entry.model is not None or entry.error is not None, f"loading '{model_id}'")
                except TimeoutError:
                    entry.users -= 1
                    raise
                if entry.error is not None:
                    raise entry.error
                return entry
        self._fill(model_id, entry)
        return entry

    def _leave(self, entry: _Entry) -> None:
        with self._changed:
            entry.users -= 1
            entry.idle_since = monotonic()
            last = self._closed and entry.users == 0
            self._changed.notify_all()
        if last:
            self._close(entry, "shutdown")

    def _fill(self, model_id: str, entry: _Entry) -> None:
        try:
            self._reserve(model_id, entry, self._load.size(model_id))
            model = self._load(model_id)
        except BaseException as error:
            with self._changed:
                error.__cause__ = error.__context__ = None  # which hold the frames of the load, and half a model
                entry.error = error  # for those who wait, and for those who come in the next moment
                if not getattr(error, "transient", isinstance(error, TimeoutError)):
                    self._failures[model_id] = error, monotonic() + FAILURE_SECONDS
                del self._entries[model_id]
                self._give_back(entry)
            raise
        with self._changed:
            entry.model, entry.last_use = model, monotonic()
            self._changed.notify_all()

    def _reserve(self, model_id: str, entry: _Entry, size: int) -> None:
        """Count `size` bytes as in memory before they are, evicting idle models until they fit."""
        while True:
            with self._changed:
                self._wait_for_room(model_id, size)
                reason = self._exceeded(size)
                if reason is None:
                    entry.size, entry.reserved = size, True
                    self._count += 1
                    self._bytes += size
                    return
                victim_id = self._least_recently_used()
                assert victim_id is not None
                victim = self._entries.pop(victim_id)
            self._close(victim, reason)

    def _wait_for_room(self, model_id: str, size: int) -> None:
        """Until the model fits, or one is idle that can go.

        Meanwhile nobody may join the model that was used the longest ago: one in steady use is never idle.
        """
        marked: _Entry | None = None

        def is_possible() -> bool:
            nonlocal marked
            if self._closed or self._exceeded(size) is None or self._least_recently_used() is not None:
                return True
            if marked not in self._entries.values():
                lent = (e for i, e in self._entries.items() if e.model is not None and i not in self._limits.pinned)
                if marked := next((entry for entry in lent if not entry.leaving), None):
                    marked.leaving = True
            return False

        try:
            self._wait(is_possible, f"room for '{model_id}', all of which is in use")
        finally:
            if marked is not None:
                marked.leaving = False
                self._changed.notify_all()
        self._raise_if_closed()

    def _raise_if_closed(self) -> None:
        if self._closed:
            raise RuntimeError("this pool is closed")

    def _close(self, entry: _Entry, reason: Reason) -> None:
        assert entry.model is not None
        try:
            entry.model.close(reason)
        except Exception:  # it must not fail the request that needs the room
            log.exception("Closing a model failed")
        finally:
            with self._changed:
                self._give_back(entry)

    def _give_back(self, entry: _Entry) -> None:
        if entry.reserved:
            self._count -= 1
            self._bytes -= entry.size
            entry.reserved = False
        self._changed.notify_all()

    def _exceeded(self, size: int) -> Reason | None:
        """Which limit one more model of `size` bytes would break."""
        return self._limits.exceeded(self._count + 1, self._bytes + size)

    def _least_recently_used(self) -> str | None:
        return next((i for i, entry in self._entries.items() if self._evictable(i, entry)), None)

    def _evictable(self, model_id: str, entry: _Entry) -> bool:
        return entry.model is not None and entry.users == 0 and model_id not in self._limits.pinned

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        if not self._changed.wait_for(condition, PATIENCE):
            raise TimeoutError(f"Waited {PATIENCE:g} s in vain for {what}.")
