"""From which rate on a trial that holds more and pays less for each request is the cheaper one of two."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from scipy.special import stdtrit

from .economics import Costs, TrialCost
from .intervals import CONFIDENCE, VERDICT_ROUNDS, further_rounds

SAME_MIB = 1.0  # what differs by less holds the same memory


def break_even(costs: Costs | None) -> list[dict[str, Any]]:
    """Every pair of trials: each later one of the file against each earlier one, as summary.json has it.

    With the cost rates a_i + b_i λ, `rate_per_hour` is λ = (a_i − a_j) / (b_j − b_i), the ratio of means over the
    rounds that both finished; `ci95` is Fieller's. It is None where neither has the higher a and the lower b, and
    where it cannot be told (`reason`). `capped_per_hour` is a capacity of the one that is cheaper below, if that
    is lower. `cheaper_below` and `cheaper_above` are None where the rounds cannot tell.
    """
    return [_pair(trial, against) for against, trial in combinations(costs.trials, 2)] if costs else []


def fieller(above: Sequence[float], below: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of mean(above) / mean(below), of pairs; None where that of mean(below) contains 0.

    All ρ for which Student's test does not refute that above − ρ · below has the mean 0 (Fieller, "Some problems in
    interval estimation", Journal of the Royal Statistical Society B 16, 1954): the ρ between the roots of
    ρ² (y² − t² s_yy) − 2 ρ (x y − t² s_xy) + x² − t² s_xx, where s is the covariance matrix of the means.
    """
    n = len(above)
    (s_xx, s_xy), (_, s_yy) = np.cov(above, below) / n
    x, y, t = float(np.mean(above)), float(np.mean(below)), float(stdtrit(n - 1, (1 + CONFIDENCE) / 2))
    a, b, c = y**2 - t**2 * s_yy, x * y - t**2 * s_xy, x**2 - t**2 * s_xx
    if a <= 0:
        return None
    root = math.sqrt(max(0.0, b**2 - a * c))
    return float((b - root) / a), float((b + root) / a)


def _pair(trial: TrialCost, against: TrialCost) -> dict[str, Any]:
    result: dict[str, Any] = {"trial": trial.label, "against": against.label}
    empty = dict.fromkeys(("rate_per_hour", "ci95", "cheaper_below", "cheaper_above", "capped_per_hour", "reason"))
    result |= empty
    both = sorted(set(trial.rounds) & set(against.rounds))
    result["rounds"] = len(both)
    if not both:
        return result | {"reason": "No round was finished by both."}
    for each in (trial, against):
        if not each.is_line:
            return result | {"reason": f"{each.label} has no cost at other rates: models expire in its gaps."}
    pairs = [(trial.rounds[number], against.rounds[number]) for number in both]
    more = [one.holding - other.holding for one, other in pairs]
    less = [other.per_request - one.per_request for one, other in pairs]
    mib = float(np.mean([one.charged_mib - other.charged_mib for one, other in pairs]))
    holds = 0 if abs(mib) < SAME_MIB else _sign(more)
    return result | _verdict(trial, against, more, less, holds)


def _verdict(
    trial: TrialCost, against: TrialCost, more: Sequence[float], less: Sequence[float], holds: int
) -> dict[str, Any]:
    """`more` is what the trial costs more per hour, `less` what it saves on each request; `holds` the sign of the
    first, 0 where it is not to be told from 0.
    """
    saves = _sign(less)
    cheap, dear = (against, trial) if holds > 0 else (trial, against)  # to hold
    if saves == 0:
        return _alike(cheap, dear, holds, less)
    quick, slow = (trial, against) if saves > 0 else (against, trial)  # cheaper for each request
    if holds == 0 or quick is cheap:
        memory = "costs as much to hold as" if holds == 0 else "holds less than"
        sentence = f"{quick.label} {memory} {slow.label}, and costs less for each request."
        return {"cheaper_below": quick.label, "cheaper_above": quick.label, "reason": sentence}
    rate = float(np.mean(more)) / float(np.mean(less))
    interval = fieller(more, less) if len(more) >= VERDICT_ROUNDS else None
    result: dict[str, Any] = {"rate_per_hour": rate, "ci95": list(interval) if interval else None}
    result |= {"cheaper_below": slow.label, "cheaper_above": quick.label}
    if slow.capacity is not None and slow.capacity < rate:
        most = f"No more than {slow.capacity:,.0f} requests an hour were answered under {slow.label}, which is less."
        result |= {"capped_per_hour": slow.capacity, "reason": most}
    elif len(more) < VERDICT_ROUNDS:
        result["reason"] = f"A figure, no verdict: that takes {VERDICT_ROUNDS} rounds."
    return result


def _alike(cheap: TrialCost, dear: TrialCost, holds: int, less: Sequence[float]) -> dict[str, Any]:
    """For each request they cost the same, as far as the rounds tell."""
    rounds = f"{len(less)} round{'s' if len(less) > 1 else ''}"
    if holds == 0:
        return {"reason": f"{cheap.label} and {dear.label} cost the same, as far as {rounds} can tell."}
    if not any(less):
        return {
            "cheaper_below": cheap.label,
            "cheaper_above": cheap.label,
            "reason": f"{cheap.label} holds less than {dear.label}.",
        }
    further = further_rounds(float(np.mean(less)), float(np.std(less, ddof=1)), len(less))
    lacking = "Over 1000 more would be needed" if further is None else f"About {further} more would probably tell"
    sentence = (
        f"{cheap.label} holds less than {dear.label}; what a request costs is not separable in {rounds}. {lacking}."
    )
    return {"cheaper_below": cheap.label, "reason": sentence}


def _sign(values: Sequence[float]) -> int:
    """Of the mean; from 5 rounds on 0 where Student's interval of it contains 0."""
    mean = float(np.mean(values))
    if len(values) >= VERDICT_ROUNDS:
        error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
        if abs(mean) <= float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2)) * error:
            return 0
    return int(np.sign(mean))
