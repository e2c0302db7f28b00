"""Moments on a clock that never goes back, and when that was by the calendar."""

from __future__ import annotations

import time
from collections.abc import Callable

STEP = 1.0  # seconds between the two clocks above which one was set; below they drift apart


class Clock:
    """`now` is for durations, `cpu` for those of this process's CPU time; `epoch` is for what is told to people.

    The clock on the wall may be set (NTP, a suspended machine). Then durations stay what they are, and what is told
    from then on goes by the new time, as all who read it do.
    """

    def __init__(
        self,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        cpu: Callable[[], float] = time.process_time,
    ) -> None:
        self.now = now
        self.cpu = cpu
        self._wall = wall
        self._anchor = wall() - now()  # one for all moments, so that what is told of them fits together

    def epoch(self, moment: float) -> float:
        """Seconds since the epoch of a moment of `now`."""
        anchor = self._wall() - self.now()
        if abs(anchor - self._anchor) > STEP:
            self._anchor = anchor
        return self._anchor + moment


CLOCK = Clock()  # the process's
