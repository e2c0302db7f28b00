"""How many loads a sequence of requests needs in a limited memory, and what they cost, if no two requests overlap."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from heapq import heappop, heappush

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def lru_loads(asked: Sequence[int], capacity: int) -> int:
    """Loads if `capacity` models fit, and room is made by evicting the least recently used one."""
    kept: OrderedDict[int, None] = OrderedDict()
    loads = 0
    for model in asked:
        if model in kept:
            kept.move_to_end(model)
            continue
        loads += 1
        if len(kept) == capacity:
            kept.popitem(last=False)
        kept[model] = None
    return loads


def belady_loads(asked: Sequence[int], capacity: int) -> int:
    """Loads if `capacity` models fit, and room is made by evicting the one whose next request lies farthest in the
    future: the fewest possible (Belady, IBM Systems Journal 5, 1966; Mattson et al., the same 9, 1970), which is the
    least cost if the loads of all models cost the same.

    O(n log n): the heap may hold entries of earlier uses, which are skipped. Written here, because libcachesim, which
    has it, is under the GPL and depends on boto3 and pytest.
    """
    following = _following(asked)
    kept: dict[int, int] = {}  # model: its next use
    latest: list[tuple[int, int]] = []  # (−next use, model)
    loads = 0
    for position, model in enumerate(asked):
        if model not in kept:
            loads += 1
            while len(kept) >= capacity:
                use, victim = heappop(latest)
                if kept.get(victim) == -use:
                    del kept[victim]
        kept[model] = following[position]
        heappush(latest, (-following[position], model))
    return loads


def lru_cost(asked: Sequence[int], sizes: Sequence[float], costs: Sequence[float], room: float) -> float:
    """The cost of the loads if room is made by evicting the least recently used models; a model that is larger than the
    room is held alone. Sizes and costs of a load are by model.
    """
    kept: OrderedDict[int, None] = OrderedDict()
    held, cost = 0.0, 0.0
    for model in asked:
        if model in kept:
            kept.move_to_end(model)
            continue
        cost += costs[model]
        while kept and held + sizes[model] > room:
            held -= sizes[kept.popitem(last=False)[0]]
        kept[model] = None
        held += sizes[model]
    return cost


def least_cost(asked: Sequence[int], sizes: Sequence[float], costs: Sequence[float], room: float) -> float:
    """A lower bound of the cost of the loads, whatever is evicted: PFOO-L (Berger, Beckmann, Harchol-Balter, Practical
    Bounds on Optimal Caching with Variable Object Sizes, SIGMETRICS 2018), with costs.

    A model that stays in memory from one request to its next saves a load. At each request to another model in between
    it takes up its own size of the room that the other one, which has to be in memory, leaves. The bound keeps those
    models that save the most for their room, until the room of all requests together is used up, the last one in part.
    It ignores whether they fit at each single request.
    """
    models, size, cost = np.array(asked, dtype=int), np.array(sizes, dtype=float), np.array(costs, dtype=float)
    order = np.argsort(models, kind="stable")
    again = models[order[1:]] == models[order[:-1]]
    kept = models[order[1:][again]]
    between = (np.diff(order) - 1)[again]
    left = float(np.maximum(0.0, room - size[models[1:-1]]).sum())
    return float(cost[np.unique(models)].sum()) + _least_unsaved(cost[kept], size[kept] * between, left)


def _least_unsaved(values: Floats, needs: Floats, room: float) -> float:
    """The value of what does not fit, if what is worth the most for its room is taken first, the last one in part."""
    free = needs == 0
    values, needs = values[~free], needs[~free]
    order = np.argsort(-values / needs)
    values, used = values[order], np.cumsum(needs[order])
    whole = int(np.searchsorted(used, room, side="right"))
    if whole == len(order):
        return 0.0
    in_part = (room - used[whole - 1] if whole else room) / needs[order[whole]]
    return float(values[whole:].sum() - in_part * values[whole])


def _following(asked: Sequence[int]) -> list[int]:
    """The position of the next request for the same model; for the last one, a position beyond the end, by model."""
    soonest: dict[int, int] = {}
    following = [0] * len(asked)
    for position in range(len(asked) - 1, -1, -1):
        model = asked[position]
        following[position] = soonest.get(model, len(asked) + model)
        soonest[model] = position
    return following
