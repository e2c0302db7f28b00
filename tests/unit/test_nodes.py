"""Several simulated nodes: each is a server of its own, and a router chooses one for each request."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from core.cluster.homes import order
from core.config.cluster import Copies
from core.planning.arrivals import Arrivals
from core.planning.candidates import simulate
from core.planning.cluster import Cluster
from core.planning.nodes import Node, PlanNodes, catalogue_of
from core.planning.outcome import Outcome
from core.planning.profile import Profile
from core.planning.routing import MOST_MOVES, VIEW_S, HomesRouter, MultiplexedRouter, Placer, first_of_each
from core.planning.setting import Setting
from core.planning.simulator import Server
from core.plugins import load_plugins
from experiments.routing.compare import WAYS, Case, compare
from tests.unit.test_simulate import PRICES, poisson, profile_of

PLUGINS = load_plugins()
PRELOADED = Setting(PLUGINS.strategy("persistent"))
KEPT = Setting(PLUGINS.strategy("keep-alive"), {"ttl": "forever"})
LRU = Setting(PLUGINS.strategy("lru-cached"), {"memory_budget": 3 << 20})
COUNTED = Setting(PLUGINS.strategy("lru-cached"), {"capacity": 3})
HASH = {"placement": "hash"}


def on(nodes: int, setting: Setting, profile: Profile, arrivals: Arrivals, **keys: Any) -> Outcome:
    chosen = PlanNodes.model_validate({"count": nodes, **keys})
    return simulate(setting, profile, arrivals, 1, 0, nodes=chosen)


def nodes_of(count: int, profile: Profile, setting: Setting = KEPT) -> list[Node]:
    known = catalogue_of(list(profile.models), list(profile.models.values()), 0)
    return [Node(setting.decisions(), known, 1) for _ in range(count)]


def home_of(model: str, nodes: int) -> int:
    return int(order(model, {f"n{number}": 1.0 for number in range(1, nodes + 1)})[0][1:]) - 1


def test_a_number_is_enough() -> None:
    nodes = PlanNodes.model_validate(2)
    assert nodes == PlanNodes(count=2)
    assert nodes.cluster.options == {}
    assert PlanNodes(count=2, placement="hash", queue=9).cluster.options == {"placement": "hash", "queue": 9}


@pytest.mark.parametrize(
    "value", [0, True, "2", {"count": 2, "copies": {"busy": 0}}, {"count": 2, "routing": "random"}]
)
def test_what_is_no_number_of_nodes_is_refused(value: Any) -> None:
    with pytest.raises(ValidationError):
        PlanNodes.model_validate(value)


@settings(deadline=None, max_examples=20, derandomize=True)
@given(
    seed=st.integers(0, 1000),
    load=st.sampled_from([0.0, 0.731]),
    chosen=st.sampled_from([PRELOADED, KEPT, LRU, Setting(PLUGINS.strategy("keep-alive"), {"ttl": 2.3})]),
    routing=st.sampled_from(["homes", "multiplexed"]),
)
def test_one_node_is_a_server(seed: int, load: float, chosen: Setting, routing: Any) -> None:
    """Request by request, with the same draws, it does what it does with all of them at once."""
    profile, arrivals = profile_of(5, warm=0.31, load=load, unload=0.17), poisson(2.0, 101, 5, seed)
    names, models = list(profile.models), list(profile.models.values())
    server = Server(chosen.decisions(), names, models, 1, 0).run(arrivals.at, arrivals.asked)
    nodes = PlanNodes.model_validate({"count": 1, "routing": routing})
    cluster = Cluster(chosen.decisions, nodes, names, models, 1, 0).run(arrivals.at, arrivals.asked)
    assert cluster.nodes is not None
    for one, other in [(server, cluster), *zip(server.halves, cluster.halves, strict=True)]:
        assert np.array_equal(one.latencies, other.latencies)
        assert np.array_equal(one.at_first, other.at_first)
        assert (one.requests, one.loads, one.cold) == (other.requests, other.loads, other.cold)
        assert one.mib_seconds_of == pytest.approx(other.mib_seconds_of)
        figures = replace(other, nodes=None, latencies=one.latencies, at_first=one.at_first, halves=one.halves)
        assert replace(one, mib_seconds_of=figures.mib_seconds_of) == figures


@pytest.mark.parametrize("keys", [{}, HASH, {"routing": "multiplexed"}])
@pytest.mark.parametrize("chosen", [PRELOADED, KEPT, LRU, COUNTED], ids=lambda each: each.label)
def test_what_nodes_do_adds_up(chosen: Setting, keys: dict[str, Any]) -> None:
    profile, arrivals = profile_of(12, warm=0.05, load=0.2, unload=0.01), poisson(20.0, 601, 12)
    found = on(4, chosen, profile, arrivals, **keys)
    assert found.nodes is not None
    each = found.nodes.each
    assert found.requests == [Counter(arrivals.asked)[model] for model in range(12)]
    assert len(found.latencies) == sum(node.requests for node in each) == 601
    assert found.cold == sum(node.cold for node in each) == sum(half.cold for half in found.halves)
    assert sum(found.loads) == sum(node.loads for node in each)
    assert np.array_equal(np.concatenate([half.latencies for half in found.halves]), found.latencies)
    assert found.mib_seconds == pytest.approx(sum(half.mib_seconds for half in found.halves))
    assert found.busy == max(node.busy for node in each)
    if chosen in (LRU, COUNTED):
        assert max(node.weights_mib for node in each) <= 3
        assert max(node.models for node in each) <= 3
    if chosen is PRELOADED:
        assert (found.cold, found.loads) == (0, [4] * 12)


def test_an_idle_node_costs_its_memory_too() -> None:
    profile, arrivals = replace(profile_of(1, mib=2.0), base_mib=100.0), poisson(1.0, 50)
    models = list(profile.models.values())
    found = on(3, KEPT, profile, arrivals, **HASH)
    assert found.servers == 3
    assert found.peak_mib == 2.0
    assert found.figures(100.0, models, PRICES).peak_mib == 302.0
    alone = simulate(KEPT, profile, arrivals, 1, 0)
    assert found.money(100.0, models, PRICES).holding == pytest.approx(alone.money(300.0, models, PRICES).holding)


def test_a_request_goes_to_the_home_of_its_model() -> None:
    profile, arrivals = profile_of(30, warm=0.001), poisson(5.0, 500, 30)
    found = on(3, KEPT, profile, arrivals, **HASH)
    expected = Counter(home_of(str(model), 3) for model in arrivals.asked)
    assert found.nodes is not None
    assert [node.requests for node in found.nodes.each] == [expected[node] for node in range(3)]
    assert found.loads == [int(model in set(arrivals.asked)) for model in range(30)]


def test_a_node_knows_only_the_models_that_it_is_asked_for() -> None:
    profile = profile_of(50)
    nodes = nodes_of(2, profile)
    assert nodes[0].models == []
    nodes[0].ask(7, 0.0)
    nodes[0].ask(7, 1.0)
    assert (nodes[0].models, nodes[1].models) == ([7], [])
    assert nodes[0].in_memory() == [7]


def test_past_its_queue_a_home_is_passed_over_for_the_next_in_the_order() -> None:
    profile = profile_of(1, warm=10.0)
    nodes = nodes_of(3, profile)
    known = catalogue_of(["0"], list(profile.models.values()), 0)
    router = HomesRouter(nodes, PlanNodes(count=3, queue=2, placement="hash"), known, None)
    first, second, third = (int(name[1:]) - 1 for name in order("0", dict.fromkeys(["n1", "n2", "n3"], 1.0)))
    went = []
    for _ in range(9):
        went.append(router.node_for(0, 0.0))
        nodes[went[-1]].ask(0, 0.0)
    # The limit is 2, or twice the mean of the two others if that is more: after five requests, 2 + 1.
    assert went == [first, first, second, second, third, first, second, first, second]


def test_of_several_homes_the_one_with_the_shortest_queue_is_taken() -> None:
    """A model that keeps a node busy gets copies once its rate is known, and not before."""
    arrivals = Arrivals([number * 0.05 for number in range(400)], [0] * 400)

    def asked(most: int) -> list[int]:
        copies = {"max": most, "busy": 0.5}
        found = on(4, KEPT, profile_of(1, warm=0.08), arrivals, copies=copies, queue=1000)
        assert found.nodes is not None
        return sorted(node.requests for node in found.nodes.each)

    assert asked(1) == [0, 0, 0, 400]
    idle, also_idle, second, first = asked(2)
    assert idle == also_idle == 0
    assert 100 < second <= first


def test_in_a_period_few_models_move_that_are_in_memory() -> None:
    """Thirty models ask for five nodes, and all have begun at one: it holds them, so most must wait to be moved."""
    models = [f"m{number}" for number in range(400) if home_of(f"m{number}", 5) == 0][:30]
    model = next(iter(profile_of(1, warm=0.03).models.values()))
    known = catalogue_of(models, [model] * 30, 0)
    nodes = [Node(KEPT.decisions(), known, 1) for _ in range(5)]
    placer = Placer(nodes, Copies(), known, None, 60.0)
    router = HomesRouter(nodes, PlanNodes(count=5, queue=1000), known, placer)
    for number in range(200):
        at = number * 0.025
        nodes[router.node_for(number % 30, at)].ask(number % 30, at)
    assert [len(node.models) for node in nodes] == [30, 0, 0, 0, 0]
    moved = {index for index in range(30) if router.node_for(index, 5.1) != 0}
    assert 0 < len(moved) <= MOST_MOVES


def test_multiplexing_sees_what_is_in_memory_after_a_while() -> None:
    """Until then, any node with the fewest models is as good; then the one that has it."""
    nodes = nodes_of(4, profile_of(2, warm=0.001, load=0.01))
    router = MultiplexedRouter(nodes, PlanNodes(count=4, routing="multiplexed"), 3)
    first = router.node_for(0, 0.0)
    nodes[first].ask(0, 0.0)
    early = {router.node_for(0, VIEW_S - 0.01) for _ in range(50)}
    assert len(early) == 4
    assert {router.node_for(0, VIEW_S + 0.01) for _ in range(50)} == {first}
    others = {router.node_for(1, VIEW_S + 0.02) for _ in range(50)}
    assert others == set(range(4)) - {first}


def test_multiplexing_leaves_a_full_node_for_those_with_the_fewest_models() -> None:
    nodes = nodes_of(3, profile_of(2, warm=10.0))
    router = MultiplexedRouter(nodes, PlanNodes(count=3, routing="multiplexed", queue=2), 0)
    for at in (0.0, 1.0):
        nodes[0].ask(0, at)
    assert {router.node_for(0, 2.0) for _ in range(50)} == {1, 2}


def test_multiplexing_knows_what_was_loaded_before() -> None:
    nodes = nodes_of(3, profile_of(4))
    nodes[2].preload_model(3)
    router = MultiplexedRouter(nodes, PlanNodes(count=3, routing="multiplexed"), 0)
    assert {router.node_for(3, 0.0) for _ in range(20)} == {2}


def test_the_first_models_reach_every_node() -> None:
    models = [f"m{number}" for number in range(20)]
    first = first_of_each(models, 3)
    assert {home_of(models[index], 3) for index in first} == {0, 1, 2}
    assert {home_of(models[index], 3) for index in first[:-1]} != {0, 1, 2}
    assert first_of_each(models[:1], 3) == [0]


@pytest.mark.parametrize("keys", [{}, {"routing": "multiplexed"}])
def test_the_same_seed_leads_to_the_same(keys: dict[str, Any]) -> None:
    profile, arrivals = profile_of(12, warm=0.05, load=0.2), poisson(20.0, 400, 12)
    one, other = (on(4, LRU, profile, arrivals, **keys) for _ in range(2))
    assert np.array_equal(one.latencies, other.latencies)


def test_ways_to_route_are_compared_on_the_same_requests() -> None:
    cells = list(compare(Case(nodes=5, models=60, rate=10.0, requests=600), seeds=2))
    assert [(cell.seed, cell.way) for cell in cells] == [(seed, way) for seed in (0, 1) for way in WAYS]
    assert all(cell.room <= 1 for cell in cells if cell.way.startswith("homes"))
    assert all(0 < cell.cold < 1 for cell in cells)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_hundred_nodes_take_less_than_half_a_minute(way: str) -> None:
    """Of CPU time, for 300,000 requests to 10,000 models."""
    case = Case(nodes=100, models=10_000, rate=25.0, requests=300_000)
    [cell] = compare(case, seeds=1, ways=[way])
    print(f"{way}: {cell.seconds:.1f} s of CPU time, {cell.cold:.1%} cold, p99 {cell.p99_ms:.0f} ms")
    assert cell.seconds < 30
