"""Keep the most recently used models, as many as fit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition
from typing import TYPE_CHECKING

import pluggy
from pydantic import ByteSize, PositiveInt

if TYPE_CHECKING:
    from core.contracts import Load, Model, Reason

DEFAULT_CAPACITY = 2


class _Entry:
    """A model that is in memory or on its way there."""

    def __init__(self) -> None:
        self.model: Model | None = None
        self.error: BaseException | None = None
        self.users = 0  # leases and waiting requests; above 0 the entry is never evicted
        self.size = 0  # bytes
        self.reserved = False  # whether it is counted; not while it waits for room


class LruCached:
    """Keeps the most recently used models: `capacity` of them, or what fits into `memory_budget`.

    With neither option two models are kept. A model in use is never evicted; a request that finds
    every place in use waits until one is free.
    """

    name = "lru-cached"
    shares = True

    def __init__(
        self,
        load: Load,
        *,
        capacity: PositiveInt | None = None,
        memory_budget: ByteSize | None = None,
    ) -> None:
        self._load = load
        self._capacity = DEFAULT_CAPACITY if capacity is None and memory_budget is None else capacity
        self._budget = memory_budget
        self._changed = Condition()  # protects everything below; never held while a model loads or closes
        self._entries: OrderedDict[str, _Entry] = OrderedDict()  # least recently used first
        # What is in memory: entries with a reservation, and evicted models until they are closed.
        self._count = 0
        self._bytes = 0

    def start(self) -> None:
        if self._budget is None:
            return
        for model_id in self._load.model_ids:
            if (size := self._load.size(model_id)) > self._budget:
                raise ValueError(
                    f"model '{model_id}' takes {ByteSize(size).human_readable()}, more than the memory_budget of"
                    f" {self._budget.human_readable()}; raise the budget or leave the model out"
                )

    @contextmanager
    def acquire(self, model_id: str) -> Iterator[Model]:
        entry = self._lease(model_id)
        try:
            assert entry.model is not None
            yield entry.model
        finally:
            with self._changed:
                entry.users -= 1
                self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            entries, self._entries = self._entries, OrderedDict()
        for entry in entries.values():
            if entry.model is not None:
                entry.model.close("shutdown")

    def _lease(self, model_id: str) -> _Entry:
        """Join the model's entry, or make it: whoever makes it loads, all others wait for that."""
        with self._changed:
            entry = self._entries.get(model_id)
            if joined := entry is not None:
                self._entries.move_to_end(model_id)
            else:
                entry = self._entries[model_id] = _Entry()
            entry.users += 1
            if joined:
                self._changed.wait_for(lambda: entry.model is not None or entry.error is not None)
                if entry.error is not None:
                    raise entry.error
                return entry
        self._fill(model_id, entry)
        return entry

    def _fill(self, model_id: str, entry: _Entry) -> None:
        try:
            self._reserve(entry, self._load.size(model_id))
            model = self._load(model_id)
        except BaseException as error:
            with self._changed:
                # Those who wait get this error; whoever comes next tries anew.
                entry.error = error
                del self._entries[model_id]
                self._give_back(entry)
            raise
        with self._changed:
            entry.model = model
            self._changed.notify_all()

    def _reserve(self, entry: _Entry, size: int) -> None:
        """Count `size` bytes as in memory before they are, evicting idle models until they fit."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._exceeded(size) is None or self._idle() is not None)
                reason = self._exceeded(size)
                if reason is None:
                    entry.size, entry.reserved = size, True
                    self._count += 1
                    self._bytes += size
                    return
                model_id = self._idle()
                assert model_id is not None
                victim = self._entries.pop(model_id)
            assert victim.model is not None
            try:
                victim.model.close(reason)
            finally:
                with self._changed:
                    self._give_back(victim)

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

    def _idle(self) -> str | None:
        """The least recently used model that nobody uses."""
        idle = (i for i, entry in self._entries.items() if entry.model is not None and entry.users == 0)
        return next(idle, None)


@pluggy.HookimplMarker("residency")
def register_strategies() -> list[type[LruCached]]:
    return [LruCached]
