"""What a plan finds of several models: which ones cost the most, which to pin, and which to drop."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ..costs.prices import HOUR, Prices
from ..costs.worth import MONTH
from ..results.plan_models import CostliestModels, ModelCosts, ModelSaving, ModelsToDrop, ModelsToPin
from .arrivals import Arrivals
from .candidates import Candidate
from .outcome import SAME
from .theory import in_hindsight

NAMED = 10  # models


def costliest(chosen: Candidate, prices: Prices) -> CostliestModels | None:
    """The models that cost the most under this setting; None if there is one, or if they cost nothing."""
    costs = _costs(chosen, prices)
    total = sum(holding + starts for holding, starts in costs)
    if len(costs) < 2 or not total:
        return None
    ordered = sorted(zip(chosen.profile.models, costs, strict=True), key=lambda each: -sum(each[1]))
    month, index = _months(chosen), {name: number for number, name in enumerate(chosen.profile.models)}
    named = [
        ModelCosts(
            model=name,
            requests=chosen.by_model.requests[index[name]],
            loads=chosen.by_model.loads[index[name]],
            holding=month * holding,
            cold_starts=month * starts,
            share=(holding + starts) / total,
        )
        for name, (holding, starts) in ordered[:NAMED]
        if holding + starts
    ]
    return CostliestModels(label=chosen.label, models=len(costs), total=month * total, named=named)


def pin_and_drop(chosen: Candidate, arrivals: Arrivals, prices: Prices) -> Iterator[ModelsToPin | ModelsToDrop]:
    """The models that cost less if they are kept all the time, or freed after each request, than under this setting;
    nothing for a single model, or if memory has no price per second.
    """
    if prices.billing != "average" or len(chosen.profile.models) < 2:
        return
    found = in_hindsight(chosen.profile, arrivals, prices)
    now = [sum(each) for each in _costs(chosen, prices)]
    pinned = [each.kept(chosen.by_model.seconds) if each.is_always else math.inf for each in found]
    dropped = [each.freed() if each.is_never else math.inf for each in found]
    for finding, then in ((ModelsToPin, pinned), (ModelsToDrop, dropped)):
        if named := _that_save(chosen, now, then):
            saves, rest = sum(each.saves for each in named), len(named[NAMED:])
            yield finding(label=chosen.label, named=named[:NAMED], rest=rest, saves=saves)


def _that_save(chosen: Candidate, now: Sequence[float], then: Sequence[float]) -> list[ModelSaving]:
    """The models that would cost less by more than the simulator's error, the largest savings first."""
    month = _months(chosen)
    found = [
        ModelSaving(model=name, saves=month * (before - after))
        for name, before, after in zip(chosen.profile.models, now, then, strict=True)
        if before - after > SAME * before
    ]
    return sorted(found, key=lambda each: -each.saves)


def _costs(chosen: Candidate, prices: Prices) -> list[tuple[float, float]]:
    """What each model costs in the whole workload: holding it, and its cold starts without the memory of loads, which
    holding counts already. The sum over models is `Outcome.keep_alive_cost`.
    """
    found, is_held = chosen.by_model, prices.billing == "average"
    costs = []
    for model, loads, held in zip(chosen.profile.models.values(), found.loads, found.mib_seconds, strict=True):
        loading = prices.holding(model.mib) * model.load_s
        costs.append((prices.holding(held) if is_held else 0.0, loads * (model.cold_start(prices) - loading)))
    return costs


def _months(chosen: Candidate) -> float:
    """How often the workload fits into a month."""
    return MONTH * HOUR / chosen.by_model.seconds
