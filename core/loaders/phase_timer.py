"""Timing the phases of a load."""

from __future__ import annotations

from time import perf_counter


class PhaseTimer:
    """Measures the phases of a load in seconds. Each phase begins when the one before it ends."""

    def __init__(self) -> None:
        self.phases: dict[str, float] = {}
        self._last = perf_counter()

    def end_phase(self, phase: str) -> None:
        """Record the time since the end of the previous phase under this name."""
        now = perf_counter()
        self.phases[phase] = now - self._last
        self._last = now
