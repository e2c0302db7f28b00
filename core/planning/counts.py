"""What a simulation has counted until a moment; an outcome is made of the difference between two moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import sub


@dataclass(frozen=True)
class Counts:
    """What was counted until a moment, or between two."""

    seconds: float
    answers: int
    cold: int
    """The answers that waited for a load."""
    requests: Sequence[int]
    """Those that were answered, for each model."""
    loads: Sequence[int]
    """Those that have ended, for each model."""
    mib_seconds_of: Sequence[float]
    """Charged memory, summed over time, for each model."""
    work: Sequence[float]
    """Seconds of work, of each lane and of the slot."""

    def since(self, begin: Counts) -> Counts:
        """What came after that moment."""
        return Counts(
            seconds=self.seconds - begin.seconds,
            answers=self.answers - begin.answers,
            cold=self.cold - begin.cold,
            requests=list(map(sub, self.requests, begin.requests)),
            loads=list(map(sub, self.loads, begin.loads)),
            mib_seconds_of=list(map(sub, self.mib_seconds_of, begin.mib_seconds_of)),
            work=list(map(sub, self.work, begin.work)),
        )
