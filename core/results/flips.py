"""Where the answer of a card or a plan changes: rates, prices and targets.

Rates are requests an hour, sums of money are in the currency of the prices, and trials are named by their labels.
"""

from __future__ import annotations

from typing import Literal

from .figures import Interval
from .recorded import Recorded


class Rates(Recorded):
    """The rates from `start` to `end`; a single rate if both are the same."""

    start: float
    end: float
    as_measured: bool = False
    """Whether it is the rate at which the run was measured."""


class Capacity(Recorded):
    """The most requests that a trial can answer."""

    per_hour: float
    cores: float | None
    """Those of its size, if their CPU time is what limits it."""
    clients: int
    """How many clients sent requests back to back when it was measured."""


class Longer(Recorded):
    """How much longer a request takes under the cheaper trial, on average."""

    ms: float
    clients: int
    """How many clients sent requests back to back; 0 if requests came at a rate of their own."""


class _RateFlip(Recorded):
    """A rate at which the answer changes."""

    what: Literal["rate"] = "rate"
    at: float
    unit: Literal["requests/hour"] = "requests/hour"
    to: str
    """The trial that is the better one there."""
    instead: str
    """The trial that is the better one on the other side."""


class BreakEvenFlip(_RateFlip):
    """Below this rate one trial is cheaper, and above it another one."""

    kind: Literal["break-even flip"] = "break-even flip"
    ci95: Interval | None
    start: float
    """The rate from which on `to` is the cheapest."""
    saves: float
    """What `to` saves a month, at most."""
    above: float
    """A higher rate, which both answered."""
    saves_above: float
    """What the other one saves a month there."""
    longer: Longer | None


class MeasuredFlip(_RateFlip):
    """As in `BreakEvenFlip`, by too few rounds."""

    kind: Literal["measured flip"] = "measured flip"


class CapacityFlip(_RateFlip):
    """Up to this rate one trial is cheaper; above it, it may not keep up."""

    kind: Literal["capacity flip"] = "capacity flip"
    is_verdict: bool
    """Whether enough rounds show that it is cheaper."""
    longer: Longer | None
    capacity: Capacity


class OtherRateFlip(_RateFlip):
    """Below or above this rate another trial would be cheaper than the recommended one."""

    kind: Literal["other rate flip"] = "other rate flip"
    side: Literal["below", "above"]
    ci95: Interval | None


class CapacityReachedFlip(_RateFlip):
    """Above this rate the recommended trial may not keep up."""

    kind: Literal["capacity reached flip"] = "capacity reached flip"
    capacity: Capacity


class MemoryPriceFlip(Recorded):
    """A price of memory at which another one costs less."""

    kind: Literal["memory price flip"] = "memory price flip"
    what: Literal["memory price"] = "memory price"
    at: float
    unit: Literal["per GiB-hour"] = "per GiB-hour"
    to: str
    side: Literal["below", "above"]
    ci95: Interval | None
    price: float
    """What memory costs."""


class LatencyFlip(Recorded):
    """A latency target from which on another trial is needed."""

    kind: Literal["latency flip"] = "latency flip"
    what: Literal["latency target"] = "latency target"
    at: float
    unit: Literal["ms"] = "ms"
    percentile: str
    to: str
    to_ms: float
    """Its latency."""
    instead: str
    """The trial that is too slow."""
    clients: int
    """As in `Longer`."""


RateFlip = BreakEvenFlip | MeasuredFlip | CapacityFlip | OtherRateFlip | CapacityReachedFlip
Flip = RateFlip | MemoryPriceFlip | LatencyFlip
RATE_FLIPS = (BreakEvenFlip, MeasuredFlip, CapacityFlip, OtherRateFlip, CapacityReachedFlip)
FLIPS = (*RATE_FLIPS, MemoryPriceFlip, LatencyFlip)
