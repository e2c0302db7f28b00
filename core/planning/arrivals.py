"""A workload's arrivals, as the simulator takes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..bench.traffic import Traffic


@dataclass(frozen=True)
class Arrivals:
    """Seconds since the beginning, ascending, and the index of the model that each requests."""

    at: list[float]
    asked: list[int]

    def from_the_first(self) -> Arrivals:
        """The same, beginning with the first request: what a setting holds before it is not charged."""
        begin = self.at[0] if self.at else 0.0
        return Arrivals([time - begin for time in self.at], self.asked)

    def halves(self) -> tuple[Arrivals, Arrivals]:
        """Two parts with equally many requests, each beginning with its first one."""
        middle = len(self.at) // 2
        halves = Arrivals(self.at[:middle], self.asked[:middle]), Arrivals(self.at[middle:], self.asked[middle:])
        return halves[0].from_the_first(), halves[1].from_the_first()

    def until(self, seconds: float) -> Arrivals:
        """The beginning, of one request at least."""
        count = max(1, int(np.searchsorted(self.at, seconds)))
        return Arrivals(self.at[:count], self.asked[:count])

    def gaps(self) -> dict[int, NDArray[np.float64]]:
        """The times between requests, for each model that is requested."""
        at, asked = np.array(self.at), np.array(self.asked)
        order = np.argsort(asked, kind="stable")
        models, first = np.unique(asked[order], return_index=True)
        times = np.split(at[order], first[1:])
        return {int(model): np.diff(each) for model, each in zip(models, times, strict=True)}


def arrivals_of(traffic: Traffic, number: int = 0) -> Arrivals:
    """The arrivals of the round of that number."""
    index = {model: i for i, model in enumerate(traffic.models)}
    drawn = traffic.arrivals(number)
    return Arrivals([at for at, _ in drawn], [index[request.model] for _, request in drawn])
