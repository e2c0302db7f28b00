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
        self._capacity = capacity
        self._budget = budget
        self._pinned = frozenset(pinned)  # never evicted, never freed before `close`
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

    def free(self, model_id: str, reason: Reason, *, idle_for: float = 0.0) -> None:
        """Close the model if it is there, not pinned, and unused for `idle_for` seconds."""
        with self._changed:
            entry = self._entries.get(model_id)
            if entry is None or not self._evictable(model_id, entry) or monotonic() - entry.idle_since < idle_for:
                return
            del self._entries[model_id]
        self._close(entry, reason)

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
                entry.error = error  # for those who wait, and for those who come in the next moment
                if not getattr(error, "transient", isinstance(error, TimeoutError)):
                    self._failures[model_id] = error, monotonic() + FAILURE_SECONDS
                del self._entries[model_id]
                self._give_back(entry)
            raise
        with self._changed:
            entry.model = model
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
                lent = (e for i, e in self._entries.items() if e.model is not None and i not in self._pinned)
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
