"""Rules that say which model to evict, and the choice of the one that would have cost the least so far.

Each rule is simulated on the requests alone: which models it would hold, and what its cold starts would have cost.
Nothing is loaded for that.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import inf
from typing import Annotated, Any, Literal

from pydantic import Field

Evict = Literal["best", "lru", "sieve", "aged-gdsf"]
BEST = "`best`, which follows the one of these whose cold starts would have cost the least so far."
Rule = Annotated[Evict, Field(description=f"The rule of eviction: `lru`, `sieve`, `aged-gdsf`, or {BEST}")]
AGE = 20  # after so many requests for each known model on average, what was counted is halved
# Another rule is followed when it has paid less than CHEAPER times as much, and less by the cost of BY average cold
# starts: a smaller difference may be chance.
CHEAPER, BY = 0.97, 5


class _Rule:
    """The models that a rule would hold: at most `capacity`, and at most `budget` bytes."""

    def __init__(self, capacity: float, budget: float) -> None:
        self.held: dict[str, int] = {}
        """Bytes by model id."""
        self.paid = 0.0
        """What its cold starts would have cost; older ones count less."""
        self._capacity, self._budget = capacity, budget
        self._bytes = 0

    def request(self, model_id: str, nbytes: int, cost: float) -> None:
        """Hold the model from now on, and pay for a cold start if it was not held."""
        if model_id in self.held:
            self._used(model_id, cost)
            return
        self.paid += cost
        if nbytes > self._budget:
            return
        while len(self.held) >= self._capacity or self._bytes + nbytes > self._budget:
            self._bytes -= self.held.pop(self._take_out())
        self.held[model_id] = nbytes
        self._bytes += nbytes
        self._added(model_id, cost)

    def age(self) -> None:
        """Halve what was counted until now."""
        self.paid /= 2

    def _used(self, model_id: str, cost: float) -> None:
        raise NotImplementedError

    def _added(self, model_id: str, cost: float) -> None:
        raise NotImplementedError

    def _take_out(self) -> str:
        """The model to evict, which is still in `held`."""
        raise NotImplementedError


class _Lru(_Rule):
    """Evicts the least recently used model."""

    def _used(self, model_id: str, cost: float) -> None:
        self.held[model_id] = self.held.pop(model_id)

    def _added(self, model_id: str, cost: float) -> None:
        """Nothing: it is the last one in `held` already."""

    def _take_out(self) -> str:
        return next(iter(self.held))


class _Sieve(_Rule):
    """Goes round the models in the order in which they were loaded, and evicts the first one that was not used since it
    last came by (Zhang et al., NSDI 2024).
    """

    def __init__(self, capacity: float, budget: float) -> None:
        super().__init__(capacity, budget)
        self._order: list[str] = []  # the oldest first
        self._hand = 0
        self._used_since: set[str] = set()

    def _used(self, model_id: str, cost: float) -> None:
        self._used_since.add(model_id)

    def _added(self, model_id: str, cost: float) -> None:
        self._order.append(model_id)

    def _take_out(self) -> str:
        while (model_id := self._order[self._hand]) in self._used_since:
            self._used_since.discard(model_id)
            self._hand = (self._hand + 1) % len(self._order)
        del self._order[self._hand]
        self._hand = 0 if self._hand == len(self._order) else self._hand  # the newest is followed by the oldest
        return model_id


class _AgedGdsf(_Rule):
    """Evicts the model with the least clock + frequency × cost / size (GDSF; Cherkasova, HPL-98-69, 1998).

    Frequencies outlive evictions, and are halved from time to time. Otherwise models that were once popular would stay
    for long in a large memory.
    """

    def __init__(self, capacity: float, budget: float) -> None:
        super().__init__(capacity, budget)
        self._frequency: dict[str, float] = {}
        self._worth: dict[str, float] = {}  # of the models that are held
        self._clock = 0.0

    def request(self, model_id: str, nbytes: int, cost: float) -> None:
        self._frequency[model_id] = self._frequency.get(model_id, 0.0) + 1
        super().request(model_id, nbytes, cost)

    def age(self) -> None:
        super().age()
        self._frequency = {model_id: count / 2 for model_id, count in self._frequency.items()}

    def _used(self, model_id: str, cost: float) -> None:
        size = max(1, self.held[model_id]) if self._budget < inf else 1
        self._worth[model_id] = self._clock + self._frequency[model_id] * cost / size

    _added = _used

    def _take_out(self) -> str:
        model_id = min(self._worth, key=self._worth.__getitem__)
        self._clock = self._worth.pop(model_id)
        return model_id


RULES: Mapping[str, type[_Rule]] = {"lru": _Lru, "sieve": _Sieve, "aged-gdsf": _AgedGdsf}


class Eviction:
    """Chooses the model to evict by one rule; with `best`, by the rule that would have cost the least so far."""

    def __init__(self, evict: Evict, capacity: int | None, budget: int | None, pinned: Collection[str] = ()) -> None:
        """Pinned models are never evicted, and take up a part of the budget and of the capacity."""
        self._names = list(RULES) if evict == "best" else [evict]
        self._capacity, self._budget, self._pinned = capacity, budget, frozenset(pinned)
        self._sizes: dict[str, int] = {}
        self._costs: dict[str, float] = {}  # of a cold start, for the models that were loaded
        self._bytes = self._cost = 0.0  # of all models that were loaded
        self._requests = 0
        self._make_rules()

    def start(self, sizes: Mapping[str, int]) -> None:
        """Begin with these models, in bytes by id."""
        self._sizes = dict(sizes)
        self._make_rules()

    def _make_rules(self) -> None:
        pinned = sum(self._sizes.get(model_id, 0) for model_id in self._pinned)
        capacity = inf if self._capacity is None else max(1, self._capacity - len(self._pinned))
        budget = inf if self._budget is None else self._budget - pinned
        self._rules = [RULES[name](capacity, budget) for name in self._names]
        self._followed = self._rules[0]

    def requested(self, model_id: str) -> None:
        """Pass the request to each rule."""
        if model_id in self._pinned:
            return
        nbytes, cost = self._sizes.get(model_id, 0), self._costs.get(model_id)
        if cost is None:
            cost = nbytes * self._cost / self._bytes if self._bytes else 0.0
        for rule in self._rules:
            rule.request(model_id, nbytes, cost)
        self._requests += 1
        if self._requests >= AGE * len(self._sizes):
            self._requests = 0
            for rule in self._rules:
                rule.age()
        least, followed = min(self._rules, key=_paid), self._followed
        if least.paid < CHEAPER * followed.paid and (followed.paid - least.paid) * len(self._costs) > BY * self._cost:
            self._followed = least
        elif followed.paid >= self._rules[0].paid:  # where nothing is saved, return to LRU
            self._followed = self._rules[0]

    def loaded(self, model_id: str, nbytes: int, cost: float) -> None:
        """Record what a cold start of the model costs, and its size."""
        if model_id in self._costs:
            self._bytes -= self._sizes[model_id]
            self._cost -= self._costs[model_id]
        self._sizes[model_id], self._costs[model_id] = nbytes, cost
        self._bytes += nbytes
        self._cost += cost

    def choose(self, candidates: Collection[Any]) -> str:
        """The id of the candidate to evict: the first one that the rule would not hold, or simply the first one if it
        would hold all, or if the rule is LRU. Candidates begin with the least recently used one.
        """
        if not isinstance(self._followed, _Lru):  # candidates are in the order of answers, _Lru in that of requests
            for model in candidates:
                if model.model_id not in self._followed.held:
                    return str(model.model_id)
        return str(next(iter(candidates)).model_id)


def _paid(rule: _Rule) -> float:
    return rule.paid
