"""The prices of memory at which another choice would be cheaper."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from .amounts import number

NOISE = 1e-6  # of the price: lower prices are rounding errors


class Bill(NamedTuple):
    """The cost of a choice under some traffic: `gib_hours` times the price of a GiB-hour, plus `rest`."""

    label: str
    gib_hours: float
    rest: float


def memory_price_flips(best: Bill, others: Sequence[Bill], price: float) -> Iterator[dict[str, Any]]:
    """The nearest price below and above `price` at which one of the others costs less than the best one."""
    flips = []
    for other in others:
        gib_hours = best.gib_hours - other.gib_hours
        if gib_hours and (at := (other.rest - best.rest) / gib_hours) > NOISE * price:
            flips.append((at, other.label))
    below = max((flip for flip in flips if flip[0] < price), default=None)
    above = min((flip for flip in flips if flip[0] > price), default=None)
    for side, flip in (("below", below), ("above", above)):
        if flip is not None:
            at, to = flip
            sentence = (
                f"If a GiB-hour of memory cost {side} {number(at)} (it costs {number(price)}), {to} would be cheaper."
            )
            yield {"what": "memory price", "at": at, "unit": "per GiB-hour", "to": to, "sentence": sentence}
