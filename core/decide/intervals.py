"""Intervals of what rounds show, and what they allow to be said. The unit is the round: one server process.

Everything is done on logarithms, so that a ratio and its inverse are treated alike and a machine that
slows down by a factor shifts every value by the same amount, which pairing by round takes out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import ndtr, stdtrit

from .statistics import mean_interval

CONFIDENCE = 0.95
VERDICT_ROUNDS = 5  # below, Student's factor is above 3 and a single odd round decides
BOOTSTRAP_ROUNDS = 10
RESAMPLES = 9999
POWER = 0.8  # "would separate" means: in four of five such experiments
MOST_FURTHER = 1000  # rounds; a user who is told more than that learns nothing


def interval(values: Sequence[float]) -> tuple[float, float, str]:
    """(low, high, method): the 95 % interval of the mean of one value for each round, from 5 rounds on.

    `t` is Student's. `bootstrap`, from 10 rounds on, is Hesterberg's expanded percentile interval ("What
    Teachers Should Know About the Bootstrap", The American Statistician 69, 2015, section 4.2): the
    percentile interval of n values is too short by about sqrt((n − 1) / n) and by using the normal
    distribution in place of Student's, so SciPy's bootstrap is asked for the confidence that makes up for
    both. In tests/test_coverage.py it covers as it should; percentile and BCa at n = 10 do not.
    """
    if len(values) >= BOOTSTRAP_ROUNDS:
        return (*_bootstrap(values), "bootstrap")
    low, high = mean_interval(values, CONFIDENCE) or (math.nan, math.nan)
    return low, high, "t"


def _bootstrap(values: Sequence[float]) -> tuple[float, float]:
    from scipy.stats import bootstrap  # takes a second to import, and most commands need none of it

    result = bootstrap(
        (np.asarray(values),),
        np.mean,
        n_resamples=RESAMPLES,
        batch=1000,
        confidence_level=expanded(len(values)),
        method="percentile",
        rng=np.random.default_rng(0),  # the same report from the same samples
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def expanded(n: int) -> float:
    """The confidence to ask a percentile bootstrap of n values for, so that it covers 95 %."""
    half = math.sqrt(n / (n - 1)) * float(stdtrit(n - 1, (1 + CONFIDENCE) / 2))
    return float(1 - 2 * ndtr(-half))


def estimate(logs: Sequence[float]) -> dict[str, Any]:
    """A ratio from one log-ratio for each round: as `comparisons` in summary.json holds it.

    `verdict` is "higher" or "lower" where the whole interval lies beyond 1, else "not separable"; None
    below 5 rounds. `further_rounds` are those lacking for a verdict, or those that would probably (in four
    of five cases) separate an effect of the size seen; None where none are needed or over 1000 would be.
    """
    rounds, mean = len(logs), float(np.mean(logs))
    result: dict[str, Any] = {"ratio": math.exp(mean), "ci95": None, "method": None, "rounds": rounds}
    if rounds < VERDICT_ROUNDS:
        return result | {"verdict": None, "further_rounds": VERDICT_ROUNDS - rounds}
    low, high, method = interval(logs)
    verdict = "higher" if low > 0 else "lower" if high < 0 else "not separable"
    further = further_rounds(mean, float(np.std(logs, ddof=1)), rounds) if verdict == "not separable" else None
    result |= {"ci95": [math.exp(low), math.exp(high)], "method": method}
    return result | {"verdict": verdict, "further_rounds": further}


def further_rounds(effect: float, deviation: float, rounds: int) -> int | None:
    """Rounds beyond `rounds` after which an effect would be separated from 0 with a power of 80 %.

    The usual sample size of a paired t-test: the smallest n with (t(0.975) + t(0.8)) · deviation / sqrt(n)
    below the effect, both quantiles with n − 1 degrees of freedom. None when that is over 1000 away.
    """
    n = np.arange(rounds + 1, rounds + MOST_FURTHER + 1)
    needed = (stdtrit(n - 1, (1 + CONFIDENCE) / 2) + stdtrit(n - 1, POWER)) * deviation / np.sqrt(n)
    enough = np.flatnonzero(needed <= abs(effect))
    return int(enough[0]) + 1 if effect and len(enough) else None
