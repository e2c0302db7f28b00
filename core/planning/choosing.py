"""Which setting to use: the cheapest, unless it saves too little to decide by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..costs.worth import MONTH
from .candidates import Candidate, pool_of
from .outcome import SAME


@dataclass(frozen=True)
class Choice:
    """A choice among the eligible settings."""

    chosen: Candidate
    cheapest: Candidate
    same: list[Candidate]
    """Those that cost as much as the cheapest: within `SAME`, or in an order that changes with the seed."""
    trifling: list[Candidate]
    """Others that cost more than the cheapest by less than a trifle."""
    others: list[Candidate]
    """The rest, the cheapest first."""
    simplest: Candidate
    by_latency: bool
    """Whether the chosen one is faster than some that cost the same or a trifle more; else it is the simplest."""

    @property
    def ranked(self) -> list[Candidate]:
        """The chosen one, those that are no tie with it, and then those that are."""
        ties = [each for each in (self.cheapest, *self.same, *self.trifling) if each is not self.chosen]
        return [self.chosen, *self.others, *ties]

    @property
    def is_tie(self) -> bool:
        return bool(self.same or self.trifling)


def choose(found: Sequence[Candidate], trifle: float) -> Choice | None:
    """The choice; None if there is nothing to choose from. `trifle` is money a month: smaller savings are ignored.

    Of those that cost the same, or more by a trifle, those with the lowest mean latency, to within `SAME`, are the
    fastest; of these the simplest is chosen.
    """
    pool = pool_of(found)
    if not pool:
        return None
    cheapest, *dearer = sorted(pool, key=lambda each: each.costs[0])
    same = [each for each in dearer if _costs_the_same(cheapest, each)]
    rest = [each for each in dearer if each not in same]
    trifling = [each for each in rest if saves(cheapest, each) < trifle]
    ties = [each for each in pool if each is cheapest or each in same or each in trifling]  # the simplest first
    soonest = min(_latency(each) for each in ties)
    quick = [each for each in ties if _latency(each) <= (1 + SAME) * soonest]
    others = [each for each in rest if each not in trifling]
    return Choice(quick[0], cheapest, same, trifling, others, pool[0], len(quick) < len(ties))


def saves(one: Candidate, other: Candidate) -> float:
    """Money a month, at the plan's rate: how much less the first costs, which is negative if it is more expensive."""
    return MONTH * (other.costs[0] - one.costs[0])


def _costs_the_same(cheapest: Candidate, other: Candidate) -> bool:
    """Whether their costs are alike, or in an order that changes with the seed."""
    if other.costs[0] <= (1 + SAME) * cheapest.costs[0]:
        return True
    return any(theirs < ours for ours, theirs in zip(cheapest.costs, other.costs, strict=False))


def _latency(candidate: Candidate) -> float:
    return candidate.figures.mean_ms
