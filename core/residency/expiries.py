"""When copies expire.

A copy that is used again keeps its entry in the heap, and gets a later one when that entry comes up.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from heapq import heappop, heappush

from .copies import Copy


class Expiries:
    """A heap of the times at which the copies of one pool expire."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Copy]] = []
        self._number = 0  # of entries, so that copies are never compared

    @property
    def next(self) -> float:
        """The time of the first entry; infinite if there is none."""
        return self._heap[0][0] if self._heap else math.inf

    def arm(self, copy: Copy) -> bool:
        """Make an entry for `copy.due`, unless there is an earlier one. Returns whether it is now the first of all."""
        if copy.due >= copy.armed:
            return False
        copy.armed = copy.due
        self._number += 1
        heappush(self._heap, (copy.due, self._number, copy))
        return self._heap[0][2] is copy

    def pop_until(self, now: float) -> Iterator[tuple[float, Copy]]:
        """Remove the entries up to `now`, and yield each with its time."""
        while self._heap and self._heap[0][0] <= now:
            due, _, copy = heappop(self._heap)
            if copy.armed == due:  # otherwise an earlier entry has replaced this one
                copy.armed = math.inf
                yield due, copy
