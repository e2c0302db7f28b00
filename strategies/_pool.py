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

if TYPE_CHECKING:
    from core.contracts import Load, Model, Reason

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


class Pool:
    """Lends models out, loads each once however many ask for it, and keeps what nobody uses.

    A lease guarantees that its model stays open until the lease ends. The pool never holds more than
    `capacity` models or `budget` bytes: a load's bytes are reserved before it begins, those of an evicted
    model are given back after it is closed. A request for whose model there is no room waits.
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
        self._capacity = capacity
        self._budget = budget
        self._pinned = frozenset(pinned)  # never evicted, never freed before `close`
        # Protects everything below, and every field of an entry. Never held while a model loads or closes:
        # a hit on one model does not wait for the load of another.
        self._changed = Condition()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()  # least recently used first
        self._failures: dict[str, tuple[BaseException, float]] = {}  # and until when they answer for others
        # What is in memory: entries with a reservation, and evicted models until they are closed.
        self._count = 0
        self._bytes = 0

    def check(self) -> None:
        """Raise ValueError for a model that can never fit, or for a pinned one that there is not."""
        known = self._load.model_ids
        if unknown := sorted(self._pinned - set(known)):
            raise ValueError(f"there is no model '{unknown[0]}' to pin; models: {', '.join(known)}")
        if self._budget is None:
            return
        kept = sum(self._load.size(model_id) for model_id in self._pinned)
        for model_id in known:
            try:
                size = self._load.size(model_id)
            except Exception as error:  # one broken model must not keep the others from being served
                log.warning("%s", error)
                continue
            beside = 0 if model_id in self._pinned else size
            if kept + beside > self._budget:
                pins = f" beside {ByteSize(kept).human_readable()} that are pinned" if kept else ""
                raise ValueError(
                    f"model '{model_id}' takes {ByteSize(size).human_readable()}{pins}, more than the memory_budget"
                    f" of {self._budget.human_readable()}; raise the budget or leave the model out"
                )

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
        """Close the model if it is there, not pinned, and unused for `idle_for` seconds."""
        with self._changed:
            entry = self._entries.get(model_id)
            if entry is None or not self._evictable(model_id, entry) or monotonic() - entry.idle_since < idle_for:
                return False
            del self._entries[model_id]
        self._close(entry, reason)
        return True

    def idle(self) -> dict[str, float]:
        """Since when (`monotonic`) each model is unused that could be freed."""
        with self._changed:
            return {i: entry.idle_since for i, entry in self._entries.items() if self._evictable(i, entry)}

    def close(self) -> None:
        with self._changed:
            entries, self._entries = self._entries, OrderedDict()
        for entry in entries.values():
            if entry.model is not None:
                entry.model.close("shutdown")

    def _join(self, model_id: str) -> _Entry:
        """Use the model's entry, or make it: whoever makes it loads, all others wait for that."""
        with self._changed:
            self._wait(lambda: not self._is_leaving(model_id), f"a place for '{model_id}'")
            entry = self._entries.get(model_id)
            if joined := entry is not None:
                self._entries.move_to_end(model_id)
            else:
                self._raise_recent_failure(model_id)
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
            self._changed.notify_all()

    def _raise_recent_failure(self, model_id: str) -> None:
        error, until = self._failures.pop(model_id, (None, 0.0))
        if error is not None and monotonic() < until:
            self._failures[model_id] = error, until
            raise error

    def _fill(self, model_id: str, entry: _Entry) -> None:
        try:
            self._reserve(model_id, entry, self._load.size(model_id))
            model = self._load(model_id)
        except BaseException as error:
            with self._changed:
                # Those who wait get this error, and those who come in the next moment.
                entry.error = error
                self._failures[model_id] = error, monotonic() + FAILURE_SECONDS
                if self._entries.get(model_id) is entry:
                    del self._entries[model_id]
                self._give_back(entry)
            raise
        with self._changed:
            entry.model = model
            closed = self._entries.get(model_id) is not entry  # the pool was closed meanwhile
            self._changed.notify_all()
        if closed:
            model.close("shutdown")

    def _reserve(self, model_id: str, entry: _Entry, size: int) -> None:
        """Count `size` bytes as in memory before they are, evicting idle models until they fit."""
        while True:
            with self._changed:
                with self._leaving():
                    self._wait(
                        lambda: self._exceeded(size) is None or self._least_recently_used() is not None,
                        f"room for '{model_id}', all of which is in use",
                    )
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

    @contextmanager
    def _leaving(self) -> Iterator[None]:
        """While somebody waits for room, let no more users join the model that was used the longest ago.

        Without that a model in steady use, which is never idle, would keep all others out for ever.
        """
        lent = (entry for i, entry in self._entries.items() if entry.model is not None and i not in self._pinned)
        entry = next((entry for entry in lent if not entry.leaving), None)
        if entry is None or self._least_recently_used() is not None:
            yield
            return
        entry.leaving = True
        try:
            yield
        finally:
            entry.leaving = False
            self._changed.notify_all()

    def _is_leaving(self, model_id: str) -> bool:
        entry = self._entries.get(model_id)
        return entry is not None and entry.leaving

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
        if self._capacity is not None and self._count + 1 > self._capacity:
            return "capacity"
        if self._budget is not None and self._bytes + size > self._budget:
            return "budget"
        return None

    def _least_recently_used(self) -> str | None:
        return next((i for i, entry in self._entries.items() if self._evictable(i, entry)), None)

    def _evictable(self, model_id: str, entry: _Entry) -> bool:
        return entry.model is not None and entry.users == 0 and model_id not in self._pinned

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        if not self._changed.wait_for(condition, PATIENCE):
            raise TimeoutError(f"Waited {PATIENCE:g} s in vain for {what}.")
