"""What a simulation has counted until a moment; an outcome is made of the difference between two moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TypeVar

Number = TypeVar("Number", int, float)


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
    """Seconds of work of each lane."""
    slot_work: float
    """Seconds of work of the compute slot."""

    def since(self, begin: Counts) -> Counts:
        """What came after that moment, when there may have been fewer models."""
        return Counts(
            seconds=self.seconds - begin.seconds,
            answers=self.answers - begin.answers,
            cold=self.cold - begin.cold,
            requests=_minus(self.requests, begin.requests),
            loads=_minus(self.loads, begin.loads),
            mib_seconds_of=_minus(self.mib_seconds_of, begin.mib_seconds_of),
            work=_minus(self.work, begin.work),
            slot_work=self.slot_work - begin.slot_work,
        )


def _minus(end: Sequence[Number], begin: Sequence[Number]) -> list[Number]:
    return [late - early for late, early in zip_longest(end, begin, fillvalue=0)]
