"""How many loads a sequence of requests needs where `capacity` models fit, each request being over at once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from heapq import heappop, heappush


def lru_loads(asked: Sequence[int], capacity: int) -> int:
    """Loads when the least recently used model makes room."""
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
    """Loads when the model makes room that is asked for the latest: the fewest possible (Belady, IBM Systems
    Journal 5, 1966; Mattson et al., the same 9, 1970), which is the least cost where all models cost the same.

    O(n log n): the heap may hold entries of earlier uses, which are passed over. Written here, because libcachesim,
    which has it, is under the GPL and brings boto3 and pytest along.
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
    """Where the same model is asked for next; beyond the end, at different places, where it is not."""
    soonest: dict[int, int] = {}
    following = [0] * len(asked)
    for position in range(len(asked) - 1, -1, -1):
        model = asked[position]
        following[position] = soonest.get(model, len(asked) + model)
        soonest[model] = position
    return following
