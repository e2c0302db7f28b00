"""Belady's choice and the bound for unequal models, against every choice that there is."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.planning.arrivals import Arrivals
from core.planning.candidates import simulate
from core.planning.eviction import belady_loads, least_cost, lru_cost, lru_loads
from core.planning.profile import Profile
from tests.unit.test_simulate import profile_of, setting

ASKED = st.lists(st.integers(0, 4), max_size=12)
CAPACITY = st.integers(1, 3)


def fewest_loads(asked: list[int], capacity: int) -> int:
    """By trying every victim at every load."""

    @cache
    def search(position: int, kept: frozenset[int]) -> int:
        if position == len(asked):
            return 0
        model = asked[position]
        if model in kept:
            return search(position + 1, kept)
        if len(kept) < capacity:
            return 1 + search(position + 1, kept | {model})
        return 1 + min(search(position + 1, kept - {victim} | {model}) for victim in kept)

    return search(0, frozenset())


@given(ASKED, CAPACITY)
def test_belady_needs_the_fewest_loads(asked: list[int], capacity: int) -> None:
    assert belady_loads(asked, capacity) == fewest_loads(asked, capacity)


@given(ASKED, CAPACITY)
def test_the_lru_needs_what_a_list_says(asked: list[int], capacity: int) -> None:
    recent: list[int] = []
    loads = 0
    for model in asked:
        loads += model not in recent
        recent = [model, *(other for other in recent if other != model)][:capacity]
    assert lru_loads(asked, capacity) == loads >= belady_loads(asked, capacity)


SIZES = st.lists(st.integers(1, 5), min_size=5, max_size=5)
COSTS = st.lists(st.integers(0, 5), min_size=5, max_size=5)
ROOM = st.integers(5, 12)


def least_by_trying(asked: list[int], sizes: list[int], costs: list[int], room: int) -> int:
    """By trying every set of models to keep at every request."""

    @cache
    def search(position: int, kept: frozenset[int]) -> int:
        if position == len(asked):
            return 0
        model = asked[position]
        cost = 0 if model in kept else costs[model]
        others = sorted(kept - {model})
        subsets = (set(each) for count in range(len(others) + 1) for each in combinations(others, count))
        fitting = [each | {model} for each in subsets if sum(sizes[one] for one in each | {model}) <= room]
        return cost + min(search(position + 1, frozenset(each)) for each in fitting)

    return search(0, frozenset())


@given(ASKED, SIZES, COSTS, ROOM)
def test_no_eviction_costs_less_than_the_bound(asked: list[int], sizes: list[int], costs: list[int], room: int) -> None:
    least = least_by_trying(asked, sizes, costs, room)
    assert least_cost(asked, sizes, costs, room) <= least + 1e-9
    assert least <= lru_cost(asked, sizes, costs, room)


@given(st.lists(st.integers(0, 4), max_size=60), CAPACITY)
def test_of_equal_models_the_bound_is_below_beladys_count(asked: list[int], capacity: int) -> None:
    bound = least_cost(asked, [1] * 5, [1] * 5, capacity)
    assert len(set(asked)) <= bound + 1e-9
    assert bound <= belady_loads(asked, capacity) + 1e-9
    assert lru_cost(asked, [1] * 5, [1] * 5, capacity) == lru_loads(asked, capacity)
    if capacity == 1:
        assert bound == lru_loads(asked, 1)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), SIZES, COSTS, ROOM)
@settings(deadline=None, max_examples=30)
def test_no_simulated_server_costs_less_than_the_bound(
    asked: list[int], sizes: list[int], costs: list[int], room: int
) -> None:
    """One that evicts the least recently used model, with requests that do not overlap."""
    [like] = profile_of(1, load=0.1, warm=0.1).models.values()
    models = {str(number): replace(like, weights_mib=float(size)) for number, size in enumerate(sizes)}
    profile, arrivals = Profile("", {}, 0.0, models, ()), Arrivals([float(at) for at in range(len(asked))], asked)
    found = simulate(setting("lru-cached", memory_budget=room << 20), profile, arrivals, 1, 0)
    cost = sum(loads * each for loads, each in zip(found.loads, costs, strict=True))
    assert cost == lru_cost(asked, sizes, costs, room)
    assert cost >= least_cost(asked, sizes, costs, room) - 1e-9


def test_the_bound_of_many_requests_is_found_at_once() -> None:
    """It falls with the room, down to one load of each model."""
    draws = np.random.default_rng(0)
    shares = np.arange(1, 301.0) ** -1.1
    asked = draws.choice(300, 250_000, p=shares / shares.sum()).tolist()
    sizes, costs = draws.uniform(1, 10, 300).tolist(), draws.uniform(1, 3, 300).tolist()
    bounds = [least_cost(asked, sizes, costs, share * sum(sizes)) for share in (0.1, 0.5, 1.01)]
    lru = [lru_cost(asked, sizes, costs, share * sum(sizes)) for share in (0.1, 0.5, 1.01)]
    assert bounds == sorted(bounds, reverse=True)
    assert all(bound < cost for bound, cost in zip(bounds[:2], lru, strict=False))
    assert bounds[-1] == pytest.approx(lru[-1]) == pytest.approx(sum(costs))
