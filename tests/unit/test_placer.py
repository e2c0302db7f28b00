"""The placer against nodes and a balancer that only remember: rates, moves, and what it does while nodes are silent."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from threading import Event

import pytest
from prometheus_client.parser import text_string_to_metric_families

from core.cluster.homes import order
from core.cluster.placer import MOST_PRELOADS, PATIENCE, REMEMBERED, Placer, place_until
from core.cluster.rates import Rates, Reading
from core.cluster.runtime_api import SlotState, State
from core.cluster.status import join_metrics, join_residency, join_strategies
from core.config.cluster import ClusterSettings, Copies, NodeCount
from core.errors import BalancerFailed, NodeFailed, NodeRefused
from core.http.schemas import Kept, Memory, ResidencyAnswer, StrategiesAnswer, StrategyResidency

SETTINGS = ClusterSettings(nodes=NodeCount(min=2, max=2), copies=Copies(max=2, busy=0.5))
SIZE = 100


def reading(requests: Mapping[str, float], resident: Collection[str] = (), busy: float = 0.01) -> Reading:
    """What a node says that has answered so many requests, each of which took `busy` seconds."""
    inference = {model: count * busy for model, count in requests.items()}
    return Reading(requests, inference, dict.fromkeys(requests, SIZE), dict.fromkeys(resident, "some"), 10 * SIZE)


class Stage:
    """Nodes and a balancer. `events` tells what was done to them, in order."""

    def __init__(self, *slots: str) -> None:
        self.readings = {slot: reading({}) for slot in slots}
        self.slots: dict[str, State] = dict.fromkeys(slots, "up")
        self.map: dict[str, tuple[str, ...]] = {}
        self.events: list[str] = []
        self.refusal: Exception | None = None

    def read_all(self, slots: Collection[str]) -> Mapping[str, Reading]:
        return {slot: self.readings[slot] for slot in slots if slot in self.readings}

    def load(self, slot: str, strategy: str, model_id: str) -> None:
        if self.refusal:
            raise self.refusal
        self.events.append(f"load {model_id} at {slot} under {strategy}")

    def states(self) -> dict[str, SlotState]:
        return {slot: SlotState(state, 0) for slot, state in self.slots.items()}

    def homes(self) -> dict[str, tuple[str, ...]]:
        return dict(self.map)

    def set_homes(self, homes: Mapping[str, tuple[str, ...]]) -> None:
        self.events.append("set")
        self.map = dict(homes)


def first_of(model: str) -> str:
    return order(model, {"n1": 1.0, "n2": 1.0})[0]


def other_than(slot: str) -> str:
    return "n2" if slot == "n1" else "n1"


def models_at(slot: str, count: int) -> list[str]:
    """Models whose first home that is."""
    names = (f"model-{number}" for number in range(1000))
    return [name for name in names if first_of(name) == slot][:count]


def test_rates_are_differences_of_counters_over_all_nodes() -> None:
    rates = Rates()
    rates.add(0.0, {"n1": reading({"a": 1000}), "n2": reading({})})
    assert rates.demands() == {}
    rates.add(5.0, {"n1": reading({"a": 1010}), "n2": reading({"a": 5, "b": 10})})
    demands = rates.demands()
    assert demands["a"].rate == pytest.approx(3.0)
    assert demands["b"].rate == pytest.approx(2.0)
    assert demands["a"].service_s == pytest.approx(0.01)
    assert demands["a"].nbytes == SIZE


def test_a_restarted_node_counts_from_zero() -> None:
    rates = Rates()
    rates.add(0.0, {"n1": reading({"a": 1000})})
    rates.add(5.0, {"n1": reading({"a": 10})})
    assert rates.demands()["a"].rate == pytest.approx(2.0)


def test_a_model_that_nobody_asks_for_any_more_is_forgotten() -> None:
    rates = Rates()
    for step in range(3):
        rates.add(5.0 * step, {"n1": reading({"a": 100.0 * step})})
    assert "a" in rates.demands()
    for step in range(3, 200):
        rates.add(5.0 * step, {"n1": reading({"a": 200.0})})
    assert rates.demands() == {}


def test_a_reading_sums_strategies_and_outcomes() -> None:
    text = """\
