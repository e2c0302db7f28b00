"""Times of forward passes and loads, drawn from those that were measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import NamedTuple

import numpy as np

from .profile import ModelProfile

DRAWS, FEWEST = 1 << 16, 1 << 10  # of each kind over all models, and of one of them; then the same ones again


class Draws(NamedTuple):
    """Endless seconds, for each model by index; models that share measured times take turns at the same draws."""

    warm: list[Iterator[float]]
    first: list[Iterator[float]]
    load: list[Iterator[float]]


def draws_of(models: Sequence[ModelProfile], seed: int) -> Draws:
    """Independent draws with replacement (the bootstrap of each distribution), the same for the same seed."""
    generator = np.random.default_rng(seed)
    kinds = [(model.warm, model.first, model.load) for model in models]
    count = max(FEWEST, DRAWS // len({id(load) for _, _, load in kinds}))
    known: dict[tuple[int, int], Iterator[float]] = {}
    for each in kinds:
        for kind, values in enumerate(each):
            if (key := (kind, id(values))) not in known:
                known[key] = _endless(generator, values, count)
    warm, first, load = ([known[kind, id(each[kind])] for each in kinds] for kind in range(3))
    return Draws(warm, first, [_scaled(draws, model.load_unit_s) for draws, model in zip(load, models, strict=True)])


def _endless(generator: np.random.Generator, values: Sequence[float], count: int) -> Iterator[float]:
    return cycle(values if len(values) == 1 else generator.choice(values, count).tolist())


def _scaled(draws: Iterator[float], unit: float) -> Iterator[float]:
    return draws if unit == 1.0 else map(unit.__mul__, draws)
