"""Measured seconds, which many models may share."""

from __future__ import annotations

from functools import cached_property

import numpy as np


class Seconds(tuple[float, ...]):
    """Values of which a simulation draws; their average is computed once for all models that share them."""

    @cached_property
    def average(self) -> float:
        """Not `mean`, which numpy would call."""
        return float(np.mean(self))


def mean_of(values: tuple[float, ...]) -> float:
    """The mean of measured seconds."""
    return values.average if isinstance(values, Seconds) else float(np.mean(values))
