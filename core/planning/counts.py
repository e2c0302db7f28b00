"""What has come out of a simulation until a moment, of which two make an outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import sub


@dataclass(frozen=True)
class Counts:
    """Until a moment, or between two."""

    seconds: float
    answers: int
    cold: int
    """Of them, those that waited for a load."""
    requests: Sequence[int]
    """That are answered, for each model."""
    loads: Sequence[int]
    """That have ended, for each model."""
    mib_seconds_of: Sequence[float]
    """Charged memory, summed over time, for each model."""
    work: Sequence[float]
    """Seconds, of each lane and of the slot."""

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
