"""Learn from each model's rests how long to keep it.

A rest is the time between two uses of a model, in memory or not. For ten timeouts, which are multiples of k/m, it is
counted what each would have cost so far: a rest of x (in units of k/m) under a timeout of f costs x if x < f, and
otherwise f + 1 (in units of k). A model gets the timeout that would have cost the least on its own rests, of which
older ones count less, and on those of all models, which count as a few of its own.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf, isfinite
from typing import Any

FACTORS = (0.0, *(2.0**exponent for exponent in range(-6, 3)))  # of k/m: 0, 1/64, 1/32 … 4
K_OVER_M = FACTORS.index(1.0)
BEYOND = [factor + 1 for factor in FACTORS]  # what each costs for a rest that is longer than all of them
REMEMBERED = 0.98  # of a model's sums, at each further rest
OTHERS = 10.0  # how many of a model's rests the mean rest of all models counts as
DOUBT = 3.0  # how many rests the worst case of each factor counts as, beside those of all models
# A timeout's cost to that of a clairvoyant, at worst: for a rest that is just longer. That of 0 is unbounded.
WORST = [(factor + 1) / min(factor, 1.0) if factor else 129.0 for factor in FACTORS]
DEARER, SPARED = 1.1, 2.0  # a model may have paid so many times what k/m would have cost it, and so many k on top


@dataclass(slots=True)
class _History:
    """What is known of a model; costs are in units of k."""

    sums: list[float] = field(default_factory=lambda: [0.0] * len(FACTORS))
    """What each factor would have cost, with older rests counting less."""
    rests: int = 0
    paid: float = 0.0
    """Under the factors that it had."""
    k_over_m: float = 0.0
    """What it would have paid under k/m."""


class LearnedTimeouts:
    """The timeout of each model. Times are seconds on one clock."""

    def __init__(self) -> None:
        self._models: dict[str, _History] = {}
        self._sums = [DOUBT * worst for worst in WORST]  # over the rests of all models, and those of doubt
        self._rests = 0
        self._open: dict[str, tuple[float, float, int]] = {}  # rests: since when, k/m in seconds, the factor's index
        self._outlasted: list[tuple[float, str]] = []  # a heap: when each open rest is longer than any timeout
        self._armed: set[str] = set()  # models that are in the heap

    def begin_rest(self, model_id: str, unit: float, now: float) -> float:
        """The timeout of a model that has just become idle, in seconds; `unit` is its k/m."""
        if self._outlasted and self._outlasted[0][0] <= now:
            self._count_outlasted(now)
        if not 0 < unit < inf:  # loading it, or holding it, is free
            return unit
        choice = self._choose(model_id)
        self._open[model_id] = now, unit, choice
        if model_id not in self._armed:
            self._arm(model_id, now + FACTORS[-1] * unit)
        return FACTORS[choice] * unit

    def end_rest(self, model_id: str, now: float) -> None:
        """Count the rest of a model that is requested, if it is idle or not in memory."""
        if self._outlasted and self._outlasted[0][0] <= now:
            self._count_outlasted(now)
        if (rest := self._open.pop(model_id, None)) is not None:
            since, unit, choice = rest
            self._count(model_id, (now - since) / unit, choice)

    def explain(self, model_id: str, unit: float) -> str:
        """Why the model has that timeout, as a sentence."""
        history, others = self._models.get(model_id), len(self._models) - (model_id in self._models)
        seconds = f"{FACTORS[self._choose(model_id)] * unit:.3g} s"
        if history is not None and history.paid > DEARER * history.k_over_m + SPARED:
            return (
                f"it is freed after {seconds}, in which holding it costs what a cold start does, until that pays less"
            )
        known = [f"its {_count(history.rests, 'rest')}"] if history else []
        known += [f"those of {_count(others, 'other model' if known else 'model')}"] if others else []
        if not known:
            return f"none of its rests is known, so it is freed when holding it has cost a cold start, after {seconds}"
        return f"of {' and '.join(known)}, freeing after {seconds} would have cost the least"

    def state(self) -> dict[str, Any]:
        """What it has learned, for `restore`."""
        models = {name: [each.rests, each.paid, each.k_over_m, each.sums] for name, each in self._models.items()}
        return {"factors": list(FACTORS), "rests": self._rests, "sums": self._sums, "models": models}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on with what `state` returned. Raises ValueError if that was learned for other factors."""
        if state["factors"] != list(FACTORS):
            raise ValueError("it was learned for other timeouts")
        models = {
            name: _History(_checked(sums), int(rests), float(paid), float(k_over_m))
            for name, (rests, paid, k_over_m, sums) in state["models"].items()
        }
        self._sums, self._rests, self._models = _checked(state["sums"]), int(state["rests"]), models

    def forget_all_but(self, model_ids: Collection[str]) -> None:
        """Drop what is known of the models that are no longer served."""
        self._models = {name: known for name, known in self._models.items() if name in model_ids}

    def _choose(self, model_id: str) -> int:
        """The index of the factor that would have cost the least."""
        history = self._models.get(model_id)
        if history is None:
            return self._sums.index(min(self._sums))
        if history.paid > DEARER * history.k_over_m + SPARED:
            return K_OVER_M
        weight = OTHERS / (self._rests + DOUBT)
        costs = [own + weight * shared for own, shared in zip(history.sums, self._sums, strict=True)]
        return costs.index(min(costs))

    def _count(self, model_id: str, rest: float, choice: int) -> None:
        """Count a rest, in units of k/m, under each factor."""
        shorter = bisect_right(FACTORS, rest)  # a model is freed at that moment, before a request at it
        costs = BEYOND[:shorter] + [rest] * (len(FACTORS) - shorter)
        history = self._models.get(model_id)
        if history is None:
            history = self._models[model_id] = _History()
        history.sums = [REMEMBERED * own + cost for own, cost in zip(history.sums, costs, strict=True)]
        self._sums = [shared + cost for shared, cost in zip(self._sums, costs, strict=True)]
        history.rests += 1
        self._rests += 1
        history.paid += costs[choice]
        history.k_over_m += costs[K_OVER_M]

    def _arm(self, model_id: str, due: float) -> None:
        self._armed.add(model_id)
        heappush(self._outlasted, (due, model_id))

    def _count_outlasted(self, now: float) -> None:
        """Count the open rests that have become longer than any timeout; what they cost is known."""
        heap = self._outlasted
        while heap and heap[0][0] <= now:
            _, model_id = heappop(heap)
            self._armed.discard(model_id)
            if (rest := self._open.get(model_id)) is None:
                continue
            since, unit, choice = rest
            if (due := since + FACTORS[-1] * unit) <= now:
                del self._open[model_id]
                self._count(model_id, inf, choice)
            else:
                self._arm(model_id, due)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _checked(sums: Any) -> list[float]:
    """The sums. Raises ValueError if they are not those of the factors."""
    found = [float(each) for each in sums]
    if len(found) != len(FACTORS) or not all(map(isfinite, found)):
        raise ValueError("its sums are not those of the timeouts")
    return found
