"""What theory says of the same arrivals: the clairvoyant minimum, the break-even rates, Belady's count of loads."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from ..bench.workload import Gamma
from ..costs.prices import HOUR, Prices
from ..results.plan import FewestLoads, ModelTheory
from ..results.plan_models import Timeout
from .arrivals import Arrivals
from .eviction import belady_loads, lru_loads
from .outcome import SAME
from .plan_file import PlanInputs
from .profile import ModelProfile, Profile
from .timeouts import (
    best_gamma_timeout,
    best_timeout_in_hindsight,
    break_even_rate,
    clairvoyant_cost,
    ski_rental_timeout,
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
        timeout_s=_timeout(timeout),
        weights_mib=model.weights_mib,
        served_timeout_s=_timeout(served),
        is_served_otherwise=_is_served_otherwise(timeout, served),
        gaps=0 if gaps is None else len(gaps),
        best_timeout_s=None if gaps is None else _timeout(best_timeout_in_hindsight(gaps, m, k)),
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
    return _timeout(best_gamma_timeout(choice.rate, burstiness, m, k))


def _timeout(timeout: float) -> Timeout:
    return timeout if math.isfinite(timeout) else "forever"


def eviction(capacities: Iterable[int], profile: Profile, arrivals: Arrivals, prices: Prices) -> list[FewestLoads]:
    """Loads under LRU for each capacity, and the fewest possible, which cost least if all loads cost the same."""
    costs = [model.cold_start(prices) for model in profile.models.values()]
    return [
        FewestLoads(
            capacity=capacity,
            lru_loads=lru_loads(arrivals.asked, capacity),
            belady_loads=belady_loads(arrivals.asked, capacity),
            optimum=max(costs) <= ALIKE * min(costs),
        )
        for capacity in sorted(set(capacities))
    ]