# TYPE residency_requests_total counter
residency_requests_total{strategy="x",model="a",outcome="answered"} 3.0
residency_requests_total{strategy="y",model="a",outcome="overloaded"} 2.0
residency_requests_total{strategy="y",model="",outcome="overloaded"} 9.0
residency_inference_seconds_total{strategy="x",model="a"} 0.5
residency_budget_bytes{strategy="x"} 100.0
"""
    some = Reading.of(text, StrategiesAnswer(strategies=[]))
    assert some.requests == {"a": 5.0}
    assert some.inference == {"a": 0.5}
    assert some.budget == 100
    unlimited = Reading.of(text + 'residency_budget_bytes{strategy="y"} +Inf\n', StrategiesAnswer(strategies=[]))
    assert unlimited.budget is None


def test_homes_stand_still_until_rates_are_known() -> None:
    """A placer that was just started has seen no request; that is no reason to move anything."""
    stage = Stage("n1", "n2")
    stage.map = {"a": ("n2",), "b": ("n1",)}
    placer = Placer(stage, stage, SETTINGS)
    placer.step(0.0)
    placer.step(5.0)
    assert stage.map == {"a": ("n2",), "b": ("n1",)}
    assert stage.events == []


def test_a_model_is_loaded_at_its_new_home_before_it_moves() -> None:
    """All busy models have the same first home, so that some must move."""
    models = models_at("n1", 6)
    stage = Stage("n1", "n2")
    placer = Placer(stage, stage, SETTINGS)
    placer.step(0.0)
    stage.readings["n1"] = reading(dict.fromkeys(models, 50.0), resident=models)
    placer.step(5.0)
    moved = [model for model in models if stage.map[model] == ("n2",)]
    assert 1 < len(moved) < 6
    assert stage.events == [*(f"load {model} at n2 under some" for model in stage.map if model in moved), "set"]


def test_a_model_that_is_nowhere_in_memory_is_not_loaded_to_move() -> None:
    models = models_at("n1", 6)
    stage = Stage("n1", "n2")
    placer = Placer(stage, stage, SETTINGS)
    placer.step(0.0)
    stage.readings["n1"] = reading(dict.fromkeys(models, 50.0))
    placer.step(5.0)
    assert stage.events == ["set"]


@pytest.mark.parametrize(
    ("refusal", "moves"), [(NodeFailed("no answer"), False), (NodeRefused("does not fit", 503), True)]
)
def test_a_model_stays_while_its_new_home_does_not_answer(refusal: Exception, moves: bool) -> None:
    models = models_at("n1", 6)
    stage = Stage("n1", "n2")
    stage.refusal = refusal
    stage.map = dict.fromkeys(models, ("n1",))
    placer = Placer(stage, stage, SETTINGS)
    placer.step(0.0)
    stage.readings["n1"] = reading(dict.fromkeys(models, 50.0), resident=models)
    placer.step(5.0)
    assert (("n2",) in stage.map.values()) is moves


def test_only_some_models_are_loaded_in_one_step() -> None:
    models = models_at("n1", 60)
    stage = Stage("n1", "n2")
    stage.map = dict.fromkeys(models, ("n1",))
    placer = Placer(stage, stage, SETTINGS)
    stage.readings["n1"] = Reading({}, {}, {}, {}, None)
    stage.readings["n2"] = Reading({}, {}, {}, {}, None)
    placer.step(0.0)
    stage.readings["n1"] = reading(dict.fromkeys(models, 5.0), resident=models)
    placer.step(5.0)
    assert sum(event.startswith("load") for event in stage.events) == MOST_PRELOADS
    assert set(stage.map) == set(models)


def test_a_hot_model_has_several_homes() -> None:
    stage = Stage("n1", "n2")
    placer = Placer(stage, stage, SETTINGS)
    placer.step(0.0)
    stage.readings["n1"] = reading({"hot": 400.0})  # 80 % of a node's time
    placer.step(5.0)
    assert sorted(stage.map["hot"]) == ["n1", "n2"]


def test_a_silent_node_keeps_its_homes_for_a_while() -> None:
    stage = Stage("n1", "n2")
    placer = Placer(stage, stage, SETTINGS)
    home = first_of("a")
    total = 0.0

    def step(number: int) -> None:
        nonlocal total
        total += 10
        for slot in stage.readings:
            stage.readings[slot] = reading({"a": total})
        placer.step(5.0 * number)

    step(0)
    step(1)
    assert stage.map["a"] == (home,)
    stage.slots[home] = "down"
    del stage.readings[home]
    for number in range(PATIENCE):
        step(2 + number)
        assert stage.map["a"] == (home,)
    step(2 + PATIENCE)
    assert stage.map["a"] == (other_than(home),)


def test_a_slot_in_maintenance_loses_its_homes_at_once() -> None:
    stage = Stage("n1", "n2")
    placer = Placer(stage, stage, SETTINGS)
    home = first_of("a")
    for number in range(2):
        stage.readings[home] = reading({"a": 10.0 * number})
        placer.step(5.0 * number)
    stage.slots[home] = "maintenance"
    placer.step(10.0)
    assert stage.map["a"] == (other_than(home),)


def test_homes_of_models_that_nobody_asks_for_are_forgotten_late() -> None:
    stage = Stage("n1", "n2")
    stage.map = {"a": ("n2",), "gone": ("n7",)}
    placer = Placer(stage, stage, SETTINGS)
    for number in range(REMEMBERED):
        placer.step(5.0 * number)
    assert stage.map == {"a": ("n2",)}
    placer.step(5.0 * REMEMBERED)
    assert stage.map == {}


def test_a_failure_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """And the placer goes on."""
    ended, steps = Event(), 0

    class Failing(Stage):
        def states(self) -> dict[str, SlotState]:
            nonlocal steps
            steps += 1
            if steps == 3:
                ended.set()
            raise BalancerFailed("HAProxy does not answer.")

    placer = Placer(Stage("n1"), Failing("n1"), SETTINGS)
    with caplog.at_level(logging.WARNING, "residency"):
        place_until(ended, placer, period=0.001)
    assert [record.getMessage() for record in caplog.records] == ["Homes stay as they are: HAProxy does not answer."]


def residency_of(pss: int | None, made: int) -> ResidencyAnswer:
    strategy = StrategyResidency(
        name="some", route="/x", loader="y", options={}, budget_bytes=None, resident_bytes=7, models=[]
    )
    kept = {"tokenizers": Kept(kept=1, most=8, made=made)}
    return ResidencyAnswer(memory=Memory(pss_bytes=pss, private_bytes=None), kept=kept, strategies=[strategy])


def test_the_answer_about_all_nodes_names_the_node_of_each_strategy() -> None:
    joined = join_residency({"n1": residency_of(3, 1), "n2": residency_of(4, 2), "n3": residency_of(None, 3)})
    assert joined.memory == Memory(pss_bytes=7, private_bytes=None)
    assert joined.kept == {"tokenizers": Kept(kept=3, most=24, made=6)}
    assert [each.node for each in joined.strategies] == ["n1", "n2", "n3"]
    assert join_strategies({}).strategies == []
    assert "node" not in residency_of(3, 1).model_dump(exclude_unset=True)["strategies"][0]


def test_metrics_of_all_nodes_differ_by_their_label() -> None:
    text = """\
# HELP residency_loads_total Loads
# TYPE residency_loads_total counter
residency_loads_total{model="a\\"b"} 3.0
# HELP residency_queue_seconds Seconds
# TYPE residency_queue_seconds histogram
residency_queue_seconds_bucket{le="+Inf"} 2.0
residency_queue_seconds_count 2.0
residency_queue_seconds_sum 0.5
"""
    joined = join_metrics({"n1": text, "n2": text}, {"n1": True, "n2": True, "n3": True, "n4": False}).decode()
    families = {each.name: each for each in text_string_to_metric_families(joined)}
    loads = [(each.name, each.labels, each.value) for each in families["residency_loads"].samples]
    assert loads == [("residency_loads_total", {"model": 'a"b', "node": node}, 3.0) for node in ("n1", "n2")]
    assert families["residency_queue_seconds"].type == "histogram"
    up = {each.labels["node"]: each.value for each in families["residency_node_up"].samples}
    assert up == {"n1": 1.0, "n2": 1.0, "n3": 0.0, "n4": 0.0}
    assert joined.count("# TYPE residency_loads_total") == 1
