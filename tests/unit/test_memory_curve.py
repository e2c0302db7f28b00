"""What each budget of memory saves in cold starts, against the lists and figures of a hand."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.costs.prices import HOUR
from core.costs.worth import MONTH
from core.planning.arrivals import Arrivals
from core.planning.eviction import lru_loads
from core.planning.memory_curve import MOST_POINTS, distances, memory_curve
from core.planning.profile import Profile
from tests.unit.test_simulate import PRICES, profile_of

ASKED = st.lists(st.integers(0, 5), max_size=40)
SIZES = [1, 2, 4, 8, 16, 32]


def different(*mib: float, load: float = 3.0) -> Profile:
    """Models of these sizes: each costs its MiB a second, and 3 for the caller of a cold start."""
    [model] = profile_of(1, load=load).models.values()
    return replace(
        profile_of(0),
        models={f"m{number}": replace(model, mib=size, weights_mib=size) for number, size in enumerate(mib)},
    )


@given(ASKED)
def test_distances_are_what_a_list_says(asked: list[int]) -> None:
    recent: list[int] = []
    expected = []
    for model in asked:
        between = recent[: recent.index(model) + 1] if model in recent else None
        expected.append(math.inf if between is None else sum(SIZES[each] for each in between))
        recent = [model, *(other for other in recent if other != model)]
    assert distances(asked, SIZES).tolist() == expected


@given(ASKED, st.integers(1, 6))
def test_of_equal_models_it_loads_as_often_as_the_lru(asked: list[int], capacity: int) -> None:
    assert np.count_nonzero(distances(asked, [7] * 6) > 7 * capacity) == lru_loads(asked, capacity)


def test_memory_pays_until_a_step_costs_more_than_it_saves() -> None:
    """In turn 0 and 1, for 100 s, and then 2 once: room for both saves 98 of 101 loads."""
    arrivals = Arrivals([float(at) for at in range(101)], [*[0, 1] * 50, 2])
    curve = memory_curve(different(2.0, 3.0, 4.0), arrivals, replace(PRICES, memory_gib_hour=0.1 * 3600 * 1024))
    assert curve is not None
    per_month = MONTH * HOUR
    assert curve.step_mib == 1.0
    assert [point.budget_mib for point in curve.points] == [4, 5, 6, 7, 8, 9]
    assert [point.loads for point in curve.points] == [101, 3, 3, 3, 3, 3]
    assert [point.cold_starts for point in curve.points] == pytest.approx([
        3 * loads / 100 * per_month for loads in (101, 3, 3, 3, 3, 3)
    ])  # fmt: skip
    assert [point.holding for point in curve.points] == pytest.approx([
        0.1 * budget * per_month for budget in range(4, 10)
    ])  # fmt: skip
    assert curve.pays_until_mib == 5
    assert curve.more is not None
    assert curve.less is not None
    assert (curve.more.cold_starts, curve.more.holding) == pytest.approx((0.0, 0.1 * per_month))
    assert (curve.less.cold_starts, curve.less.holding) == pytest.approx((2.94 * per_month, 0.1 * per_month))


def test_memory_that_is_free_pays_until_all_fit_and_what_loads_at_no_cost_needs_none() -> None:
    arrivals = Arrivals([0.0, 1.0, 2.0, 3.0], [0, 1, 0, 1])
    free = memory_curve(different(1.0, 1.0), arrivals, replace(PRICES, memory_gib_hour=0.0))
    assert free is not None
    assert (free.pays_until_mib, free.more) == (2, None)
    loaded = memory_curve(different(1.0, 1.0, load=0.0), arrivals, PRICES)
    assert loaded is not None
    assert (loaded.pays_until_mib, loaded.less) == (1, None)
    assert memory_curve(different(1.0, 1.0, load=0.0), arrivals, replace(PRICES, memory_gib_hour=0.0)) is None


@pytest.mark.parametrize(("mib", "step"), [(10.0, 4), (100.0, 32), (300.0, 128), (1000.0, 1024), (20_000.0, 8192)])
def test_there_are_few_budgets_and_the_last_has_room_for_all(mib: float, step: float) -> None:
    arrivals = Arrivals([float(at) for at in range(10)], list(range(10)))
    curve = memory_curve(different(*[mib] * 10), arrivals, PRICES)
    assert curve is not None
    budgets = [point.budget_mib for point in curve.points]
    assert (curve.step_mib, len(budgets) <= MOST_POINTS) == (step, True)
    assert mib <= budgets[0] < mib + step
    assert 10 * mib <= budgets[-1] < 10 * mib + step


@pytest.mark.slow
def test_a_quarter_of_a_million_requests_over_300_models_take_seconds() -> None:
    draws = np.random.default_rng(0)
    shares = 1 / np.arange(1.0, 301.0)
    asked = draws.choice(300, 250_000, p=shares / shares.sum()).tolist()
    arrivals = Arrivals(np.cumsum(draws.exponential(1.0, len(asked))).tolist(), asked)
    began = time.perf_counter()
    curve = memory_curve(different(*[100.0] * 300), arrivals, PRICES)
    took = time.perf_counter() - began
    assert curve is not None
    print(f"{len(curve.points)} budgets in {took:.1f} s")
    assert took < 3


def test_without_a_price_per_mib_or_other_models_there_is_no_curve() -> None:
    arrivals = Arrivals([0.0, 1.0], [0, 0])
    assert memory_curve(different(1.0), arrivals, PRICES) is None
    assert memory_curve(different(1.0, 1.0), arrivals, replace(PRICES, billing="size")) is None
