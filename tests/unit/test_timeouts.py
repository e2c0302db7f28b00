"""The closed forms of docs/economics.md, against numbers that are drawn or searched."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.planning.timeouts import (
    POISSON_REGRET,
    best_gamma_timeout,
    best_timeout_in_hindsight,
    break_even_rate,
    clairvoyant_cost,
    cost_rate,
    ski_rental_timeout,
    timeout_cost,
)

GAPS = st.lists(st.floats(0, 1000), max_size=30).map(np.array)
PRICE = st.floats(1e-3, 1e3)


@pytest.mark.parametrize("timeout", [0.0, 0.3, 2.0, math.inf])
@pytest.mark.parametrize("rate", [0.1, 1.0, 7.0])
def test_poisson_gaps_cost_what_the_formula_says(rate: float, timeout: float) -> None:
    gaps = np.random.default_rng(1).exponential(1 / rate, 100_000)
    each = 2.0 * np.minimum(gaps, timeout) + 3.0 * (gaps > timeout)
    found = float(each.mean()) * rate
    error = float(each.std()) * rate / math.sqrt(len(gaps))
    assert found == pytest.approx(cost_rate(timeout, rate, 2.0, 3.0), abs=4 * error + 1e-9)


def test_the_best_poisson_timeout_flips_at_the_break_even_rate() -> None:
    flip = break_even_rate(2.0, 3.0)
    assert flip == 2 / 3
    timeouts = [0.0, 0.1, 1.0, 10.0, math.inf]
    for rate in (0.9 * flip, 1.1 * flip):
        assert best_gamma_timeout(rate, 1.0, 2.0, 3.0) == min(timeouts, key=lambda t: cost_rate(t, rate, 2.0, 3.0))
    assert [cost_rate(t, flip, 2.0, 3.0) for t in timeouts] == pytest.approx([2.0] * 5)
    assert (break_even_rate(1.0, 0.0), ski_rental_timeout(0.0, 1.0)) == (math.inf, math.inf)


def test_at_the_break_even_rate_every_timeout_pays_158_times_the_clairvoyant() -> None:
    gaps = np.random.default_rng(2).exponential(3 / 2, 400_000)
    for timeout in (0.0, 1.0, math.inf):
        ratio = timeout_cost(gaps, timeout, 2.0, 3.0) / clairvoyant_cost(gaps, 2.0, 3.0)
        assert ratio == pytest.approx(POISSON_REGRET, rel=0.01)


@given(GAPS, PRICE, PRICE)
def test_ski_rental_costs_at_most_twice_the_clairvoyant(gaps: np.ndarray, holding: float, cold_start: float) -> None:
    paid = timeout_cost(gaps, ski_rental_timeout(holding, cold_start), holding, cold_start)
    least = clairvoyant_cost(gaps, holding, cold_start)
    assert least <= paid * (1 + 1e-9)
    assert paid <= 2 * least * (1 + 1e-9)


@pytest.mark.process
@given(GAPS, PRICE, PRICE)
def test_no_timeout_is_better_than_the_best_in_hindsight(gaps: np.ndarray, holding: float, cold_start: float) -> None:
    best = timeout_cost(gaps, best_timeout_in_hindsight(gaps, holding, cold_start), holding, cold_start)
    tried = [0.0, math.inf, *gaps, *(gaps / 2), *(gaps * 1.01)]
    assert best <= min(timeout_cost(gaps, timeout, holding, cold_start) for timeout in tried) * (1 + 1e-9)


@pytest.mark.process
@pytest.mark.parametrize(
    ("burstiness", "threshold"), [(4.0, 0.5), (4.0, 1.0), (20.0, 0.2), (4.0, 0.1), (0.5, 0.5), (0.5, 2.0), (1.0, 2.0)]
)
def test_the_best_gamma_timeout_is_where_the_hazard_rate_says(burstiness: float, threshold: float) -> None:
    gaps = np.random.default_rng(3).gamma(1 / burstiness, burstiness, 400_000)
    found = best_gamma_timeout(1.0, burstiness, threshold, 1.0)
    tried = [0.0, *np.geomspace(1e-4, 100, 60), math.inf]
    least = min(timeout_cost(gaps, timeout, threshold, 1.0) for timeout in tried)
    assert timeout_cost(gaps, found, threshold, 1.0) == pytest.approx(least, rel=0.01)
    assert (0 < found < math.inf) == (burstiness > 1 and threshold > 1 / burstiness)
