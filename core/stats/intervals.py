"""Intervals of what rounds show, and the verdicts that these support. The unit is the round: one server process.

All of it is about the *median* over rounds, the figure of a typical process: if one process in ten is slow, a handful
of rounds shows the typical one, but not the mean, which depends on processes that the rounds may have missed. Ratios
are taken as logarithms, so that a ratio and its inverse are treated alike, and a machine that slows down by a factor
shifts every value by the same amount, which pairing by round removes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import bdtr, stdtrit

from .estimates import mean_interval

CONFIDENCE = 0.95
VERDICT_ROUNDS = 5  # below, no interval can be had that is not the range of the values several times over
POWER = 0.8  # "would decide it" means: in four of five such experiments
MOST_FURTHER = 1000  # rounds; a larger number would help nobody
EFFICIENCY = 2 / math.pi  # of the median of normal values, relative to their mean: it takes 1.57 times as many
BISECTIONS = 20  # to a millionth


def interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float, str]:
    """(low, high, method): the interval of the median of one value for each round, of 2 or more.

    `order statistics`: the d-th smallest and the d-th largest value hold the median of any continuous distribution with
    the probability 1 − 2 P(B < d), where B is binomial (n, 1/2). Between the two d whose probabilities lie on either
    side of `confidence`, Hettmansperger and Sheather interpolate ("Confidence intervals based on interpolated order
    statistics", Statistics & Probability Letters 4, 1986). `range`: so few rounds that not even the smallest and the
    largest value hold the median that often (5 rounds at 95 %: 93.75 %); then it is these, or Student's where that is
    wider. tests/proofs/test_coverage.py counts how often the interval leaves the truth out.
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    n = len(ordered)
    held = 1 - 2 * bdtr(np.arange(n // 2), n, 0.5)  # by d − 1: how often that pair of values holds the median
    d = int(np.count_nonzero(held >= confidence))
    if not d:
        low, high = mean_interval(ordered, confidence) or (math.nan, math.nan)
        return float(min(low, ordered[0])), float(max(high, ordered[-1])), "range"
    outer, inner = held[d - 1], held[d] if d < len(held) else 0.0
    share = (outer - confidence) / (outer - inner)
    weight = (n - d) * share / (d + (n - 2 * d) * share)
    low = (1 - weight) * ordered[d - 1] + weight * ordered[d]
    high = (1 - weight) * ordered[n - d] + weight * ordered[n - d - 1]
    return float(low), float(high), "order statistics"


def typical(values: Sequence[float]) -> float:
    """The median over rounds: what `interval` is about."""
    return float(np.median(values))


def sign(values: Sequence[float], confidence: float = CONFIDENCE) -> int:
    """1 or −1 if the interval lies on that side of 0, 0 if it contains 0."""
    low, high, _ = interval(values, confidence)
    return 1 if low > 0 else -1 if high < 0 else 0


def chance(values: Sequence[float]) -> float:
    """How often rounds whose true median is 0 would show a difference as large: 1 minus the highest confidence at which
    the interval excludes 0 (a p-value).
    """
    least, most = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (least + most) / 2
        least, most = (middle, most) if sign(values, middle) else (least, middle)
    return 1 - least


def told_apart(chances: Sequence[float]) -> list[bool]:
    """Which of several verdicts hold, so that with 95 % probability none of them is false: Holm's step-down procedure
    ("A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979).
    """
    held = [False] * len(chances)
    for rank, index in enumerate(sorted(range(len(chances)), key=lambda each: chances[each])):
        if chances[index] > (1 - CONFIDENCE) / (len(chances) - rank):
            break
        held[index] = True
    return held


def further_rounds(values: Sequence[float]) -> int | None:
    """How many more rounds would distinguish a true difference as large as the measured one from 0 with a power of
    80 %: rounded up to one significant digit, because more would be a guess.

    None if 1000 would not, and if the difference is smaller than its own standard error, so that it is mostly chance.
    The usual sample size of a paired t-test, divided by the efficiency of a median: the smallest n with
    (t(0.975) + t(0.8)) · deviation / sqrt(n · 2/π) below the difference.
    """
    rounds, difference = len(values), abs(typical(values))
    deviation = float(np.std(values, ddof=1))
    if difference * math.sqrt(rounds) <= deviation:
        return None
    n = np.arange(rounds + 1, rounds + MOST_FURTHER + 1)
    needed = (stdtrit(n - 1, (1 + CONFIDENCE) / 2) + stdtrit(n - 1, POWER)) * deviation / np.sqrt(n * EFFICIENCY)
    enough = np.flatnonzero(needed <= difference)
    return _one_digit(int(enough[0]) + 1) if len(enough) else None


def _one_digit(count: int) -> int:
    """Rounded up: 7, 40, 300."""
    scale = int(f"1{'0' * (len(str(count)) - 1)}")
    return math.ceil(count / scale) * scale
