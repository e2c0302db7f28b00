"""What a summary says of costs, in the currency of the prices."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .figures import Interval
from .header import Billing, Charge
from .recorded import PageCache, Recorded


class SizePrice(Recorded):
    """A size of a task or a machine, as a host lists it."""

    memory_mib: float
    cpu: float
    """Cores, or a part of one."""
    hour: float
    """The price of an hour, memory and cores included."""


class PricesUsed(Recorded):
    """The prices that the costs are made of; the keys are those of `cost`."""

    memory_gib_hour: float
    cpu_hour: float
    latency_hour: float
    charge: Charge
    billing: Billing
    sizes: tuple[SizePrice, ...]


class LoadsLacking(Recorded):
    """Loads from disk and from the page cache were not measured separately."""

    kind: Literal["loads lacking"] = "loads lacking"
    recorded: str | None
    """Why, as the run recorded it; None if it did not try."""


class LoadFigures(Recorded):
    """How the loads are priced that requests waited for."""

    page_cache: PageCache
    """From where such loads are assumed to come."""
    lacking: LoadsLacking | None
    """Why loads could not be priced from the source that the prices call for."""
    further_ms: float
    """How much longer such a load takes than those that were measured under the run's traffic."""
    further_processor_s: float
    """The same for CPU time."""


class TrialCosts(Recorded):
    """What a trial costs."""

    label: str
    """The label of the trial."""
    is_line: bool
    """Whether `holding_per_hour` + `per_request` · rate is its cost at other rates than the measured one."""
    holding_per_hour: float
    """The fixed cost: an hour in which nobody sends a request."""
    holding_ci95: Interval | None
    """Its 95 % interval."""
    per_request: float
    """The marginal cost: what each request adds."""
    per_request_ci95: Interval | None
    """Its 95 % interval."""
    charged_mib: float
    """The memory that is paid for without a request."""
    capacity_rps: float | None
    """The most requests per second that it can answer, if that is known."""
    load: LoadFigures | None
    """How the loads are priced that requests waited for; None if none waited."""
    measured_per_hour: float | None
    """What an hour costs at the workload's own rate; None in a closed loop."""
    per_million: float | None
    """What a million requests cost at that rate, the fixed cost included; None in a closed loop."""


class NoCommonRound(Recorded):
    """No round was finished by both."""

    kind: Literal["no common round"] = "no common round"


class OtherRatesUnknown(Recorded):
    """The cost of a trial at other rates is unknown, because its models expire in the gaps between requests."""

    kind: Literal["other rates unknown"] = "other rates unknown"
    label: str


class CheaperAtAnyRate(Recorded):
    """A trial holds no more memory than the other one, and costs less per request."""

    kind: Literal["cheaper at any rate"] = "cheaper at any rate"
    label: str
    against: str
    same_memory: bool
    """Whether both hold the same."""


class BeyondCapacity(Recorded):
    """The trial that is cheaper below the break-even rate answered fewer requests than that."""

    kind: Literal["beyond capacity"] = "beyond capacity"
    label: str
    per_hour: float
    """The most that it answered."""


class TooFewRounds(Recorded):
    """The rate is a measurement, not a verdict."""

    kind: Literal["too few rounds"] = "too few rounds"


class MemoryNotSeparable(Recorded):
    """The rounds do not show which of both holds more memory."""

    kind: Literal["memory not separable"] = "memory not separable"
    label: str
    """The one that is cheaper per request, as far as that is known."""
    against: str
    rounds: int
    cheaper_per_request: bool
    """Whether it is known."""
    further_rounds: int | None
    """How many more rounds would decide it; None if that is unknown."""


class SameCosts(Recorded):
    """Both cost the same per request, and hold the same memory or not."""

    kind: Literal["same costs"] = "same costs"
    label: str
    """The one that holds less memory."""
    against: str
    same_memory: bool
    share: float
    """To within which they cost the same."""


class CostNotSeparable(Recorded):
    """The rounds do not show which of both costs less per request."""

    kind: Literal["cost not separable"] = "cost not separable"
    label: str
    """The one that holds less memory."""
    against: str
    same_memory: bool
    rounds: int
    further_rounds: int | None
    """How many more rounds would decide it; None if that is unknown."""


BreakEvenReason = Annotated[
    NoCommonRound
    | OtherRatesUnknown
    | CheaperAtAnyRate
    | BeyondCapacity
    | TooFewRounds
    | MemoryNotSeparable
    | SameCosts
    | CostNotSeparable,
    Field(discriminator="kind"),
]
"""Why there is no break-even rate, or how far it is known."""


class BreakEven(Recorded):
    """The rate at which two trials cost the same, as far as that is known."""

    trial: str
    """The label of one of them."""
    against: str
    """The label of the one before it in the file."""
    rate_per_hour: float | None = None
    """The rate, in requests an hour."""
    ci95: Interval | None = None
    """Its 95 % interval; None below 5 rounds."""
    cheaper_below: str | None = None
    """The trial that is cheaper below that rate, or at every rate."""
    cheaper_above: str | None = None
    """The trial that is cheaper above it, or at every rate."""
    capped_per_hour: float | None = None
    """The capacity of the one that is cheaper below, if that is lower than the rate."""
    reason: BreakEvenReason | None = None
    """Why there is no such rate, or how far it is known."""
    settled: bool = True
    """Whether the rounds show which of both is cheaper."""
    rounds: int
    """How many rounds both finished."""


class NotMeasured(Recorded):
    """What a price needs was not measured."""

    kind: Literal[
        "no finished round", "no answered request", "memory unknown", "memory over time unknown", "CPU time unknown"
    ]


class MemoryOverSizes(Recorded):
    """The trial held more memory than the largest size has."""

    kind: Literal["memory over sizes"] = "memory over sizes"
    held_mib: float
    """Start-up included."""
    largest_mib: float


class CoresOverSizes(Recorded):
    """The trial took more cores than the largest size has."""

    kind: Literal["cores over sizes"] = "cores over sizes"
    took: float
    """On average."""
    largest: float


Unpriced = Annotated[NotMeasured | MemoryOverSizes | CoresOverSizes, Field(discriminator="kind")]
"""Why a trial cannot be priced."""


class Economics(Recorded):
    """Prices, and what each trial costs at these."""

    prices: PricesUsed
    """The prices that the costs are made of."""
    trials: list[TrialCosts]
    """What each trial costs that can be priced."""
    break_even: list[BreakEven]
    """For each pair of them, the rate at which both cost the same."""
    unpriced: dict[str, Unpriced]
    """Why the others are not priced, by label."""


class Floor(Recorded):
    """The memory of a server between requests without a model, in MiB."""

    trial: str
    """Under which it was measured."""
    rss_mib: float
    pss_mib: float
