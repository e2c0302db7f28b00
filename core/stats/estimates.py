"""Estimates that say when they cannot be made."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit


def percentile(values: Sequence[float] | NDArray[np.float64], q: float) -> float | None:
    """The q-th quantile (0 to 1, linear interpolation); None below `samples_for(q)` values."""
    return float(np.quantile(values, q)) if len(values) >= samples_for(q) else None


def samples_for(q: float) -> int:
    """10 / (1 − q): with fewer, fewer than ten values lie beyond the quantile and it is mostly chance."""
    return math.ceil(round(10 / (1 - q), 6))


def mean_interval(
    rounds: Sequence[float] | NDArray[np.float64], confidence: float = 0.95
) -> tuple[float, float] | None:
    """Student's t-interval of the mean of one value for each round; None below two rounds.

    The unit is the round, that is the server process: requests within one are correlated.
    """
    if len(rounds) < 2:
        return None
    mean = float(np.mean(rounds))
    error = float(np.std(rounds, ddof=1)) / math.sqrt(len(rounds))
    half = float(stdtrit(len(rounds) - 1, (1 + confidence) / 2)) * error
    return mean - half, mean + half


def median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None
