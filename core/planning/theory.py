"""The theory of keep-alive over many models: the best timeout of each, and quantiles over all of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..costs.prices import HOUR, Prices
from ..results.plan import ModelTheory
from ..results.plan_models import Quantiles, TheoryOverModels, TimeoutQuantiles
from .arrivals import Arrivals
from .profile import ModelProfile, Profile
from .timeouts import best_timeout_in_hindsight, break_even_rate, ski_rental_timeout, timeout_or_forever

MANY = 5  # of more models that differ, a sentence each would be too much to read
QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class InHindsight:
    """The best fixed timeout of a model, all its requests known; seconds and money a second."""

    model: ModelProfile
    requests: int
    holding: float
    cold_start: float
    timeout: float
    """Infinite if the model should stay in memory through every gap."""
    seconds: float
    """The length of the workload."""

    @property
    def is_always(self) -> bool:
        """Whether it costs the least if it is kept all the time, before its first and after its last request too."""
        return math.isinf(self.timeout) and self.holding * self.seconds < self.cold_start * (self.requests - 1)

    @property
    def is_never(self) -> bool:
        """Whether it costs the least if it is freed after each request."""
        return self.requests > 0 and self.timeout == 0.0

    def kept(self, seconds: float) -> float:
        """What it costs if it is loaded once, beforehand, and kept for so long."""
        return self.holding * (seconds - self.model.load_s) + self.cold_start

    def freed(self) -> float:
        """What it costs if each request loads it."""
        serving = float(np.mean(self.model.first)) + self.model.unload
        return self.requests * (self.cold_start + self.holding * serving)


def in_hindsight(profile: Profile, arrivals: Arrivals, prices: Prices) -> list[InHindsight]:
    """The best timeout of each model, in the order of the profile; 0 for a model without a request."""
    gaps, seconds = arrivals.gaps(), arrivals.at[-1]
    found = []
    for index, model in enumerate(profile.models.values()):
        m, k, own = prices.holding(model.mib), model.cold_start(prices), gaps.get(index)
        timeout = 0.0 if own is None else best_timeout_in_hindsight(own, m, k)
        found.append(InHindsight(model, 0 if own is None else len(own) + 1, m, k, timeout, seconds))
    return found


def theory_over_models(
    profiles: Iterable[Profile], arrivals: Arrivals, prices: Prices, rows: Sequence[ModelTheory]
) -> Iterator[TheoryOverModels]:
    """One for each loader under which more than `MANY` models differ, which `rows` has."""
    for profile in profiles:
        if sum(row.loader == profile.shown_as for row in rows) > MANY:
            yield _of(profile.shown_as, in_hindsight(profile, arrivals, prices))


def _of(loader: str, found: Sequence[InHindsight]) -> TheoryOverModels:
    timeouts = [ski_rental_timeout(each.holding, each.cold_start) for each in found]
    rates = [break_even_rate(each.holding, each.cold_start) * HOUR for each in found if each.cold_start]
    best = [each.timeout for each in found if each.requests]
    return TheoryOverModels(
        loader=loader,
        models=len(found),
        mib=_quantiles([each.model.mib for each in found]),
        timeout_s=_timeout_quantiles(timeouts),
        break_even_per_hour=_quantiles(rates) if rates else None,
        requested=len(best),
        best_timeout_s=_timeout_quantiles(best) if best else None,
        always=sum(each.is_always for each in found),
        never=sum(each.is_never for each in found),
    )


def _quantiles(values: Sequence[float]) -> Quantiles:
    least, lower, median, upper, most = _quarters(values)
    return Quantiles(least=least, lower_quartile=lower, median=median, upper_quartile=upper, most=most)


def _timeout_quantiles(values: Sequence[float]) -> TimeoutQuantiles:
    least, lower, median, upper, most = map(timeout_or_forever, _quarters(values))
    return TimeoutQuantiles(least=least, lower_quartile=lower, median=median, upper_quartile=upper, most=most)


def _quarters(values: Sequence[float]) -> list[float]:
    """Quantiles that are values of the sample, since nothing lies between a timeout and an infinite one."""
    return [float(each) for each in np.quantile(values, QUARTERS, method="inverted_cdf")]
