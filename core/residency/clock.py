"""A clock that never goes back, and its times as seconds since the epoch."""

from __future__ import annotations

import time
from collections.abc import Callable

STEP = 1.0  # seconds; if the two clocks differ by more, the wall clock was set; less is drift


class Clock:
    """`now` measures durations, `cpu` the CPU time of this process, and `epoch` gives times to show.

    The wall clock may be set (NTP, a suspended machine). Durations are then unaffected, and times are shown by the new
    wall clock from then on.
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
        self._anchor = wall() - now()  # one for all times, so that they are consistent with each other

    def epoch(self, moment: float) -> float:
        """Seconds since the epoch, for a time of `now`."""
        anchor = self._wall() - self.now()
        if abs(anchor - self._anchor) > STEP:
            self._anchor = anchor
        return self._anchor + moment


CLOCK = Clock()
