"""What a summary says of costs, in the currency of the prices."""

from __future__ import annotations

from .figures import Interval
from .header import Billing, Charge
from .recorded import PageCache, Recorded


class SizePrice(Recorded):
    """A size of a task or a machine."""

    memory_mib: float
    cpu: float
    """Cores."""
    hour: float
    """The price of an hour."""


class PricesUsed(Recorded):
    """The prices that the costs are made of; the keys are those of `cost`."""

    memory_gib_hour: float
    cpu_hour: float
    latency_hour: float
    charge: Charge
    billing: Billing
    sizes: tuple[SizePrice, ...]


class LoadFigures(Recorded):
    """How the loads are priced that requests waited for."""

    page_cache: PageCache
    lacking: str | None
    """Why loads could not be priced from the source that the prices call for."""
    further_ms: float
    """How much longer such a load takes than those that were measured under the run's traffic."""
    further_processor_s: float


class TrialCosts(Recorded):
    """What a trial costs."""

    label: str
    is_line: bool
    """Whether holding + per_request · rate is its cost at other rates than the measured one."""
    holding_per_hour: float
    holding_ci95: Interval | None
    per_request: float
    per_request_ci95: Interval | None
    charged_mib: float
    capacity_rps: float | None
    load: LoadFigures | None
    """None if no request waited for a load."""
    measured_per_hour: float | None
    """At the workload's own rate; None in a closed loop."""
    per_million: float | None
    """A million requests at that rate, holding included."""


class BreakEven(Recorded):
    """The rate at which two trials cost the same, as far as that is known."""

    trial: str
    against: str
    rate_per_hour: float | None
    ci95: Interval | None
    cheaper_below: str | None
    cheaper_above: str | None
    capped_per_hour: float | None
    """The capacity of the one that is cheaper below, if that is lower than the rate."""
    reason: str | None
    settled: bool
    """Whether the rounds show it."""
    rounds: int
    """That both finished."""


class Economics(Recorded):
    """Prices, and what each trial costs at these."""

    prices: PricesUsed
    trials: list[TrialCosts]
    break_even: list[BreakEven]
    unpriced: dict[str, str]
    """Why others are not priced, by label."""


class Floor(Recorded):
    """The memory of a server between requests without a model, in MiB."""

    trial: str
    """Under which it was measured."""
    rss_mib: float
    pss_mib: float
