"""Timeouts that are learned from the gaps between requests.

A gap begins when a model becomes idle and ends with its next request, whether the model is still in memory or not. For
each of ten timeouts, which are multiples of k/m, this adds up what it would have cost so far: under a timeout of f, a
gap of x (both in units of k/m) costs x if x < f, and f + 1 otherwise (in units of k). A model gets the timeout with the
least sum over its own gaps, of which older ones count less, and the gaps of all models, which count as a few of its
own.
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
BEYOND = [factor + 1 for factor in FACTORS]  # what each costs for a gap that is longer
REMEMBERED = 0.98  # what a model's sums are multiplied by at each further gap
LARGE = 1e100  # a weight beyond it is set to 1 again
OTHERS = 10.0  # the mean over the gaps of all models counts as so many gaps of the model's own
DOUBT = 3.0  # beside the gaps of all models, the worst case of each factor counts as so many gaps
# The worst case is the cost of a timeout divided by a clairvoyant's, for a gap that is just longer than the timeout. It
# has no bound for 0, which gets that of 1/128.
WORST = [(factor + 1) / min(factor, 1.0) if factor else 129.0 for factor in FACTORS]
DEARER, SPARED = 1.1, 2.0  # a model may have paid DEARER times what k/m would have cost it, and SPARED k on top


@dataclass(slots=True)
class _History:
    """What is known of a model; costs are in units of k."""

    sums: list[float] = field(default_factory=lambda: [0.0] * len(FACTORS))
    """How much more each factor would have cost than the longest one, times `weight`; older gaps count less."""
    weight: float = 1.0
    """Of the latest gap. It grows with each one, which has the effect that older ones count less."""
    gaps: int = 0
    paid: float = 0.0
    """What its gaps have cost under the factors that were chosen."""
    k_over_m: float = 0.0
    """What they would have cost under k/m."""
    since: float = inf
    """When the gap began that has not ended; infinite if there is none."""
    unit: float = 1.0
    """k/m in seconds, as that gap began."""
    choice: int = K_OVER_M
    """The index of the factor for that gap."""
    is_armed: bool = False
    """Whether the model is in the heap of gaps that may exceed every timeout."""

    @property
    def is_dear(self) -> bool:
        """Whether learning has cost clearly more than k/m would have."""
        return self.paid > DEARER * self.k_over_m + SPARED


class LearnedTimeouts:
    """The timeout of each model. Times are seconds on one clock."""

    def __init__(self) -> None:
        self._models: dict[str, _History] = {}
        self._sums = [DOUBT * worst for worst in WORST]  # over the gaps of all models
        self._gaps = 0
        self._outlasted: list[tuple[float, str]] = []  # a heap: when each open gap exceeds every timeout

    @property
    def knows_models(self) -> bool:
        """Whether something was learned."""
        return self._gaps > 0

    def begin_gap(self, model_id: str, unit: float, now: float) -> float:
        """The timeout of a model that has just become idle, in seconds; `unit` is its k/m."""
        if self._outlasted and self._outlasted[0][0] <= now:
            self._count_outlasted(now)
        if not 0 < unit < inf:  # loading it, or holding it, is free
            return unit
        if (history := self._models.get(model_id)) is None:
            history = self._models[model_id] = _History()
        choice = self._choose(history)
        history.since, history.unit, history.choice = now, unit, choice
        if not history.is_armed:
            history.is_armed = True
            heappush(self._outlasted, (now + FACTORS[-1] * unit, model_id))
        return FACTORS[choice] * unit

    def end_gap(self, model_id: str, now: float) -> None:
        """Count the gap that ends with a request; nothing if the model is in use."""
        if self._outlasted and self._outlasted[0][0] <= now:
            self._count_outlasted(now)
        if (history := self._models.get(model_id)) is not None and history.since < inf:
            self._count(history, (now - history.since) / history.unit)

    def explain(self, model_id: str, unit: float) -> str:
        """Why the model has its timeout, as a sentence."""
        history = self._models.get(model_id) or _History()
        others = sum(each.gaps > 0 for each in self._models.values()) - (history.gaps > 0)
        choice = history.choice if history.since < inf else self._choose(history)
        said = f"its ttl is {FACTORS[choice] * unit:.3g} s"
        usual = f"{said}, in which holding it costs what a cold start does"
        if history.is_dear:
            return f"{usual}, because the timeouts that were learned for it have cost more"
        known = [f"its {_counted(history.gaps, 'gap')}"] if history.gaps else []
        known += [f"those of {_counted(others, 'other model')}"] if others else []
        if not known:
            return f"{usual}, because no gap between requests is known yet"
        return f"{said}, which would have cost the least over {' and '.join(known)}"

    def state(self) -> dict[str, Any]:
        """What was learned, for `restore`."""
        models = {
            name: [each.gaps, each.paid, each.k_over_m, [cost / each.weight for cost in each.sums]]
            for name, each in self._models.items()
            if each.gaps
        }
        return {"factors": list(FACTORS), "gaps": self._gaps, "sums": self._sums, "models": models}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on with what `state` returned. Raises ValueError if that is not of this version, with these factors."""
        if not isinstance(state, Mapping) or state.get("factors") != list(FACTORS):
            raise ValueError("the state is of another version, with other timeouts; what was learned is lost")
        models = {
            name: _History(_checked(sums), 1.0, int(gaps), float(paid), float(k_over_m))
            for name, (gaps, paid, k_over_m, sums) in state["models"].items()
        }
        self._sums, self._gaps, self._models = _checked(state["sums"]), int(state["gaps"]), models

    def forget_all_but(self, model_ids: Collection[str]) -> None:
        """Drop what is known of the models that are no longer served."""
        self._models = {name: known for name, known in self._models.items() if name in model_ids}

    def _choose(self, history: _History) -> int:
        """The index of the factor that would have cost the least."""
        if history.paid > DEARER * history.k_over_m + SPARED:  # as `is_dear`, without a call for each request
            return K_OVER_M
        weight = history.weight * OTHERS / (self._gaps + DOUBT)
        costs = [own + weight * shared for own, shared in zip(history.sums, self._sums, strict=True)]
        return costs.index(min(costs))

    def _count(self, history: _History, gap: float) -> None:
        """End the open gap, and count it, in units of k/m, under each factor."""
        shorter = bisect_right(FACTORS, gap)  # a timeout that ends with the gap frees the model before the request
        longest = gap if shorter < len(FACTORS) else BEYOND[-1]
        sums, shared = history.sums, self._sums
        history.weight = weight = history.weight / REMEMBERED
        for index in range(shorter):  # the others cost as much as the longest one
            more = BEYOND[index] - longest
            sums[index] += weight * more
            shared[index] += more
        history.since = inf
        history.gaps += 1
        self._gaps += 1
        history.paid += BEYOND[history.choice] if history.choice < shorter else gap
        history.k_over_m += BEYOND[K_OVER_M] if shorter > K_OVER_M else gap
        if weight > LARGE:
            history.sums, history.weight = [cost / weight for cost in sums], 1.0

    def _count_outlasted(self, now: float) -> None:
        """Count the open gaps that exceed every timeout, whenever they end: what they cost is known."""
        heap = self._outlasted
        while heap and heap[0][0] <= now:
            _, model_id = heappop(heap)
            if (history := self._models.get(model_id)) is None:
                continue
            due = history.since + FACTORS[-1] * history.unit
            if due <= now:
                self._count(history, inf)
            history.is_armed = now < due < inf
            if history.is_armed:
                heappush(heap, (due, model_id))


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _checked(sums: Any) -> list[float]:
    """The sums as numbers. Raises ValueError if they are not one finite number for each factor."""
    found = [float(each) for each in sums]
    if len(found) != len(FACTORS) or not all(map(isfinite, found)):
        raise ValueError(f"the state needs a finite sum for each of {len(FACTORS)} timeouts, not {found}")
    return found
