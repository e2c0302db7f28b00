"""Traffic that is hard to decide on: models with their costs, and the requests for them.

Prices are the defaults of `cost`. A load takes a second, and eight more for each GiB.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate
from random import Random

from ..costs.prices import BYTES_PER_MIB, FARGATE, MIB_PER_GIB, Prices
from ..residency.replay import ReplayedModel

PRICES = Prices(FARGATE["memory_gib_hour"], FARGATE["cpu_hour"], latency_hour=0.0, charge="pss", billing="average")
LOAD_S, LOAD_S_PER_GIB = 1.0, 8.0
SMALLEST_MIB, LARGEST_MIB = 40.0, 1300.0
POPULARITY = 1.0  # the exponent of Zipf's law

Requests = Sequence[tuple[float, str]]
"""Seconds and model ids, in order."""


@dataclass(frozen=True, eq=False)  # compared and hashed by identity, as a key of caches
class Scenario:
    """Models, requests for them, and limits under which not all models fit into memory."""

    name: str
    models: Mapping[str, ReplayedModel]
    requests: Requests
    budget: int
    """Bytes."""
    capacity: int
    """Models."""

    @property
    def end(self) -> float:
        """When the last request comes."""
        return self.requests[-1][0]

    def fitted(self, budget: int) -> Scenario:
        """The same with another budget, and with sizes and loads in proportion."""
        scale = budget / self.budget
        models = {name: model_of(each.nbytes * scale, each.load_seconds * scale) for name, each in self.models.items()}
        return replace(self, models=models, budget=budget)


def model_of(nbytes: float, load_s: float) -> ReplayedModel:
    """A model with its costs. A load keeps one core busy."""
    size = max(1, int(nbytes))
    mib = size / BYTES_PER_MIB
    cold_start = PRICES.cold_start(processor=load_s, waiting=load_s, load=load_s, mib=mib)
    return ReplayedModel(size, load_s, load_s, PRICES.holding(mib), cold_start)


def break_even_s(model: ReplayedModel) -> float:
    """k/m: the seconds for which holding the model costs what a cold start does."""
    return model.cold_start / model.holding


@cache
def drift() -> Scenario:
    """Requests for few of many models at a time. Every ten minutes the popularity of all changes, some models are never
    requested again, and new ones appear.
    """
    at_once, fresh, seconds, periods = 60, 6, 600.0, 12
    draw = Random("drift")
    models = _drawn(draw, at_once + fresh * periods)
    names, requests = list(models), []
    for period in range(periods):
        known = names[period * fresh : period * fresh + at_once]
        draw.shuffle(known)
        requests += _zipf(draw, known, period * seconds, seconds, 0.5)
    return _limited("drifting catalogue", models, requests, share=0.15 * at_once / len(models))


@cache
def thousand() -> Scenario:
    """A thousand models, most of them requested rarely."""
    draw = Random("thousand")
    models = _drawn(draw, 1000)
    return _limited("a thousand models", models, _zipf(draw, list(models), 0.0, 4000.0, 1.0), share=0.1)


@cache
def narrow() -> Scenario:
    """Memory for one model, and never for two."""
    draw = Random("narrow")
    models = {f"model-{i}": _model_of_mib(draw.uniform(0.55, 1.0) * LARGEST_MIB) for i in range(8)}
    requests = _zipf(draw, list(models), 0.0, 10_000.0, 0.1)
    budget = max(model.nbytes for model in models.values())
    return Scenario("memory for one model", models, tuple(requests), budget, 1)


@cache
def hostile() -> Scenario:
    """Few models, whose requests an adversary is going to choose."""
    return _limited("adversary", _drawn(Random("hostile"), 6), (), share=0.5)


@cache
def many(count: int) -> Scenario:
    """So many models, to time decisions on."""
    draw = Random("many")
    models = _drawn(draw, count)
    return _limited(f"{count} models", models, _zipf(draw, list(models), 0.0, 3000.0, 1.0), share=0.15)


def _limited(name: str, models: Mapping[str, ReplayedModel], requests: Requests, share: float) -> Scenario:
    """Limits for a share of all models, and for the largest one at least."""
    sizes = [model.nbytes for model in models.values()]
    return Scenario(
        name, models, tuple(requests), max(round(share * sum(sizes)), *sizes), max(1, round(share * len(sizes)))
    )


def _drawn(draw: Random, count: int) -> dict[str, ReplayedModel]:
    """Models whose sizes are spread evenly over orders of magnitude."""
    low, high = math.log(SMALLEST_MIB), math.log(LARGEST_MIB)
    return {f"model-{i}": _model_of_mib(math.exp(draw.uniform(low, high))) for i in range(count)}


def _model_of_mib(mib: float) -> ReplayedModel:
    return model_of(mib * BYTES_PER_MIB, LOAD_S + LOAD_S_PER_GIB * mib / MIB_PER_GIB)


def _zipf(draw: Random, names: Sequence[str], start: float, seconds: float, rate: float) -> list[tuple[float, str]]:
    """Requests at random moments, at a rate per second; the first name is requested the most."""
    weights = list(accumulate((rank + 1) ** -POPULARITY for rank in range(len(names))))
    moments = list(_poisson(draw, start, seconds, rate))
    return list(zip(moments, draw.choices(names, cum_weights=weights, k=len(moments)), strict=True))


def _poisson(draw: Random, start: float, seconds: float, rate: float) -> Iterator[float]:
    now = start + draw.expovariate(rate)
    while now < start + seconds:
        yield now
        now += draw.expovariate(rate)
