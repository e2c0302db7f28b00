"""When the parts of answers arrived: the first byte, the gaps of streams, and tokens per second."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..results.figures import ArrivalFigures
from ..results.records import Arrival, Sample
from .intervals import typical
from .rounds import Round

Figure = Callable[[Sample], float | None]


def arrival(rounds: Sequence[Round]) -> ArrivalFigures | None:
    """The figures of the requests that the steady state answered; None if no answer's parts were timed."""
    timed = [[sample for sample in each.answered if sample.arrival] for each in rounds]
    if not any(timed):
        return None
    longest = [ms for each in timed for sample in each if (ms := _of(sample).longest_gap_ms) is not None]
    return ArrivalFigures(
        warm_first_byte_ms=_median(timed, lambda sample: None if sample.cold else _of(sample).first_byte_ms),
        cold_first_byte_ms=_median(timed, lambda sample: _of(sample).first_byte_ms if sample.cold else None),
        gap_ms=_median(timed, lambda sample: _of(sample).gap_ms),
        longest_gap_ms=max(longest, default=None),
        tokens_per_s=_median(timed, lambda sample: _of(sample).tokens_per_s),
    )


def _of(sample: Sample) -> Arrival:
    assert sample.arrival is not None
    return sample.arrival


def _median(rounds: Sequence[Sequence[Sample]], figure: Figure) -> float | None:
    """The median over rounds of each round's median; None if no sample has the figure."""
    known = [[value for sample in each if (value := figure(sample)) is not None] for each in rounds]
    medians = [float(np.median(values)) for values in known if values]
    return typical(medians) if medians else None
