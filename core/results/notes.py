"""What a card notes beside its answer, a type for each kind of sentence, and all kinds together.

Rates are requests an hour, sums of money are in the currency of the prices, and trials are named by their labels.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .answers import (
    CheapestAtEveryRate,
    CheapestAtRate,
    CheapestNotSettled,
    FastestOfSame,
    MeasuredCheapest,
    MeasuredCosts,
    NoAlternative,
    NoneKnownCheaper,
    NothingEligible,
    NothingPriced,
    RateNotSettled,
    SavingsAtRate,
    SavingsByRate,
    TargetMet,
    TargetNotSettled,
)
from .economics import BreakEvenReason, Floor, LoadsLacking, SizePrice, Unpriced
from .figures import OverLimit
from .flips import Capacity, Flip
from .header import Billing, Charge
from .recorded import PageCache, Recorded


class LeftOutForErrors(Recorded):
    """A trial is left out, because requests failed."""

    kind: Literal["left out for errors"] = "left out for errors"
    label: str
    errors: int


class LeftOutForAnswers(Recorded):
    """A trial is left out, because its answers differ from those of the others."""

    kind: Literal["left out for answers"] = "left out for answers"
    label: str


class LeftOutForMemory(Recorded):
    """A trial is left out, because it held more memory than the limit."""

    kind: Literal["left out for memory"] = "left out for memory"
    label: str
    over: OverLimit


class LeftOutForTarget(Recorded):
    """A trial is left out, because it misses a target."""

    kind: Literal["left out for target"] = "left out for target"
    label: str
    percentile: str
    target_ms: float


class LeftOutForCapacity(Recorded):
    """A trial is left out, because it cannot answer so many requests."""

    kind: Literal["left out for capacity"] = "left out for capacity"
    label: str
    capacity: Capacity


LeftOut = LeftOutForErrors | LeftOutForAnswers | LeftOutForMemory | LeftOutForTarget | LeftOutForCapacity
"""Why a trial is not recommended, whatever it costs."""


class NotCompared(Recorded):
    """A trial is not compared, because its models expire and the run has no workload."""

    kind: Literal["not compared"] = "not compared"
    label: str


class ValidGaps(Recorded):
    """The cost of a trial is valid only if every gap between requests is shorter than this."""

    kind: Literal["valid gaps"] = "valid gaps"
    label: str
    shorter_than_s: float


class NotPriced(Recorded):
    """A trial cannot be priced."""

    kind: Literal["not priced"] = "not priced"
    label: str
    reason: Unpriced


class BackToBackProcessor(Recorded):
    """CPU time was measured with back-to-back requests."""

    kind: Literal["back-to-back CPU time"] = "back-to-back CPU time"


class BackToBackWaiting(Recorded):
    """The waiting that is paid for is that of so many clients."""

    kind: Literal["back-to-back waiting"] = "back-to-back waiting"
    clients: int


class UnknownAbove(Recorded):
    """Nothing is known of a trial above the highest rate that it answered."""

    kind: Literal["unknown above"] = "unknown above"
    label: str
    capacity: Capacity


class CheapestElsewhereUnknown(Recorded):
    """At which other rates a trial stops being the cheapest is unknown, because its models expire."""

    kind: Literal["cheapest elsewhere unknown"] = "cheapest elsewhere unknown"
    label: str


class OtherCheapestAtTwice(Recorded):
    """At twice the price of memory, another trial is the cheapest."""

    kind: Literal["other cheapest at twice"] = "other cheapest at twice"
    label: str
    start: float
    """From this rate on; 0: at every rate."""


class RatesAtTwice(Recorded):
    """At twice the price of memory, the answer changes at these rates."""

    kind: Literal["rates at twice"] = "rates at twice"
    rates: list[float]


class Fitting(Recorded):
    """A trial that fits a size."""

    label: str
    per_hour: float
    """Requests for which the cores of that size have time."""


class SizeFits(Recorded):
    """Which trials fit a size, and how many requests its cores have time for."""

    kind: Literal["size fits"] = "size fits"
    size: SizePrice
    trials: list[Fitting]
    waiting_costs: bool
    """Whether waiting has a price."""


class LoadDifference(Recorded):
    """How much longer a load takes than those that requests waited for."""

    label: str
    rounds: int
    further_ms: float | None
    """None if the rounds show no difference."""
    further_processor_s: float | None


class LoadsPriced(Recorded):
    """From where loads are priced."""

    kind: Literal["loads priced"] = "loads priced"
    page_cache: PageCache
    billing: Billing
    measured: PageCache
    """From where the loads came that requests waited for."""
    differences: list[LoadDifference]
    """Empty if both are the same."""


class LatenciesMeasured(Recorded):
    """Latencies are as measured, whatever loads are priced from."""

    kind: Literal["latencies measured"] = "latencies measured"
    page_cache: PageCache


class LoadCostUnknown(Recorded):
    """Loads of these trials are priced as measured, because the cost of others is unknown."""

    kind: Literal["load cost unknown"] = "load cost unknown"
    page_cache: PageCache
    """From where they should be priced."""
    labels: list[str]
    reason: LoadsLacking


class MemoryLimit(Recorded):
    """The limit of memory, and the least that any setting takes."""

    kind: Literal["memory limit"] = "memory limit"
    limit_mib: float
    floor: Floor | None


class OtherCharge(Recorded):
    """The answer if the other kind of memory is charged."""

    kind: Literal["other charge"] = "other charge"
    charge: Charge
    loads_from: PageCache | None
    """From where loads are then priced, if that differs."""
    answer: list[Finding]


Finding = Annotated[
    Flip
    | BreakEvenReason
    | NothingPriced
    | NothingEligible
    | NoAlternative
    | MeasuredCosts
    | CheapestAtRate
    | CheapestNotSettled
    | FastestOfSame
    | SavingsAtRate
    | SavingsByRate
    | CheapestAtEveryRate
    | MeasuredCheapest
    | NoneKnownCheaper
    | RateNotSettled
    | TargetMet
    | TargetNotSettled
    | LeftOut
    | NotCompared
    | ValidGaps
    | NotPriced
    | BackToBackProcessor
    | BackToBackWaiting
    | UnknownAbove
    | CheapestElsewhereUnknown
    | OtherCheapestAtTwice
    | RatesAtTwice
    | SizeFits
    | LoadsPriced
    | LatenciesMeasured
    | LoadCostUnknown
    | MemoryLimit
    | OtherCharge,
    Field(discriminator="kind"),
]
"""A sentence of the card, as a fact."""
OtherCharge.model_rebuild()
