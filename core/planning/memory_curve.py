"""What each further GiB of memory saves in cold starts, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..costs.prices import BYTES_PER_MIB, HOUR, MIB_PER_GIB, Prices
from ..costs.worth import MONTH
from ..results.plan_models import MemoryCurve, MemoryPoint, MemoryStep
from .arrivals import Arrivals
from .profile import Profile

MOST_POINTS = 32
FEW = 8  # GiB: of less, a GiB is too much for a step
GIB = MIB_PER_GIB * BYTES_PER_MIB


def memory_curve(profile: Profile, arrivals: Arrivals, prices: Prices) -> MemoryCurve | None:
    """The cost of cold starts with each budget, and of holding it all the time; None for a single model, without a
    price per MiB, or if neither costs anything.

    In memory are the models that were requested last, as many as fit into the budget. The memory that a load takes is
    paid for with the budget, so the cost of a cold start leaves it out.
    """
    models = list(profile.models.values())
    sizes = [round(model.weights_mib * BYTES_PER_MIB) for model in models]
    if len(models) < 2 or prices.billing == "size" or not arrivals.at[-1] or not sum(sizes):
        return None
    step, budgets = _budgets(max(sizes), sum(sizes[model] for model in set(arrivals.asked)))
    needed, months = distances(arrivals.asked, sizes), MONTH * HOUR / arrivals.at[-1]
    per_start = [model.cold_start(prices) - prices.holding(model.mib) * model.load_s for model in models]
    costs = months * np.array(per_start)[arrivals.asked]
    per_mib = HOUR * MONTH * prices.holding(sum(model.mib for model in models) * BYTES_PER_MIB / sum(sizes))
    points = []
    for budget in budgets:
        cold, mib = needed > budget, budget / BYTES_PER_MIB
        found = MemoryPoint(
            budget_mib=mib, loads=int(cold.sum()), cold_starts=float(costs[cold].sum()), holding=per_mib * mib
        )
        points.append(found)
    return _curve(points, step / BYTES_PER_MIB)


def distances(asked: Sequence[int], sizes: Sequence[int]) -> NDArray[np.float64]:
    """For each request, the least memory with which it is no cold start: the sizes of the model and of all others that
    were requested since its previous request (Mattson et al., IBM Systems Journal 9, 1970); infinite for the first one.

    O(n log n), with a Fenwick tree over the positions of requests. The latest request for each model has the model's
    size there, all others 0.
    """
    end = 1 << len(asked).bit_length()
    tree, latest = [0] * (end + 1), [0] * len(sizes)
    found = [math.inf] * len(asked)
    for position, model in enumerate(asked, 1):
        size, before = sizes[model], latest[model]
        if before:
            found[position - 1] = size + _between(tree, before, position - 1)
        moved, at = before or end, position
        while moved != at:  # beyond the node where both walks meet, the two changes cancel out
            if moved < at:
                tree[moved] -= size
                moved += moved & -moved
            else:
                tree[at] += size
                at += at & -at
        latest[model] = position
    return np.array(found)


def _between(tree: Sequence[int], after: int, to: int) -> int:
    """The sum over the positions beyond `after`, up to `to`. Beyond where both walks meet, their sums cancel out."""
    total = 0
    while to > after:
        total += tree[to]
        to &= to - 1
    while after > to:
        total -= tree[after]
        after &= after - 1
    return total


def _budgets(largest: int, total: int) -> tuple[int, list[int]]:
    """A step, and its multiples from the first that has room for the largest model to the first that has room for all.
    The step is a GiB, or a MiB where all models together take only a few GiB, doubled until there are few enough.
    """
    step = GIB if total >= FEW * GIB else BYTES_PER_MIB
    while math.ceil(total / step) - math.ceil(largest / step) >= MOST_POINTS:
        step *= 2
    first = math.ceil(largest / step)
    return step, [step * number for number in range(first, max(first, math.ceil(total / step)) + 1)]


def _curve(points: list[MemoryPoint], step: float) -> MemoryCurve | None:
    """The points and the best one, the smallest budget of those that cost the same."""
    if not any(point.cold_starts or point.holding for point in points):
        return None
    best = min(range(len(points)), key=lambda index: points[index].cold_starts + points[index].holding)
    return MemoryCurve(
        step_mib=step,
        points=points,
        pays_until_mib=points[best].budget_mib,
        more=_step(points[best], points[best + 1]) if best + 1 < len(points) else None,
        less=_step(points[best - 1], points[best]) if best else None,
    )


def _step(smaller: MemoryPoint, larger: MemoryPoint) -> MemoryStep:
    return MemoryStep(cold_starts=smaller.cold_starts - larger.cold_starts, holding=larger.holding - smaller.holding)
