"""What a card answers: a type for each kind of sentence, with the figures that it needs.

Rates are requests an hour, sums of money are in the currency of the prices, and trials are named by their labels.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .economics import Unpriced
from .figures import Interval
from .flips import Longer, Rates
from .recorded import Recorded


class RoundsLacking(Recorded):
    """Some trial has too few rounds for a recommendation."""

    kind: Literal["rounds lacking"] = "rounds lacking"
    lacking: int
    repeats: int
    """What to set `repeats` to."""


class FurtherRounds(Recorded):
    """How many more rounds would show which of two costs less."""

    kind: Literal["further rounds"] = "further rounds"
    rounds: int | None
    """None if that is unknown."""
    repeats: int | None
    """What to set `repeats` to."""


class TrialLacking(Recorded):
    """A second trial is needed to compare with."""

    kind: Literal["trial lacking"] = "trial lacking"
    has_second: bool
    """Whether the run has one, which cannot be priced."""


Settles = Annotated[RoundsLacking | FurtherRounds | TrialLacking, Field(discriminator="kind")]
"""What would settle an open answer."""


class NothingPriced(Recorded):
    """Nothing is recommended, because nothing can be priced."""

    kind: Literal["nothing priced"] = "nothing priced"
    reasons: list[Unpriced]
    """Empty if the run states no prices."""


class NothingEligible(Recorded):
    """Every trial is left out."""

    kind: Literal["nothing eligible"] = "nothing eligible"


class NoAlternative(Recorded):
    """No other trial is eligible."""

    kind: Literal["no alternative"] = "no alternative"
    label: str


class MillionCost(Recorded):
    """What a million requests cost under a trial."""

    label: str
    million: float


class MeasuredCosts(Recorded):
    """What the two cheapest cost at a rate, by too few rounds."""

    kind: Literal["measured costs"] = "measured costs"
    rates: Rates
    first: MillionCost
    second: MillionCost


class CheapestAtRate(Recorded):
    """The trial that is the cheapest at a rate."""

    kind: Literal["cheapest at rate"] = "cheapest at rate"
    rates: Rates
    first: MillionCost
    second: MillionCost
    ci95: Interval
    """Of the difference of both."""
    longer: Longer | None


class PerhapsCheaper(MillionCost):
    """A trial that may cost less than the cheapest one."""

    ci95: Interval
    """Of the difference."""


class CheapestNotSettled(Recorded):
    """Which trial is the cheapest at a rate is not settled."""

    kind: Literal["cheapest not settled"] = "cheapest not settled"
    rates: Rates
    first: MillionCost
    others: list[PerhapsCheaper]


class MeanLatency(Recorded):
    """The mean latency of a trial."""

    label: str
    ms: float


class FastestOfSame(Recorded):
    """The fastest trial is recommended, because no other one saves enough to matter."""

    kind: Literal["fastest of same"] = "fastest of same"
    rates: Rates | None
    """None: all."""
    label: str
    mean_ms: float
    slower: list[MeanLatency]
    alike: list[MeanLatency]
    """Trials that the rounds do not show to be slower."""
    has_fewest_options: bool
    """Of these."""
    saves: float | None
    """What another one saves a month, at most; None if that is known as a share of the cost."""
    trifle: float
    """The threshold."""


class MonthlySaving(Recorded):
    """What a trial saves a month against another one at a rate."""

    against: str
    saves: float
    keeps_models: bool
    """Whether it is the trial that keeps its models."""


class SavingsAtRate(Recorded):
    """What the recommended trial saves at a rate."""

    kind: Literal["savings at rate"] = "savings at rate"
    label: str
    savings: list[MonthlySaving]


class RateSaving(Recorded):
    """What is saved a month at a rate."""

    per_hour: float
    saves: float


class SavingsByRate(Recorded):
    """What a trial saves against another one, from one end of some rates to the other."""

    kind: Literal["savings by rate"] = "savings by rate"
    label: str
    against: str
    keeps_models: bool
    """Whether the other one is the trial that keeps its models."""
    savings: list[RateSaving]


class CheapestAtEveryRate(Recorded):
    """One trial is the cheapest at every rate."""

    kind: Literal["cheapest at every rate"] = "cheapest at every rate"
    savings: SavingsByRate


class MeasuredCheapest(Recorded):
    """One trial costs the least at every rate, by too few rounds."""

    kind: Literal["measured cheapest"] = "measured cheapest"
    label: str


class NoneKnownCheaper(Recorded):
    """No trial is known to cost less than this one at any rate."""

    kind: Literal["none known cheaper"] = "none known cheaper"
    label: str


class RateNotSettled(Recorded):
    """At some rates it is not settled whether a trial costs less than another one."""

    kind: Literal["rate not settled"] = "rate not settled"
    label: str
    against: str
    side: Literal["below", "above"] | None
    """Of `at`; None if it is settled nowhere."""
    at: float
    settles: FurtherRounds


class TargetMet(Recorded):
    """All server processes of a trial met a target."""

    kind: Literal["target met"] = "target met"
    label: str
    percentile: str
    target_ms: float
    rounds: int
    least: float
    """The least share of all such processes that meets it."""


class TargetNotSettled(Recorded):
    """Whether a trial meets a target is not settled."""

    kind: Literal["target not settled"] = "target not settled"
    label: str
    percentile: str
    target_ms: float
