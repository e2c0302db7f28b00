"""When copies expire: each stands once in a heap, and moves when it comes up and is not due yet."""

from __future__ import annotations

import math
from collections.abc import Iterator
from heapq import heappop, heappush

from .copies import Copy


class Expiries:
    """Of the copies of one pool."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Copy]] = []
        self._number = 0  # of entries, so that copies are never compared

    @property
    def next(self) -> float:
        """The moment to look again; infinite where there is none."""
        return self._heap[0][0] if self._heap else math.inf

    def arm(self, copy: Copy) -> bool:
        """Have the copy come up when it is due; whether that is before all others."""
        if copy.due >= copy.armed:
            return False
        copy.armed = copy.due
        self._number += 1
        heappush(self._heap, (copy.due, self._number, copy))
        return self._heap[0][2] is copy

    def up_to(self, now: float) -> Iterator[tuple[float, Copy]]:
        """The copies that come up by then, and the moment for which each was armed."""
        while self._heap and self._heap[0][0] <= now:
            due, _, copy = heappop(self._heap)
            if copy.armed == due:  # otherwise it stands there again, for an earlier moment
                copy.armed = math.inf
                yield due, copy
