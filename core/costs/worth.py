"""What a choice saves in a month, and whether that is known, and large enough, to decide by."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ..results.answers import FurtherRounds
from ..stats.intervals import VERDICT_ROUNDS, further_rounds, interval
from .economics import RoundCost, TrialCost

MONTH = 730.0  # hours
MATTERS = 0.05  # of the cost: costs that certainly differ by less are the same for a choice
LEAST, HALVINGS = 1e-6, 20  # of a search over rates, from that share of the highest one on
Hourly = Callable[[RoundCost], float]
"""The cost of one server for an hour under some traffic."""


class Saving(NamedTuple):
    """What one trial saves against another in a month under some traffic, with its 95 % interval, which is infinite if
    there are too few rounds.
    """

    typical: float
    """The median over the rounds that both finished."""
    low: float
    high: float
    cost: float
    """What the trial that saves costs in a month."""

    def is_trifle(self, trifle: float) -> bool:
        """Whether it is certainly too little to decide by."""
        return max(abs(self.low), abs(self.high)) <= trifle

    def is_tie(self, trifle: float) -> bool:
        """Whether both certainly cost the same as far as a choice goes: neither is known to be the cheaper one, and the
        difference is small in proportion, or it is a trifle.
        """
        unknown = self.low <= 0 <= self.high
        return self.is_trifle(trifle) or (unknown and max(-self.low, self.high) <= MATTERS * self.cost)

    def is_settled(self, trifle: float) -> bool:
        """Whether nothing is left to be known for a choice: it saves something, or both cost the same."""
        return self.low > 0 or self.is_tie(trifle)


def at(per_hour: float) -> Hourly:
    """The hourly cost at so many requests an hour: a + b λ."""
    return lambda each: each.holding + each.per_request * per_hour


def saving(trial: TrialCost, other: TrialCost, hourly: Hourly) -> Saving:
    """What `trial` saves against `other`."""
    values = differences(trial, other, hourly)
    low, high = interval(values)[:2] if len(values) >= VERDICT_ROUNDS else (-math.inf, math.inf)
    return Saving(float(np.median(values)) if values else math.nan, low, high, monthly(trial, hourly))


def monthly(trial: TrialCost, hourly: Hourly) -> float:
    """What the trial costs in a month, in a typical round."""
    return MONTH * float(np.median([hourly(each) for each in trial.rounds.values()]))


def differences(trial: TrialCost, other: TrialCost, hourly: Hourly) -> list[float]:
    """What `trial` saves in a month, in each round that both finished."""
    both = sorted(set(trial.rounds) & set(other.rounds))
    return [MONTH * (hourly(other.rounds[number]) - hourly(trial.rounds[number])) for number in both]


def settled_between(trial: TrialCost, other: TrialCost, start: float, end: float, trifle: float) -> tuple[float, float]:
    """The rates between `start` and `end` at which it is settled, for a choice, whether `trial` costs less than the
    other; from `end` to `end` if it is settled at neither.
    """
    settled = {edge: saving(trial, other, at(edge)).is_settled(trifle) for edge in (start, end)}
    if settled[start] and settled[end]:
        return start, end
    if not settled[start] and not settled[end]:
        return end, end
    low, high = max(start, LEAST * end), end
    for _ in range(HALVINGS):
        middle = math.sqrt(low * high)
        if saving(trial, other, at(middle)).is_settled(trifle) == settled[start]:
            low = middle
        else:
            high = middle
    return (start, low) if settled[start] else (high, end)


def rounds_to_settle(values: Sequence[float]) -> FurtherRounds:
    """How many more rounds would distinguish the differences from 0, as far as that is known."""
    further = further_rounds(values)
    return FurtherRounds(rounds=further, repeats=None if further is None else len(values) + further)
