"""Which nodes are a model's homes: what hashing promises, and what placement adds."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.cluster.homes import CHOICES, DEAD_BAND, LEAST_GAIN, Demand, Homes, NodeRoom, homes_wanted, order, place
from core.config.cluster import Copies

T = TypeVar("T")
MIB = 1 << 20
MODELS = [f"model-{i}" for i in range(1, 10_001)]
COPIES = Copies()
ONE_HOME = Copies(max=1)
CASES = settings(max_examples=100, deadline=None, database=None, derandomize=True)

ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
names = st.integers(1, 256).map(lambda i: f"n{i}")
weights = st.dictionaries(names, st.floats(0.1, 10), min_size=1, max_size=12)
rates = st.just(0.0) | st.floats(0.001, 100)
demands = st.dictionaries(
    ids, st.builds(Demand, rates, st.floats(0.0001, 0.1), st.integers(0, 500).map(lambda n: n * MIB)), max_size=30
)
rooms = st.dictionaries(
    names,
    st.builds(NodeRoom, st.floats(0.5, 4), st.none() | st.integers(0, 2000).map(lambda n: n * MIB)),
    min_size=1,
    max_size=8,
)


def nodes_of(count: int, budget: int | None = None) -> dict[str, NodeRoom]:
    return {f"n{i}": NodeRoom(budget=budget) for i in range(1, count + 1)}


def equal(count: int) -> dict[str, float]:
    return {f"n{i}": 1.0 for i in range(1, count + 1)}


def zipf(count: int, busy: float, rng: random.Random) -> dict[str, Demand]:
    """Models with rates as 1, 1/2, 1/3 …, which keep `busy` nodes busy together, and sizes of any order."""
    total = sum(1 / i for i in range(1, count + 1))
    return {
        f"model-{i}": Demand(busy / 0.006 / total / i, 0.006, int(rng.lognormvariate(5, 0.8) * MIB))
        for i in range(1, count + 1)
    }


def shuffled(mapping: Mapping[str, T], rng: random.Random) -> dict[str, T]:
    """The same in another order."""
    return dict(rng.sample(list(mapping.items()), len(mapping)))


def loads(demands: Mapping[str, Demand], homes: Mapping[str, Homes], nodes: Mapping[str, NodeRoom]) -> dict[str, float]:
    """The load of each node relative to its weight."""
    result = dict.fromkeys(nodes, 0.0)
    for model, names in homes.items():
        for name in names:
            result[name] += demands[model].load / len(names) / nodes[name].weight
    return result


def held(demands: Mapping[str, Demand], homes: Mapping[str, Homes]) -> Counter[str]:
    """The bytes of the homes on each node."""
    result: Counter[str] = Counter()
    for model, names in homes.items():
        result.update(dict.fromkeys(names, demands[model].nbytes))
    return result


@pytest.mark.parametrize("nodes", [2, 3, 10, 100])
def test_similar_ids_are_spread_evenly(nodes: int) -> None:
    """Chi-squared over its degrees of freedom is near 1, for each place in the order."""
    orders = [order(model, equal(nodes)) for model in MODELS]
    for place_in_order in {0, 1, nodes - 1}:
        counts = Counter(names[place_in_order] for names in orders)
        expected = len(MODELS) / nodes
        chi_squared = sum((counts[name] - expected) ** 2 / expected for name in equal(nodes))
        assert chi_squared / (nodes - 1) < 1 + 4 * math.sqrt(2 / (nodes - 1))


def test_the_second_choice_does_not_depend_on_the_first() -> None:
    counts = Counter(order(model, equal(10))[:2] for model in MODELS)
    expected = len(MODELS) / 90
    assert len(counts) == 90
    assert sum((count - expected) ** 2 / expected for count in counts.values()) / 89 < 1 + 4 * math.sqrt(2 / 89)


def test_models_follow_weights() -> None:
    heavy = equal(3) | {"n2": 2.0}
    counts = Counter(order(model, heavy)[0] for model in MODELS)
    for name, weight in heavy.items():
        assert counts[name] / len(MODELS) == pytest.approx(weight / 4, abs=0.02)


@CASES
@given(ids, weights)
def test_an_order_holds_each_node_once_whatever_the_mapping_s_order(model: str, weights: dict[str, float]) -> None:
    names = order(model, weights)
    assert sorted(names) == sorted(weights)
    assert order(model, dict(reversed(weights.items()))) == names


@CASES
@given(ids, weights, st.data())
def test_without_a_node_the_others_keep_their_order(model: str, weights: dict[str, float], data: st.DataObject) -> None:
    """So only its own models move when it goes, and when it comes it takes only what it is the first for."""
    gone = data.draw(st.sampled_from(sorted(weights)))
    rest = {name: weight for name, weight in weights.items() if name != gone}
    assert order(model, rest) == tuple(name for name in order(model, weights) if name != gone)


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [2, 9, 99])
def test_a_node_that_comes_takes_its_share(nodes: int) -> None:
    moved = sum(order(model, equal(nodes))[0] != order(model, equal(nodes + 1))[0] for model in MODELS)
    assert moved / len(MODELS) == pytest.approx(1 / (nodes + 1), abs=0.02)


@CASES
@given(st.floats(0, 1e4), st.floats(1e-5, 1), st.integers(1, 16), st.floats(0.05, 0.99))
def test_a_hot_model_has_enough_homes(rate: float, service: float, most: int, busy: float) -> None:
    copies = Copies(max=most, busy=busy)
    wanted = homes_wanted(Demand(rate, service, 0), copies)
    assert 1 <= wanted <= most
    assert wanted == most or rate * service / wanted <= busy * (1 + 1e-9)
    assert wanted == 1 or rate * service / (wanted - 1) > busy * (1 - 1e-9)


@CASES
@given(demands, rooms, st.integers(1, 5), st.randoms(use_true_random=False))
def test_each_model_has_homes_and_a_second_look_changes_nothing(
    demands: dict[str, Demand], nodes: dict[str, NodeRoom], most: int, rng: random.Random
) -> None:
    copies = Copies(max=most)
    homes = place(demands, nodes, copies, {})
    assert homes.keys() == demands.keys()
    for model, names in homes.items():
        assert len(set(names)) == len(names) == min(homes_wanted(demands[model], copies), len(nodes))
        assert set(names) <= nodes.keys()
    assert place(demands, nodes, copies, homes) == homes
    assert place(shuffled(demands, rng), shuffled(nodes, rng), copies, {}) == homes


@CASES
@given(demands, rooms, st.randoms(use_true_random=False))
def test_what_a_model_had_before_may_be_anything(
    demands: dict[str, Demand], nodes: dict[str, NodeRoom], rng: random.Random
) -> None:
    """Also homes on nodes that are gone, and none."""
    known = [*nodes, "n300", "n301"]
    before = {model: tuple(rng.sample(known, rng.randint(0, 2))) for model in [*demands, "gone"]}
    homes = place(demands, nodes, COPIES, before)
    assert homes.keys() == demands.keys()
    assert place(demands, nodes, COPIES, homes) == homes


@CASES
@given(demands, rooms)
def test_no_budget_is_overrun_while_there_is_room_elsewhere(
    demands: dict[str, Demand], nodes: dict[str, NodeRoom]
) -> None:
    homes = place(demands, nodes, ONE_HOME, {})
    by_rate = sorted(demands, key=lambda model: (-demands[model].rate, model))
    total = held(demands, homes)
    for name, room in nodes.items():
        free = {other: math.inf if each.budget is None else each.budget - total[other] for other, each in nodes.items()}
        if free[name] >= 0:
            continue
        mine = [model for model in by_rate if homes[model] == (name,)]
        fitting, used = [], 0
        for model in mine:  # those requested most have the room
            if used + demands[model].nbytes <= (room.budget or 0):
                fitting.append(model)
                used += demands[model].nbytes
        for model in set(mine) - set(fitting):
            assert demands[model].nbytes > max(left for other, left in free.items() if other != name or len(free) == 1)


def test_what_does_not_fit_anywhere_is_the_tail() -> None:
    demands = {f"m{i}": Demand(1 / i, 0.01, 100 * MIB) for i in range(1, 19)}
    nodes = nodes_of(2, 300 * MIB)
    homes = place(demands, nodes, COPIES, {})
    for name in nodes:
        mine = [model for model in demands if homes[model] == (name,)]
        assert len([model for model in mine if int(model[1:]) <= 6]) == 3


def test_a_model_that_is_larger_than_any_budget_has_a_home_all_the_same() -> None:
    demands = {"huge": Demand(1, 0.01, 10 * MIB), "small": Demand(0.5, 0.01, MIB)}
    homes = place(demands, nodes_of(2, 2 * MIB), COPIES, {})
    assert len(homes["huge"]) == len(homes["small"]) == 1


def test_a_cool_model_has_its_home_on_the_less_loaded_of_its_first_two() -> None:
    demands = zipf(200, 1.0, random.Random(1))
    nodes = nodes_of(10)
    homes = place(demands, nodes, ONE_HOME, {})
    for model, (home,) in homes.items():
        assert home in order(model, equal(10))[:CHOICES]
    spread = loads(demands, homes, nodes)
    hashed = loads(demands, {model: order(model, equal(10))[:1] for model in demands}, nodes)
    assert max(spread.values()) < max(hashed.values())
    moved = loads(demands, homes, nodes)
    for model, (home,) in homes.items():
        other = next(name for name in order(model, equal(10))[:CHOICES] if name != home)
        is_clear = moved[home] - moved[other] >= max(DEAD_BAND * moved[home], LEAST_GAIN)
        assert not is_clear or moved[other] + demands[model].load > moved[home] - demands[model].load


def test_hot_models_have_the_first_homes_of_their_order() -> None:
    demands = {"hot": Demand(200, 0.006, 100 * MIB), "cool": Demand(1, 0.006, 100 * MIB)}
    homes = place(demands, nodes_of(6), COPIES, {})
    assert homes["hot"] == order("hot", equal(6))[:4]
    assert len(homes["cool"]) == 1
    full = nodes_of(6) | {homes["hot"][0]: NodeRoom(budget=MIB)}
    assert place(demands, full, COPIES, {})["hot"] == order("hot", equal(6))[1:5]


def test_a_copy_is_given_up_only_when_it_is_clearly_not_needed() -> None:
    demand, nodes = Demand(60, 0.01, MIB), nodes_of(4)
    before = place({"a": demand}, nodes, COPIES, {})
    assert len(before["a"]) == 2
    for rate, expected in ((36, 2), (34, 2), (29, 2), (27, 1), (0, 1)):
        homes = place({"a": demand._replace(rate=rate)}, nodes, COPIES, before)
        assert len(homes["a"]) == expected, rate
        assert set(homes["a"]) <= set(before["a"])


def test_noise_moves_next_to_nothing() -> None:
    rng = random.Random(2)
    demands, nodes = zipf(500, 3.0, rng), nodes_of(8)
    homes = first = place(demands, nodes, COPIES, {})
    for _ in range(20):
        noisy = {model: each._replace(rate=each.rate * rng.uniform(0.9, 1.1)) for model, each in demands.items()}
        homes = place(noisy, nodes, COPIES, homes)
    moved = sum(demands[model].rate for model in demands if homes[model] != first[model])
    assert moved / sum(each.rate for each in demands.values()) < 0.05


def test_without_requests_only_the_models_of_a_node_that_is_gone_move() -> None:
    demands = {model: Demand(0, 0, MIB) for model in MODELS[:500]}
    homes = place(demands, nodes_of(5), COPIES, {})
    assert homes == {model: order(model, equal(5))[:1] for model in demands}
    rest = {name: room for name, room in nodes_of(5).items() if name != "n3"}
    after = place(demands, rest, COPIES, homes)
    assert {model for model in demands if after[model] != homes[model]} == {
        model for model in demands if homes[model] == ("n3",)
    }


def test_a_node_that_comes_takes_load_and_no_more_than_its_share_of_models() -> None:
    demands = zipf(500, 4.0, random.Random(3))
    homes = place(demands, nodes_of(7), COPIES, {})
    after = place(demands, nodes_of(8), COPIES, homes)
    moved = [model for model in demands if after[model] != homes[model]]
    assert 0 < len(moved) / len(demands) < 2 / 8
    spread = loads(demands, after, nodes_of(8))
    assert spread["n8"] > 0.5 * sum(spread.values()) / 8


def test_a_larger_node_has_more() -> None:
    demands = {f"m{i}": Demand(1, 0.01, MIB) for i in range(400)}
    nodes = nodes_of(3) | {"n3": NodeRoom(weight=2.0)}
    homes = place(demands, nodes, COPIES, {})
    counts = Counter(names[0] for names in homes.values())
    assert counts["n3"] / 400 == pytest.approx(0.5, abs=0.08)


def test_without_nodes_there_are_no_homes() -> None:
    assert place({"a": Demand(1, 0.01, MIB)}, {}, COPIES, {}) == {}


@pytest.mark.slow
def test_thousands_of_models_are_placed_on_a_hundred_nodes() -> None:
    demands = zipf(10_000, 30, random.Random(4))
    nodes = nodes_of(100, sum(each.nbytes for each in demands.values()) // 300)
    homes = place(demands, nodes, COPIES, {})
    total = held(demands, homes)
    assert len(total) == 100
    assert max(loads(demands, homes, nodes).values()) < 1
