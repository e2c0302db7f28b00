"""Where a load's time goes."""

from __future__ import annotations

from time import perf_counter


class Laps:
    """Seconds of a load by phase, each from the end of the one before it."""

    def __init__(self) -> None:
        self.phases: dict[str, float] = {}
        self._last = perf_counter()

    def lap(self, phase: str) -> None:
        now = perf_counter()
        self.phases[phase] = now - self._last
        self._last = now
