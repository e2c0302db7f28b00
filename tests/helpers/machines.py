"""Machines whose truth is known: how far server processes differ from each other, in logarithms of a latency."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Effects = NDArray[np.float64]
"""Of shape (rounds, trials): what is added to the logarithm of each process's latency."""
Machine = Callable[[np.random.Generator, int, int], Effects]
SLOW = float(np.log(1.4))


def symmetric(rng: np.random.Generator, rounds: int, trials: int) -> Effects:
    """Processes that differ by 5 %, on a machine whose rounds differ by 10 %."""
    return rng.normal(0, 0.05, (rounds, trials)) + rng.normal(0, 0.1, (rounds, 1))


def skewed(rng: np.random.Generator, rounds: int, trials: int) -> Effects:
    """The same, but the last trial's processes are never much faster than most, and some are much slower."""
    found = symmetric(rng, rounds, trials)
    found[:, -1] += rng.exponential(0.1, rounds) - 0.1 * np.log(2)
    return found


def one_slow_in_ten(rng: np.random.Generator, rounds: int, trials: int) -> Effects:
    """The same, but one process in ten of the last trial takes 40 % longer."""
    found = symmetric(rng, rounds, trials)
    found[:, -1] += SLOW * (rng.random(rounds) < 0.1)
    return found


def drifting(rng: np.random.Generator, rounds: int, trials: int) -> Effects:
    """The same, and from trial to trial, whose order is drawn in each round, the machine becomes slower or faster than
    it is in the run's typical hour.
    """
    drift = np.cumsum(rng.normal(0.004, 0.03, rounds * trials)).reshape(rounds, trials)
    return np.asarray(symmetric(rng, rounds, trials) + rng.permuted(drift - np.median(drift), axis=1))


MACHINES: dict[str, Machine] = {
    "symmetric": symmetric,
    "skewed": skewed,
    "one slow in ten": one_slow_in_ten,
    "drifting": drifting,
}


def many(machine: Machine) -> Effects:
    """Of two trials, in many runs of 20 rounds."""
    rng = np.random.default_rng(1)
    return np.concatenate([machine(rng, 20, 2) for _ in range(5000)])


def truth(machine: Machine) -> float:
    """The median over processes of the second trial's logarithm relative to the first's."""
    found = many(machine)
    return float(np.median(found[:, 1] - found[:, 0]))


def quiet(rng: np.random.Generator, rounds: int, trials: int) -> Effects:
    """Processes that differ by 3 %, on a machine whose rounds are alike: there is nothing to warn of."""
    return rng.normal(0, 0.03, (rounds, trials))
