"""The rate above which a trial with more memory and cheaper requests is the cheaper of two."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

from ..results.economics import (
    BeyondCapacity,
    BreakEven,
    BreakEvenReason,
    CheaperAtAnyRate,
    CostNotSeparable,
    MemoryNotSeparable,
    NoCommonRound,
    OtherRatesUnknown,
    SameCosts,
    TooFewRounds,
)
from ..results.figures import Interval
from ..stats.intervals import VERDICT_ROUNDS, further_rounds, interval, sign, typical
from .economics import Costs, TrialCost

SAME_MIB = 1.0  # trials whose memory differs by less hold the same memory
MATTERS = 0.05  # costs of a request whose difference is certainly a smaller share are the same for a choice


def break_even(costs: Costs | None) -> list[BreakEven]:
    """Every pair of trials: each later one of the file against each earlier one.

    With the cost rates a_i + b_i λ, `rate_per_hour` is the λ = (a_i − a_j) / (b_j − b_i) of a typical round, of those
    that both finished; `ci95` is that of `crossing`. It is None if neither has the higher a and the lower b, and if the
    rounds cannot show which has (`reason`). `capped_per_hour` is the capacity of the one that is cheaper below, if that
    is lower. `cheaper_below` and `cheaper_above` are None if the rounds cannot show which is cheaper, and if both cost
    the same; `settled` is False if 5 rounds or more cannot show it.
    """
    return [_pair(trial, against) for against, trial in combinations(costs.trials, 2)] if costs else []


class Crossing(NamedTuple):
    """Where two lines meet: in a typical round, and the 95 % interval of that. Both bounds and `at` may be infinite."""

    at: float
    low: float
    high: float


def crossing(more: Sequence[float], less: Sequence[float]) -> Crossing:
    """The λ at which the median of more − λ · less is 0, where both are positive in most rounds.

    All λ that the sign of more − λ · less in each round does not refute (Fieller's inversion of a test, Journal of the
    Royal Statistical Society B 16, 1954, with `interval` in place of Student's): the interval of the median of the
    rounds' own rates, whose median it is. A round in which a request costs no less has its rate at infinity, one in
    which nothing more is held at 0. Below two rounds there is no interval.
    """
    own = [m / s if m > 0 and s > 0 else 0.0 if m <= 0 else math.inf for m, s in zip(more, less, strict=True)]
    at = typical(own)
    if len(own) < 2:
        return Crossing(at, 0.0, math.inf)
    if math.inf in own:  # the order is all that counts, so that a finite number beyond the others stands for it
        beyond = 2 * max((rate for rate in own if rate < math.inf), default=1.0) + 1
        low, high, _ = interval([min(rate, beyond) for rate in own])
        finite = max(rate for rate in own if rate < math.inf) if any(rate < math.inf for rate in own) else 0.0
        return Crossing(at, max(0.0, min(low, finite)), math.inf if high > finite else high)
    low, high, _ = interval(own)
    return Crossing(at, max(0.0, low), high)


def _pair(trial: TrialCost, against: TrialCost) -> BreakEven:
    both = sorted(set(trial.rounds) & set(against.rounds))
    unknown = [OtherRatesUnknown(label=each.label) for each in (trial, against) if not each.is_line]
    reason = NoCommonRound() if not both else unknown[0] if unknown else None
    if reason is not None:
        return BreakEven(trial=trial.label, against=against.label, rounds=len(both), settled=False, reason=reason)
    pairs = [(trial.rounds[number], against.rounds[number]) for number in both]
    more = [one.holding - other.holding for one, other in pairs]
    less = [other.per_request - one.per_request for one, other in pairs]
    mib = [one.charged_mib - other.charged_mib for one, other in pairs]
    found = _verdict(trial, against, more, less, _holds(mib))
    return BreakEven(
        trial=trial.label,
        against=against.label,
        rate_per_hour=found.rate_per_hour,
        ci95=found.ci95,
        cheaper_below=found.cheaper_below,
        cheaper_above=found.cheaper_above,
        capped_per_hour=found.capped_per_hour,
        reason=found.reason,
        settled=found.settled,
        rounds=len(both),
    )


def _holds(mib: Sequence[float]) -> int | None:
    """1 or −1 if the first holds more or less memory, 0 if both hold the same to within 1 MiB, None if the rounds do
    not show which: that is not the same.
    """
    if len(mib) < VERDICT_ROUNDS:
        return 0 if abs(typical(mib)) < SAME_MIB else _of_figures(mib)
    low, high, _ = interval(mib)
    return 0 if max(abs(low), abs(high)) < SAME_MIB else sign(mib) or None


def _of_figures(values: Sequence[float]) -> int:
    return (typical(values) > 0) - (typical(values) < 0)


class _Verdict(NamedTuple):
    """The fields of `BreakEven` that the costs decide."""

    rate_per_hour: float | None = None
    ci95: Interval | None = None
    cheaper_below: str | None = None
    cheaper_above: str | None = None
    capped_per_hour: float | None = None
    reason: BreakEvenReason | None = None
    settled: bool = True


def _verdict(
    trial: TrialCost, against: TrialCost, more: Sequence[float], less: Sequence[float], holds: int | None
) -> _Verdict:
    """`more` is what the trial costs more per hour, `less` what it saves on each request; `holds` is from `_holds`."""
    saves = sign(less) if len(less) >= VERDICT_ROUNDS else _of_figures(less)
    quick, slow = (trial, against) if saves > 0 else (against, trial)  # cheaper for each request
    if holds is None:
        return _memory_open(quick, slow, more, saves)
    cheap, dear = (against, trial) if holds > 0 else (trial, against)  # to hold
    if saves == 0:
        return _alike(cheap, dear, holds, less)
    if holds == 0 or quick is cheap:
        cheaper = CheaperAtAnyRate(label=quick.label, against=slow.label, same_memory=holds == 0)
        return _Verdict(cheaper_below=quick.label, cheaper_above=quick.label, reason=cheaper)
    met = crossing(more, less) if holds > 0 else crossing([-m for m in more], [-s for s in less])
    rate = met.at if math.isfinite(met.at) else typical(more) / typical(less)
    is_bounded = len(more) >= VERDICT_ROUNDS and met.high < math.inf
    bounds = (met.low, met.high) if is_bounded else None
    capped = slow.capacity if slow.capacity is not None and slow.capacity < rate else None
    reason: BreakEvenReason | None = None
    if capped is not None:
        reason = BeyondCapacity(label=slow.label, per_hour=capped)
    elif len(more) < VERDICT_ROUNDS:
        reason = TooFewRounds()
    return _Verdict(rate, bounds, slow.label, quick.label, capped, reason)


def _memory_open(quick: TrialCost, slow: TrialCost, more: Sequence[float], saves: int) -> _Verdict:
    """The rounds do not show which holds more; `quick` may still be known to cost less for each request."""
    reason = MemoryNotSeparable(
        label=quick.label,
        against=slow.label,
        rounds=len(more),
        cheaper_per_request=bool(saves),
        further_rounds=_further(more),
    )
    return _Verdict(cheaper_above=quick.label if saves else None, settled=False, reason=reason)


def _alike(cheap: TrialCost, dear: TrialCost, holds: int, less: Sequence[float]) -> _Verdict:
    """The rounds do not show which costs less for each request."""
    below = None if holds == 0 else cheap.label
    if _is_trifle(less, cheap):
        same = SameCosts(label=cheap.label, against=dear.label, same_memory=holds == 0, share=MATTERS)
        return _Verdict(cheaper_below=below, cheaper_above=below, reason=same)
    reason = CostNotSeparable(
        label=cheap.label,
        against=dear.label,
        same_memory=holds == 0,
        rounds=len(less),
        further_rounds=_further(less),
    )
    return _Verdict(cheaper_below=below, settled=False, reason=reason)


def _is_trifle(less: Sequence[float], trial: TrialCost) -> bool:
    """Whether requests certainly cost the same to within `MATTERS`; below 5 rounds, whether exactly the same."""
    if len(less) < VERDICT_ROUNDS:
        return not any(less)
    low, high, _ = interval(less)
    return max(abs(low), abs(high)) <= MATTERS * typical(trial.values("per_request"))


def _further(values: Sequence[float]) -> int | None:
    """How many more rounds would decide it; None if that is unknown."""
    return further_rounds(values) if len(values) >= VERDICT_ROUNDS else None
