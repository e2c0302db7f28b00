"""Times of forward passes and loads, drawn from those that were measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import NamedTuple

import numpy as np

from .profile import ModelProfile

DRAWS, FEWEST = 1 << 16, 1 << 10  # of each kind over all models, and of one of them; then the same ones again


class Draws(NamedTuple):
    """Endless seconds, for each model by index; models of one profile take turns at the same ones."""

    warm: list[Iterator[float]]
    first: list[Iterator[float]]
    load: list[Iterator[float]]


def draws_of(models: Sequence[ModelProfile], seed: int) -> Draws:
    """Independent draws with replacement (the bootstrap of each distribution), the same for the same seed."""
    generator = np.random.default_rng(seed)
    distinct = {id(model): model for model in models}
    count = max(FEWEST, DRAWS // len(distinct))
    known = {
        key: tuple(_endless(generator, values, count) for values in (model.warm, model.first, model.load))
        for key, model in distinct.items()
    }
    each = [known[id(model)] for model in models]
    return Draws(*([parts[kind] for parts in each] for kind in range(3)))


def _endless(generator: np.random.Generator, values: Sequence[float], count: int) -> Iterator[float]:
    return cycle(values if len(values) == 1 else generator.choice(values, count).tolist())
