"""The prices of memory at which another choice would be cheaper."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from ..results.flips import MemoryPriceFlip
from ..stats.intervals import VERDICT_ROUNDS, sign, typical
from .break_even import Crossing, crossing

NOISE = 1e-6  # of the price: lower prices are rounding errors


class Bill(NamedTuple):
    """What an answer costs under some traffic: `gib_hours` times the price of a GiB-hour, plus `rest`.

    By round; what is simulated has one value, and no interval.
    """

    label: str
    gib_hours: Mapping[int, float]
    rest: Mapping[int, float]


def memory_price_flips(best: Bill, others: Sequence[Bill], price: float) -> Iterator[MemoryPriceFlip]:
    """The nearest price below and above `price` at which one of the others costs less than the best one.

    Nothing where the rounds do not tell which of both takes more memory, or whether that price is another one.
    """
    flips = [(met, other.label) for other in others if (met := _crossing(best, other, price)) is not None]
    below = max((flip for flip in flips if flip[0].high < price), default=None)
    above = min((flip for flip in flips if flip[0].low > price), default=None)
    for flip in (below, above):
        if flip is not None:
            met, to = flip
            bounds = (met.low, met.high) if len(best.rest) >= VERDICT_ROUNDS else None
            side: Literal["below", "above"] = "below" if flip is below else "above"
            yield MemoryPriceFlip(at=met.at, to=to, side=side, ci95=bounds, price=price)


def _crossing(best: Bill, other: Bill, price: float) -> Crossing | None:
    """The price at which both cost the same, where one is known."""
    both = sorted(set(best.rest) & set(other.rest))
    gib_hours = [best.gib_hours[number] - other.gib_hours[number] for number in both]
    rest = [other.rest[number] - best.rest[number] for number in both]
    side = sign(gib_hours) if len(both) >= VERDICT_ROUNDS else int(np.sign(typical(gib_hours)))
    met = crossing([side * each for each in rest], [side * each for each in gib_hours])
    if len(both) < VERDICT_ROUNDS:
        met = Crossing(met.at, met.at, met.at)
    return met if side and NOISE * price < met.at < float("inf") else None
