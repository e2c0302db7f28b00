"""What a choice by the first half of the requests costs in the second half, compared to the best in hindsight."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..contracts import Resident
from ..costs.prices import Prices
from ..residency.decisions import Decisions
from ..results.plan import Hindsight
from .candidates import Candidate, avoidable_cost, most_mib, pool_of, simulate_for
from .plan_file import PlanInputs
from .profile import Profile
from .targets import judge
from .timeouts import best_timeout_in_hindsight

WITHIN = 1.1  # times the best in hindsight: the target for a choice by the first half


@dataclass(frozen=True)
class TimeoutOfEach:
    """A strategy that keeps each idle model for a time of its own."""

    seconds: Mapping[str, float]
    """By model id; a model that is not among them is freed at once."""

    def decisions(self, prices: Prices | None = None) -> Decisions:
        return Decisions(self, "timeout of each")

    def keep(self, model: Resident, now: float) -> float:
        return self.seconds.get(model.model_id, 0.0)


def hindsight(inputs: PlanInputs, found: Sequence[Candidate]) -> Hindsight | None:
    """What the cheapest setting of the first half costs in the second half, and the least cost there, under another
    setting of the plan or under the best timeout for each model. None without a setting to choose.
    """
    pool = pool_of(found)
    if not pool:
        return None
    by_first, best = (min(pool, key=lambda each: each.halves[half]) for half in (0, 1))
    cost, of_grid, of_timeouts = by_first.halves[1], best.halves[1], min(_with_timeouts(inputs), default=None)
    least = of_grid if of_timeouts is None else min(of_grid, of_timeouts)
    return Hindsight(
        by_first=by_first.label,
        cost=cost,
        best=best.label,
        best_cost=of_grid,
        timeouts_cost=of_timeouts,
        ratio=cost / least if least else None,
        target=WITHIN,
    )


def _with_timeouts(inputs: PlanInputs) -> Iterator[float]:
    """The avoidable cost of the second half if each model has its best timeout there, for each loader; nothing where
    timeouts save nothing or are not known, or where these would exceed the plan's limit or miss a target.
    """
    if inputs.prices.billing != "average" or not inputs.on_its_own_clock:
        return
    for profile in inputs.profiles:
        outcome = simulate_for(inputs, TimeoutOfEach(best_timeouts(inputs, profile)), profile, inputs.arrivals)
        most, limit = most_mib(profile, outcome), inputs.limit_mib
        is_too_large = limit is not None and most is not None and most > limit
        missed = any(each.verdict == "missed" for each in judge(outcome, inputs.slo))
        if not (is_too_large or missed or outcome.exceeded):
            yield avoidable_cost(inputs, profile, outcome.halves[1])


def best_timeouts(inputs: PlanInputs, profile: Profile) -> dict[str, float]:
    """The timeout with the least cost on the gaps of the second half, by model id. Where every gap should be bridged,
    it is the longest gap, since the model is not needed after its last request.
    """
    names, found = list(profile.models), {}
    for index, gaps in inputs.arrivals.halves()[1].gaps().items():
        model = profile.models[names[index]]
        holding, cold_start = inputs.prices.holding(model.mib), model.cold_start(inputs.prices)
        best = best_timeout_in_hindsight(gaps, holding, cold_start)
        found[names[index]] = best if math.isfinite(best) else float(gaps.max())
    return found
