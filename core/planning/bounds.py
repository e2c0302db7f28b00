"""What theory says of the same arrivals: the clairvoyant minimum, the break-even rates, bounds for eviction."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from ..bench.workload import Gamma
from ..costs.prices import BYTES_PER_MIB, HOUR, Prices
from ..residency.decisions import Decisions
from ..results.plan import FewestLoads, LeastColdStarts, LoadsInRoom, ModelTheory, MoneyInRoom
from ..results.plan_models import Timeout
from .arrivals import Arrivals
from .eviction import belady_loads, least_cost, lru_cost, lru_loads
from .outcome import SAME
from .plan_file import PlanInputs
from .profile import ModelProfile, Profile
from .timeouts import (
    best_gamma_timeout,
    best_timeout_in_hindsight,
    break_even_rate,
    clairvoyant_cost,
    ski_rental_timeout,
    timeout_or_forever,
)

ALIKE = 1.1  # cold starts that differ by less, as far as a run can tell, cost the same


def clairvoyant(profile: Profile, arrivals: Arrivals, prices: Prices) -> float | None:
    """The least that keep-alive per model could cost; None if freed memory is paid for all the same."""
    if prices.billing != "average":
        return None
    models, total = list(profile.models.values()), 0.0
    for index, gaps in arrivals.gaps().items():
        model = models[index]
        total += clairvoyant_cost(gaps, prices.holding(model.mib), model.cold_start(prices))
    return total or None


def theory(inputs: PlanInputs, profile: Profile, arrivals: Arrivals) -> Iterator[ModelTheory]:
    """m, k and what follows from them, for each model that differs from the one before it; nothing if memory is paid
    for by its peak or by a size, so that there is no price per second.
    """
    if inputs.prices.billing != "average":
        return
    gaps, before = arrivals.gaps(), None
    for index, (name, model) in enumerate(profile.models.items()):
        if model == before:
            continue
        before = model
        yield _theory(inputs, profile, name, model, gaps.get(index))


def _theory(
    inputs: PlanInputs, profile: Profile, name: str, model: ModelProfile, gaps: NDArray[np.float64] | None
) -> ModelTheory:
    """Of a model whose requests have those gaps; None if it has no request."""
    m, k = inputs.prices.holding(model.mib), model.cold_start(inputs.prices)
    rate, timeout, served = break_even_rate(m, k), ski_rental_timeout(m, k), _as_served(model, inputs.prices)
    return ModelTheory(
        loader=profile.shown_as,
        model=name,
        mib=model.mib,
        holding_per_hour=m * HOUR,
        cold_start=k,
        cold_start_ms=model.waiting_s * 1e3,
        break_even_per_hour=rate * HOUR if math.isfinite(rate) else None,
        timeout_s=timeout_or_forever(timeout),
        weights_mib=model.weights_mib,
        served_timeout_s=timeout_or_forever(served),
        is_served_otherwise=_is_served_otherwise(timeout, served),
        gaps=0 if gaps is None else len(gaps),
        best_timeout_s=None if gaps is None else timeout_or_forever(best_timeout_in_hindsight(gaps, m, k)),
        expected_timeout_s=_expected(inputs, m, k),
    )


def _as_served(model: ModelProfile, prices: Prices) -> float:
    """k/m as a server computes it from what it knows of itself."""
    return ski_rental_timeout(prices.holding(model.weights_mib), model.cold_start_as_served(prices))


def _is_served_otherwise(timeout: float, served: float) -> bool:
    """Whether the timeout of a server differs from k/m by more than the simulator's error."""
    if not math.isfinite(timeout) or not math.isfinite(served):
        return math.isfinite(served)
    return abs(served - timeout) > SAME * timeout


def _expected(inputs: PlanInputs, m: float, k: float) -> Timeout | None:
    """The best timeout for arrivals of this kind and rate; None for a trace, or if several models share them."""
    choice = inputs.traffic.workload.open
    if choice is None or len(inputs.traffic.models) > 1:
        return None
    regular = 0.0 if choice.arrivals == "constant" else 1.0
    burstiness = choice.arrivals.gamma if isinstance(choice.arrivals, Gamma) else regular
    return timeout_or_forever(best_gamma_timeout(choice.rate, burstiness, m, k))


def eviction(inputs: PlanInputs, found: Iterable[Decisions]) -> Iterator[FewestLoads | LeastColdStarts]:
    """The best that the memory limits of these strategies allow: the fewest loads for each limit of the number of
    models; and a lower bound of the cost under each loader for limits in bytes, and where cold starts differ in cost.
    """
    limits = [(each.capacity, each.budget) for each in found]
    capacities = sorted({capacity for capacity, _ in limits if capacity is not None})
    budgets = sorted({budget for _, budget in limits if budget is not None})
    asked, alike = inputs.arrivals.asked, all(_is_alike(each, inputs.prices) for each in inputs.profiles)
    if capacities:
        rooms = [
            LoadsInRoom(capacity=each, lru_loads=lru_loads(asked, each), belady_loads=belady_loads(asked, each))
            for each in capacities
        ]
        yield FewestLoads(optimum=alike, rooms=rooms)
    for profile in inputs.profiles:
        money = list(_money(inputs, profile, [] if alike else capacities, budgets))
        if money:
            yield LeastColdStarts(loader=profile.shown_as, rooms=money)


def _is_alike(profile: Profile, prices: Prices) -> bool:
    """Whether the cold starts of all models cost the same, as far as a run can tell."""
    costs = [model.cold_start(prices) for model in profile.models.values()]
    return max(costs) <= ALIKE * min(costs)


def _money(
    inputs: PlanInputs, profile: Profile, capacities: Iterable[int], budgets: Iterable[int]
) -> Iterator[MoneyInRoom]:
    """The cost of all cold starts within each limit; nothing if they cost nothing."""
    asked, models = inputs.arrivals.asked, list(profile.models.values())
    costs = [model.cold_start(inputs.prices) for model in models]
    if not sum(costs[model] for model in set(asked)):
        return
    nbytes = [float(round(model.weights_mib * BYTES_PER_MIB)) for model in models]
    for capacity, budget in [*((each, None) for each in capacities), *((None, each) for each in budgets)]:
        room, sizes = (budget, nbytes) if capacity is None else (capacity, [1.0] * len(models))
        assert room is not None
        yield MoneyInRoom(
            capacity=capacity,
            memory_budget=budget,
            lru_cost=lru_cost(asked, sizes, costs, room),
            least_cost=least_cost(asked, sizes, costs, room),
        )
