"""How many loads a sequence of requests needs if `capacity` models fit, and no two requests overlap."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from heapq import heappop, heappush


def lru_loads(asked: Sequence[int], capacity: int) -> int:
    """Loads if room is made by evicting the least recently used model."""
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
    """Loads if room is made by evicting the model whose next request lies farthest in the future: the fewest possible
    (Belady, IBM Systems Journal 5, 1966; Mattson et al., the same 9, 1970), which is the least cost if the loads of all
    models cost the same.

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


def _following(asked: Sequence[int]) -> list[int]:
    """The position of the next request for the same model; for the last one, a position beyond the end, by model."""
    soonest: dict[int, int] = {}
    following = [0] * len(asked)
    for position in range(len(asked) - 1, -1, -1):
        model = asked[position]
        following[position] = soonest.get(model, len(asked) + model)
        soonest[model] = position
    return following
