"""What a server held during a workload, by the loads and unloads that it reported, and what that costs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from core.costs.prices import Prices
from core.planning.arrivals import Arrivals
from core.planning.candidates import simulate
from core.planning.held import measured, simulated
from core.planning.profile import ModelProfile, Profile
from core.planning.resources import Resident
from core.planning.setting import Setting
from core.plugins import load_plugins
from core.results.header import CostSpec
from core.results.records import Sample, TrialEnd
from core.stats.rounds import Round
from tests.helpers.priced import UNITS
from tests.helpers.synthetic import ended, sample_of, typed

PRICES = Prices.of(CostSpec.model_validate(UNITS))  # one a MiB-hour, one a core second
MODEL = ModelProfile(
    warm=(0.005,), first=(0.005,), load=(0.5,), unload=0.0, further=0.005, around=0.0, around_cold=0.0,
    weights_mib=50.0, mib=40.0, request_cpu=0.005, load_cpu=0.25,
)  # fmt: skip
PROFILE = Profile("x", {}, 300.0, {"m": MODEL, "n": replace(MODEL, mib=10.0)}, (), Resident(300.0, 1.0, 20.0))


def event(at: float, model: str, kind: str, seconds: float = 0.5) -> dict[str, Any]:
    return {"at": at, "model": model, "event": kind, "reason": "request", "seconds": seconds}


def round_of(*events: dict[str, Any], **changes: Any) -> Round:
    """Of a hundred seconds, whose requests took a second together."""
    loads = sum(each["event"] == "load" for each in events)
    defaults: dict[str, Any] = {"resident": [], "steady_s": 100.0}
    end = ended("t", events=events, steady_loads=loads, **(defaults | changes))
    samples = [sample_of("t", 5.0, first=True), *(sample_of("t", 500.0, cold=True) for _ in range(2))]
    return Round(0, typed(TrialEnd, end), [typed(Sample, sample) for sample in samples])


def test_a_model_is_held_from_the_beginning_of_its_load() -> None:
    held = measured(PROFILE, round_of(event(10.5, "m", "load"), event(30.0, "m", "unload")))
    assert held is not None
    assert (held.mib_seconds, held.peak_mib, held.waiting_s) == pytest.approx((20 * 40.0, 40.0, 1.0))
    assert held.load_cpu_s == pytest.approx(2 * 0.25)  # the first request's, too
    assert held.cost_per_hour(PRICES) == pytest.approx(8.0 + 0.5 * 36)
    dear = replace(PRICES, billing="peak", latency_hour=3600.0)
    assert held.cost_per_hour(dear) == pytest.approx(40.0 + 0.5 * 36 + 1.0 * 36)


def test_what_was_there_before_is_held_from_the_start() -> None:
    """Until it is unloaded, or all the time."""
    held = measured(PROFILE, round_of(event(30.0, "m", "unload"), resident=["n"]))
    assert held is not None
    assert (held.mib_seconds, held.peak_mib, held.load_cpu_s) == pytest.approx((30 * 40 + 100 * 10, 50.0, 0.5))
    whole = measured(PROFILE, round_of(event(30.0, "m", "unload"), event(60.5, "m", "load"), resident=["m"]))
    assert whole is not None
    assert whole.mib_seconds == pytest.approx((30 + 40) * 40)


def test_copies_of_one_model_are_held_each() -> None:
    copies = [
        event(10.5, "m", "load"),
        event(20.5, "m", "load"),
        event(30.0, "m", "unload"),
        event(40.0, "m", "unload"),
    ]
    held = measured(PROFILE, round_of(*copies))
    assert held is not None
    assert (held.mib_seconds, held.peak_mib) == pytest.approx((40 * 20 + 40 * 20, 80.0))


@pytest.mark.parametrize("changes", [{"events": None}, {"resident": None}, {"steady_loads": 2}], ids=str)
def test_without_every_load_the_money_is_not_known(changes: dict[str, Any]) -> None:
    each = round_of(event(10.5, "m", "load"), event(30.0, "m", "unload"))
    assert measured(PROFILE, replace(each, ended=each.ended.model_copy(update=changes))) is None


def test_a_billed_size_is_that_of_the_memory() -> None:
    sizes = [{"memory": 310 << 20, "cpu": 1.0, "hour": 1.0}, {"memory": 600 << 20, "cpu": 1.0, "hour": 2.0}]
    spec = {"memory_gib_hour": 0.0, "cpu_hour": 0.0, "latency_hour": 0.0, "charge": "pss", "billing": "size"}
    prices = Prices.of(CostSpec.model_validate(spec | {"sizes": sizes}))
    held = measured(PROFILE, round_of())
    assert held is not None
    assert held.cost_per_hour(prices) == 2.0  # 500 MiB
    assert replace(held, most_mib=300.0).cost_per_hour(prices) == 1.0
    assert replace(held, most_mib=None).cost_per_hour(prices) is None


def test_a_simulation_counts_as_a_measurement_does() -> None:
    """A model that is loaded once, after ten seconds, and kept: the same money from a server's report."""
    setting = Setting(load_plugins([]).strategy("keep-alive"), {"ttl": "forever"}, False)
    outcome = simulate(setting, PROFILE, Arrivals([10.0, 50.0], [1, 1]), 1, 0, resident=[0])
    expected = simulated(PROFILE, outcome)
    report = round_of(event(10.5, "n", "load"), resident=["m", "n"], steady_s=50.005)
    held = measured(PROFILE, report)
    assert held is not None
    assert held.mib_seconds == pytest.approx(expected.mib_seconds)
    assert (held.peak_mib, held.load_cpu_s) == pytest.approx((expected.peak_mib, expected.load_cpu_s))
    assert held.cost_per_hour(PRICES) == pytest.approx(expected.cost_per_hour(PRICES))
