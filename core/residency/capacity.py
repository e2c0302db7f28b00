"""How many models and bytes are in memory, and how many there may be."""

from __future__ import annotations

import math

from ..contracts import UnloadReason
from .copies import Copy
from .decisions import Decisions


class Capacity:
    """Counts two things against the limits of a strategy.

    *Occupied*: copies that are in memory, that are being loaded, or that are not closed yet.
    *Reserved*: copies that will stay in memory. Copies that are draining no longer count here; copies that wait for
    others to be closed already do.
    """

    def __init__(self, decisions: Decisions) -> None:
        self._occupied: set[Copy] = set()
        self._reserved: set[Copy] = set()
        self._occupied_bytes = self._reserved_bytes = 0
        self.set_limits(decisions)

    def set_limits(self, decisions: Decisions) -> None:
        """Use the limits of these decisions from now on."""
        self._max_count = math.inf if decisions.capacity is None else decisions.capacity
        self.budget = math.inf if decisions.budget is None else decisions.budget
        self._pinned = decisions.pinned

    @property
    def reserved(self) -> int:
        """How many copies will stay in memory."""
        return len(self._reserved)

    def exceeded(self) -> UnloadReason | None:
        """The limit that the reserved copies exceed, or None."""
        return self._limit_below(len(self._reserved), self._reserved_bytes)

    def exceeded_with(self, copy: Copy) -> UnloadReason | None:
        """The limit that the reserved copies and this one would exceed, or None.

        An oversized copy fits alone, or beside pinned ones, which may have grown: no more room can be made for it.
        """
        return self._limit_beside(self._reserved, self._reserved_bytes, copy)

    def is_free_for(self, copy: Copy) -> bool:
        """Whether enough copies have been closed for this one to be loaded now."""
        return not self._limit_beside(self._occupied, self._occupied_bytes, copy)

    def is_free_without_eviction(self, copy: Copy) -> bool:
        """Whether the copy can be loaded now without an eviction, and without a wait for another copy to be closed."""
        return len(self._occupied) == len(self._reserved) and not (self.exceeded_with(copy) or self.exceeded())

    def reserve(self, copy: Copy) -> None:
        self._reserved.add(copy)
        self._reserved_bytes += copy.nbytes

    def cancel_reservation(self, copy: Copy) -> None:
        self._reserved.remove(copy)
        self._reserved_bytes -= copy.nbytes

    def occupy(self, copy: Copy) -> None:
        """Count the copy, whose load begins."""
        self._occupied.add(copy)
        self._occupied_bytes += copy.nbytes

    def vacate(self, copy: Copy) -> None:
        """Count the copy no more: it is closed, or its load has failed."""
        self._occupied.remove(copy)
        self._occupied_bytes -= copy.nbytes

    def resize(self, copy: Copy, nbytes: int) -> None:
        """Count the copy, which occupies memory, with its measured size."""
        growth = nbytes - copy.nbytes
        copy.nbytes = nbytes
        copy.resident = None
        self._occupied_bytes += growth
        if copy.draining is None:
            self._reserved_bytes += growth

    def _limit_beside(self, others: set[Copy], nbytes: int, copy: Copy) -> UnloadReason | None:
        limit = self._limit_below(len(others) + 1, nbytes + copy.nbytes) if others else None
        is_alone = limit == "budget" and all(other.model_id in self._pinned for other in others)
        return None if is_alone else limit

    def _limit_below(self, count: int, nbytes: int) -> UnloadReason | None:
        if count > self._max_count:
            return "capacity"
        return "budget" if nbytes > self.budget else None
