"""What a summary says of each pair of trials."""

from __future__ import annotations

from typing import Literal

from .figures import Interval
from .recorded import Recorded

Verdict = Literal["higher", "lower", "not separable"]


class Statistic(Recorded):
    """One statistic of two trials, compared over the rounds that both finished."""

    ratio: float | None = None
    """Of the trial to the other one, the median over rounds; None for a difference, and if it is not known."""
    difference: float | None = None
    """The trial's minus the other one's; None for a ratio, and if it is not known."""
    null_because: str | None = None
    """Why neither is known."""
    ci95: Interval | None = None
    method: str | None = None
    """How the interval was made."""
    rounds: int | None = None
    chance: float | None = None
    """The p-value; None if it is not reported, and below 5 rounds."""
    verdict: Verdict | None = None
    """None below 5 rounds, and for what is not reported."""
    further_rounds: int | None = None
    """Missing for a verdict, as far as that is known."""


class Comparison(Recorded):
    """A trial against one before it in the file."""

    trial: str
    against: str
    rounds: int
    """That both finished."""
    statistics: dict[str, Statistic]
    told: list[str]
    """The statistics that are reported."""
