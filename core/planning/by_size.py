"""The seconds of a load as a function of the model's size, fitted to the models of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import ResultsError
from .seconds import Seconds

APART = 1.2  # times the smallest: a line through models that differ by less says nothing of others


@dataclass(frozen=True)
class Line:
    """Seconds, as a function of MiB."""

    start_s: float
    per_mib_s: float

    def at(self, mib: float) -> float:
        return self.start_s + self.per_mib_s * mib


@dataclass(frozen=True)
class Loads:
    """Loads under one loader, for a model of any size."""

    seconds: Line
    processor: Line
    ratios: Seconds
    """Of each measured load to the line, all models together."""

    @property
    def spread(self) -> float:
        """The standard deviation of the ratios."""
        return float(np.std(self.ratios))


def line_of(seconds: Mapping[float, float]) -> Line:
    """The line through these points, seconds by MiB, with neither a negative start nor a negative slope. It has the
    least squares of relative errors, so that small models count as much as large ones.
    """
    from scipy.optimize import nnls  # takes a while to import, and most commands need none of it

    points = [(mib, value) for mib, value in seconds.items() if value > 0]
    if not points:
        return Line(0.0, 0.0)
    rows = np.array([(1 / value, mib / value) for mib, value in points])
    start, per_mib = nnls(rows, np.ones(len(rows)))[0]
    return Line(float(start), float(per_mib))


def loads_of(
    measured: Mapping[str, tuple[float, ...]], weights: Mapping[str, float], processor: Mapping[str, float]
) -> Loads:
    """The loads by size, from the seconds of each measured load, MiB of weights and core seconds of a load, all by
    model id. Raises ResultsError if loads of only one size were measured.
    """
    sizes = [weights[model] for model in measured]
    if min(sizes, default=0.0) * APART > max(sizes, default=0.0):
        raise ResultsError(
            f"In this run only loads of models of about {max(sizes, default=0.0):.0f} MiB were measured, so how long a"
            " load takes at other sizes is unknown: measure two models of different size, such as embedded and"
            " synthetic:bert-base, with a strategy that loads for each request."
        )
    line = line_of(_by_size(weights, {model: float(np.mean(seconds)) for model, seconds in measured.items()}))
    usual = {model: line.at(weights[model]) for model in measured}
    ratios = Seconds(each / usual[model] for model, seconds in measured.items() for each in seconds if usual[model])
    return Loads(line, line_of(_by_size(weights, processor)), ratios or Seconds([1.0]))


def _by_size(weights: Mapping[str, float], seconds: Mapping[str, float]) -> dict[float, float]:
    """The mean over models of one size."""
    found: dict[float, list[float]] = {}
    for model, value in seconds.items():
        found.setdefault(weights[model], []).append(value)
    return {mib: float(np.mean(values)) for mib, values in found.items()}
