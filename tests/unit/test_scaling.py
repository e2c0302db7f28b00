"""How many nodes are wanted: by their load, and by what cold starts cost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from core.cluster.scaling import ColdStarts, NodeLoad, Totals, node_hour, nodes_wanted, remember
from core.config.choices import Cost
from core.config.cluster import Resources

IDLE, BUSY = NodeLoad(0.05, 0.1), NodeLoad(0.9, 5.0)
COST = Cost(memory_gib_hour=0.005, cpu_hour=0.04, latency_hour=1.0)
TWO_GIB = TypeAdapter(Resources).validate_python({"num_cpus": 2.0, "memory": "2GiB"})


@pytest.mark.parametrize(
    ("loads", "wanted"),
    [
        ([], 1),
        ([IDLE], 1),
        ([BUSY], 2),
        ([NodeLoad(0.1, 20.0)], 4),  # requests queue although it computes little, as on a GPU
        ([IDLE, IDLE], 1),
        ([IDLE] * 5, 4),  # one less at a time
        ([NodeLoad(0.3, 0.5)] * 2, 2),  # one node would have room, but none to spare
        ([BUSY] * 3, 4),
    ],
)
def test_nodes_follow_the_load(loads: list[NodeLoad], wanted: int) -> None:
    assert nodes_wanted(loads, queue=6) == wanted


def test_cold_starts_that_cost_more_than_a_node_get_one() -> None:
    loads = [NodeLoad(0.3, 1.0, cold_hour=0.3)] * 2
    assert nodes_wanted(loads, 6, node_hour=0.5) == 3
    assert nodes_wanted(loads, 6, node_hour=0.7) == 2
    assert nodes_wanted(loads, 6) == 2
    assert nodes_wanted(loads, 6, node_hour=0.5, known={3: 0.4}) == 2  # the third saved less than it cost


def test_node_that_saves_cold_starts_stays() -> None:
    loads = [NodeLoad(0.1, 0.1, cold_hour=0.05)] * 3
    assert nodes_wanted(loads, 6, node_hour=0.5) == 2
    assert nodes_wanted(loads, 6, node_hour=0.5, known={2: 0.9}) == 3
    assert nodes_wanted(loads, 6, node_hour=0.5, known={2: 0.5}) == 2


@given(st.lists(st.builds(NodeLoad, st.floats(0, 1), st.floats(0, 50)), min_size=1, max_size=20))
def test_what_is_wanted_stays_wanted(loads: list[NodeLoad]) -> None:
    """With as many nodes as are wanted, and the load spread over them, no more are wanted."""
    wanted = nodes_wanted(loads, 6)
    assert wanted >= len(loads) - 1
    share = NodeLoad(sum(each.busy for each in loads) / wanted, sum(each.requests for each in loads) / wanted)
    assert nodes_wanted([share] * wanted, 6) <= max(wanted, len(loads)) + 1


def test_memory_of_costs_fades() -> None:
    known = remember({1: ColdStarts(0.5, at=0.0), 2: ColdStarts(0.1, at=3000.0)}, 2, 0.2, now=4000.0)
    assert known == {2: ColdStarts(0.2, at=4000.0)}


def test_price_of_a_node() -> None:
    assert node_hour(TWO_GIB, COST) == pytest.approx(0.09)
    assert node_hour(Resources(), COST) is None
    sizes = {
        "billing": "size",
        "sizes": [{"memory": "1GiB", "cpu": 2, "hour": 0.1}, {"memory": "4GiB", "cpu": 2, "hour": 0.3}],
    }
    assert node_hour(TWO_GIB, TypeAdapter(Cost).validate_python(sizes)) == 0.3


def test_load_between_two_readings() -> None:
    text = (
        'residency_load_seconds_sum{loader="mapped",strategy="s"} 4\n'
        'residency_request_seconds_sum{start="cold",strategy="s"} 6\n'
        'residency_request_seconds_sum{start="warm",strategy="s"} 100\n'
        'residency_in_flight{strategy="s"} 3\n'
    )
    before, after = Totals(at=10.0, cpu_seconds=1.0, load_seconds=3.0), Totals.read(text, 20.0, 11.0)
    load = before.until(after, TWO_GIB, COST)
    assert load[:2] == (0.5, 3.0)
    assert load.cold_hour == pytest.approx(0.1 * 0.04 + 0.6 * 1.0)
    assert before.until(after, TWO_GIB, None).cold_hour == 0
    assert after.until(before, TWO_GIB, None).busy == 0  # it was started anew
