"""What a summary says of each pair of trials."""

from __future__ import annotations

from typing import Literal

from .figures import Interval
from .recorded import Recorded

Verdict = Literal["higher", "lower", "not separable"]


StatisticName = Literal[
    "p50", "mean", "p99", "throughput", "idle_pss", "idle_private", "cold_share", "loads_per_request"
]


class StatisticUnknown(Recorded):
    """Why a statistic is not known."""

    kind: Literal[
        "rate is offered", "no round in common", "too few requests", "no memory reported", "loads not counted"
    ]
    """`rate is offered`: the offered rate decides the throughput; only a closed loop has one of its own."""
    needed: int | None = None
    """Answered requests in each round, if there are too few."""


class Statistic(Recorded):
    """One statistic of two trials, compared over the rounds that both finished."""

    ratio: float | None = None
    """Of the trial to the other one, the median over rounds; None for a difference, and if it is not known."""
    difference: float | None = None
    """The trial's minus the other one's; None for a ratio, and if it is not known."""
    null_because: StatisticUnknown | None = None
    """Why neither is known."""
    ci95: Interval | None = None
    """The 95 % interval; None below 5 rounds."""
    method: str | None = None
    """How the interval was made."""
    rounds: int | None = None
    """How many rounds have a value."""
    chance: float | None = None
    """The p-value; None if it is not reported, and below 5 rounds."""
    verdict: Verdict | None = None
    """None below 5 rounds, and for what is not reported."""
    further_rounds: int | None = None
    """How many more rounds a verdict would need, as far as that is known."""


class Comparison(Recorded):
    """A trial against one before it in the file."""

    trial: str
    """The label of the trial."""
    against: str
    """The label of the one before it."""
    rounds: int
    """How many rounds both finished."""
    statistics: dict[StatisticName, Statistic]
    """Each statistic, by its name."""
    told: list[StatisticName]
    """The statistics that are reported."""
