"""Slots of replicas: a replacement takes the place of its predecessor."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from core.cluster.slots import EMPTY, Replica, Slot, Slots

NAMES = ("n1", "n2", "n3")


def at(name: str, *, stops: bool = False) -> Replica:
    return Replica(name, f"unix@/{name}", stops)


def test_replicas_get_slots_in_order() -> None:
    slots = Slots(NAMES)
    assert slots.update([at("a"), at("b")]) == {"n1": Slot("a", "unix@/a"), "n2": Slot("b", "unix@/b")}
    assert slots.update([at("a"), at("b")]) == {}
    assert slots.taken == {"n1": "a", "n2": "b"}


def test_replacement_of_a_killed_replica_takes_its_slot() -> None:
    slots = Slots(NAMES)
    slots.update([at("a"), at("b")])
    assert slots.update([at("b")]) == {"n1": EMPTY}
    assert slots.update([at("b"), at("c")]) == {"n1": Slot("c", "unix@/c")}


def test_replacement_waits_for_the_slot_of_the_one_that_stops() -> None:
    slots = Slots(["n1"])
    slots.update([at("a")])
    assert slots.update([at("a"), at("b")]) == {}
    assert slots.update([at("a", stops=True), at("b")]) == {"n1": Slot("b", "unix@/b")}
    assert slots.update([at("b")]) == {}


def test_slot_drains_until_its_replica_has_gone() -> None:
    slots = Slots(NAMES)
    slots.update([at("a"), at("b")])
    assert slots.update([at("a"), at("b", stops=True)]) == {"n2": Slot("b", "unix@/b", drains=True)}
    assert slots.update([at("a")]) == {"n2": EMPTY}


def test_another_balancer_goes_on_with_the_same_slots() -> None:
    slots = Slots(NAMES, {"n3": "a", "n9": "b"})
    slots.update([at("b"), at("a")])
    assert slots.taken == {"n3": "a", "n1": "b"}


@given(st.lists(st.dictionaries(st.sampled_from("abcdef"), st.booleans()), max_size=12))
def test_nobody_has_two_slots_and_no_slot_is_idle_while_one_waits(steps: list[dict[str, bool]]) -> None:
    slots = Slots(NAMES)
    for step in steps:
        before = slots.taken
        slots.update([at(name, stops=stops) for name, stops in step.items()])
        holders = list(slots.taken.values())
        running = [name for name, stops in step.items() if not stops]
        assert len(set(holders)) == len(holders)
        assert set(holders) <= set(step)
        assert len(set(holders) & set(running)) == min(len(running), len(NAMES))
        assert all(slots.taken[slot] == name for slot, name in before.items() if name in running)
