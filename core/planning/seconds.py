"""Measured seconds, which many models may share."""

from __future__ import annotations

from functools import cached_property

import numpy as np


class Seconds(tuple[float, ...]):
    """Values from which a simulation draws; their average is computed once for all models that share them."""

    @cached_property
    def average(self) -> float:
        """The mean. It is not named `mean`, because `np.mean` would call a method of that name."""
        return float(np.mean(self))


def mean_of(values: tuple[float, ...]) -> float:
    """The mean of measured seconds."""
    return values.average if isinstance(values, Seconds) else float(np.mean(values))
