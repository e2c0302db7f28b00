"""The simulator, against closed forms in their limits and against one that is slow and obvious."""

from __future__ import annotations

import math
import time
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.contracts import LoadReason, Resident
from core.costs.prices import Prices
from core.planning.arrivals import Arrivals
from core.planning.candidates import Strategy, simulate
from core.planning.eviction import lru_loads
from core.planning.profile import ModelProfile, Profile
from core.planning.setting import Setting
from core.planning.timeouts import cost_rate, timeout_cost
from core.plugins import load_plugins
from core.residency.decisions import Decisions
from tests.helpers.slow_server import SlowServer

PRICES = Prices(memory_gib_hour=3.6e3 * 1024, cpu_hour=0.0, latency_hour=3.6e3, charge="pss", billing="average")
"""A MiB costs 1 a second, and so does a caller who waits."""
MIB = 1 << 20
SERVICE, FURTHER = 0.3107, 0.1033  # seconds, such that nothing ends when something else does


def profile_of(
    count: int, *, warm: float = 0.0, load: float = 0.0, mib: float = 1.0, further: float = 0.0, unload: float = 0.0
) -> Profile:
    model = ModelProfile(
        warm=(warm,), first=(warm,), load=(load,), unload=unload, further=further, around=0.0, around_cold=0.0,
        weights_mib=mib, mib=mib, request_cpu=0.0, load_cpu=0.0,
    )  # fmt: skip
    return Profile("transformers", {}, 0.0, {str(number): model for number in range(count)}, ())


def poisson(rate: float, count: int, models: int = 1, seed: int = 0) -> Arrivals:
    draws = np.random.default_rng(seed)
    at = np.cumsum(draws.exponential(1 / rate, count))
    return Arrivals(at.tolist(), draws.integers(models, size=count).tolist())


PLUGINS = load_plugins()


def setting(name: str, **options: Any) -> Setting:
    return Setting(PLUGINS.strategy(name), options)


def kept_for(timeout: float) -> Setting:
    return setting("keep-alive", ttl="forever" if timeout == math.inf else timeout)


@pytest.mark.process
@pytest.mark.parametrize("timeout", [0.0, 0.5, 4.0, math.inf])
@pytest.mark.parametrize("rate", [0.2, 2.0])
def test_without_service_it_agrees_with_the_closed_form(rate: float, timeout: float) -> None:
    """m is 2 a second; a load takes no time, and its price k = 3 is charged here."""
    arrivals = poisson(rate, 20_000)
    found = simulate(kept_for(timeout), profile_of(1, mib=2.0), arrivals, 32, 0)
    gaps = np.diff(arrivals.at)
    held, loads = found.mib_seconds, sum(found.loads)
    assert held + 3.0 * loads == pytest.approx(timeout_cost(gaps, timeout, 2.0, 3.0))  # of this very trace
    assert found.cold == loads
    each = 2.0 * np.minimum(gaps, timeout) + 3.0 * (gaps > timeout)
    expected = cost_rate(timeout, rate, 2.0, 3.0)
    # Of a ratio of two means, by the delta method; and what one load and one gap more or less make.
    error = 4 * float((each - expected * gaps).std()) * rate / math.sqrt(len(gaps)) + 10 / found.seconds
    assert (held + 3.0 * loads) / found.seconds == pytest.approx(expected, abs=error)


def test_its_money_is_m_and_k() -> None:
    profile = profile_of(1, mib=2.0, load=0.0)
    arrivals = poisson(1.0, 2000)
    found = simulate(kept_for(1.0), profile, arrivals, 32, 0)
    money = found.money(0.0, list(profile.models.values()), PRICES)
    assert money.holding == pytest.approx(found.mib_seconds)
    assert money.total == pytest.approx(money.holding + money.waiting)
    peak = Prices(**{**vars(PRICES), "billing": "peak"})
    assert found.money(0.0, list(profile.models.values()), peak).holding == pytest.approx(2.0 * found.seconds)


@pytest.mark.parametrize("models", [1, 3])
def test_kept_models_wait_for_one_slot_as_lindley_says(models: int) -> None:
    """W(n+1) = max(0, W(n) + S − A): one slot, no batches, never a load. Lanes take turns, which keeps the mean."""
    arrivals = poisson(0.8, 5000, models)
    found = simulate(setting("persistent"), profile_of(models, warm=1.0), arrivals, 1, 0)
    waits, wait, before = [], 0.0, arrivals.at[0]
    for at in arrivals.at:
        wait = max(0.0, wait - (at - before))
        wait += 1.0
        waits.append(wait)
        before = at
    assert np.mean(found.latencies) == pytest.approx(np.mean(waits))
    assert models > 1 or sorted(found.latencies) == pytest.approx(sorted(waits))
    assert (found.cold, sum(found.loads)) == (0, models)
    # Pollaczek (1930) and Khinchin (1932), for a constant service time: S + ρS / (2 (1 − ρ)).
    assert np.mean(found.latencies) == pytest.approx(1 + 0.8 / (2 * 0.2), rel=0.15)


def test_on_demand_has_a_capacity_and_says_when_it_is_exceeded() -> None:
    slow, profile = setting("on-demand"), profile_of(1, warm=0.1, load=0.9)
    assert not simulate(slow, profile, poisson(0.5, 1000), 32, 0).exceeded
    over = simulate(slow, profile, poisson(2.0, 1000), 32, 0)
    assert over.exceeded
    assert (over.cold, sum(over.loads)) == (1000, 1000)
    assert over.busy == pytest.approx(1.0, abs=0.01)
    shared = simulate(setting("on-demand", share=True), profile, poisson(2.0, 1000), 32, 0)
    assert (shared.exceeded, shared.cold) == (False, 1000)
    assert sum(shared.loads) < 1000


def test_the_lru_loads_as_a_sequence_without_time_does() -> None:
    arrivals = poisson(1.0, 5000, models=8)
    found = simulate(setting("lru-cached", capacity=3), profile_of(8), arrivals, 32, 0)
    assert sum(found.loads) == lru_loads(arrivals.asked, 3)
    assert found.peak_mib == 3
    budget = simulate(setting("lru-cached", memory_budget=3 << 20), profile_of(8), arrivals, 32, 0)
    assert budget.loads == found.loads


# The same examples each time: in one of 2,000, where events fall together, the two take turns in another order.
@pytest.mark.process
@settings(deadline=None, max_examples=150, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    rate=st.sampled_from([0.2, 1.0, 5.0]),
    models=st.integers(1, 6),
    load=st.sampled_from([0.0, 0.731, 3.179]),
    unload=st.sampled_from([0.0, 0.1717]),
    chosen=st.sampled_from([
        setting("persistent"), setting("on-demand"), setting("on-demand", share=True),
        *(setting("lru-cached", capacity=capacity) for capacity in (1, 2, 3)),
        *(setting("keep-alive", ttl=ttl) for ttl in (0, 0.9, 5.3)),
        *(setting("keep-alive", ttl=2.3, memory_budget=mib << 20, evict="lru") for mib in (1, 2)),
    ]),
)  # fmt: skip
def test_it_does_what_the_slow_one_does(
    seed: int, rate: float, models: int, load: float, unload: float, chosen: Setting
) -> None:
    arrivals = poisson(rate, 60, models, seed)
    found = simulate(
        chosen, profile_of(models, warm=SERVICE, load=load, further=FURTHER, unload=unload), arrivals, 32, 0
    )
    decisions = chosen.decisions()
    capacity = decisions.capacity or (decisions.budget or math.inf) / MIB
    preloads = chosen.strategy == "persistent"
    load = 0.0 if preloads else load  # the slow one cannot preload
    ttl = chosen.options.get("ttl", 0.0 if chosen.strategy == "on-demand" else math.inf)
    assert isinstance(ttl, int | float)
    slow = SlowServer(SERVICE, FURTHER, load, unload, ttl, capacity, decisions.shared)
    latencies = slow.run(list(zip(arrivals.at, arrivals.asked, strict=True)), models)
    assert sorted(found.latencies) == pytest.approx(sorted(latencies))
    if not preloads:
        assert (found.cold, sum(found.loads)) == (slow.cold, slow.loads)
        assert found.mib_seconds == pytest.approx(slow.held)


def test_the_same_seed_draws_the_same_and_the_mean_is_the_measured_one() -> None:
    model = next(iter(profile_of(1).models.values()))
    measured = replace(model, warm=(0.001, 0.002, 0.006))
    profile = Profile("transformers", {}, 0.0, {"a": measured}, ())
    one, other = (simulate(setting("persistent"), profile, poisson(1.0, 20_000), 1, 7) for _ in range(2))
    assert np.array_equal(one.latencies, other.latencies)
    assert np.mean(one.latencies) == pytest.approx(0.003, rel=0.03)


class Counting:
    """Frees a model after as many seconds as it has seen requests."""

    def __init__(self) -> None:
        self.seen = 0

    def decisions(self, prices: Prices | None = None) -> Decisions:
        return Decisions(Counting(), "counting")

    def requested(self, model_id: str, now: float) -> None:
        self.seen += 1

    def keep(self, model: Resident, now: float) -> float:
        return float(self.seen)


@pytest.mark.parametrize(
    "chosen", [kept_for(4.0), setting("persistent"), setting("lru-cached", capacity=2), Counting()]
)
@pytest.mark.parametrize("load", [0.0, 3.0])
def test_the_halves_are_the_whole(chosen: Strategy, load: float) -> None:
    """Also where requests wait and loads run while the second half begins."""
    arrivals = poisson(1.0, 201, models=3)
    found = simulate(chosen, profile_of(3, warm=0.5, load=load, mib=2.0), arrivals, 32, 0)
    first, second = found.halves
    assert first.seconds == arrivals.at[100]
    assert first.seconds + second.seconds == found.seconds
    assert first.mib_seconds + second.mib_seconds == pytest.approx(found.mib_seconds)
    assert first.cold + second.cold == found.cold
    for name in ("requests", "loads"):
        parts = zip(getattr(first, name), getattr(second, name), strict=True)
        assert [one + other for one, other in parts] == getattr(found, name)
    assert (len(first.latencies), len(second.latencies)) == (sum(first.requests), sum(second.requests))
    for each in ("latencies", "at_first"):
        assert np.array_equal(np.concatenate([getattr(first, each), getattr(second, each)]), getattr(found, each))
    assert max(first.peak_mib, second.peak_mib) == found.peak_mib


def test_the_second_half_goes_on_with_what_the_first_one_left() -> None:
    """A request in each half, 3 s apart: the strategy has seen one by then, so that the model is gone, or is kept."""
    for apart, loads in ((0.9, [0]), (3.0, [1])):
        found = simulate(Counting(), profile_of(1), Arrivals([0.0, apart], [0, 0]), 1, 0)
        assert found.halves[0].loads == [1]
        assert found.halves[1].loads == loads
        assert found.halves[0].mib_seconds == pytest.approx(min(apart, 1.0))
    assert simulate(Counting(), profile_of(1), Arrivals([0.0], [0]), 1, 0).halves == ()


class Observing:
    """Hears of each request and each load, and decides itself what to keep and what to evict."""

    label = "observing"

    def __init__(self, capacity: int = 60) -> None:
        self.capacity = capacity
        self._last: dict[str, float] = {}
        self._gaps: dict[str, float] = {}

    def decisions(self, prices: Prices | None = None) -> Decisions:
        return Decisions(Observing(self.capacity), self.label)

    def requested(self, model_id: str, now: float) -> None:
        gap = now - self._last.get(model_id, now)
        self._gaps[model_id] = 0.9 * self._gaps.get(model_id, 1.0) + 0.1 * gap
        self._last[model_id] = now

    def loaded(self, model: Resident, reason: LoadReason, now: float) -> None:
        self._gaps.setdefault(model.model_id, model.load_seconds)

    def keep(self, model: Resident, now: float) -> float:
        return min(600.0, 20 * self._gaps[model.model_id])

    def evict(self, candidates: Collection[Resident], now: float) -> str:
        return next(iter(candidates)).model_id


def test_an_observing_strategy_is_called_as_the_contract_says() -> None:
    arrivals = poisson(1.0, 500, models=8)
    chosen = Observing(3)
    found = simulate(chosen, profile_of(8, warm=0.01), arrivals, 1, 0)
    assert found.peak_mib == 3
    assert 8 < sum(found.loads) < 500


def seconds_taken(chosen: Setting | Observing, models: int, requests: int) -> float:
    """CPU time for so many requests, 50 a second, of a popularity with a long tail."""
    draws = np.random.default_rng(0)
    shares = np.arange(1, models + 1.0) ** -1.1
    asked = draws.choice(models, requests, p=shares / shares.sum()).tolist()
    arrivals = Arrivals(np.cumsum(draws.exponential(0.02, requests)).tolist(), asked)
    profile = profile_of(models, warm=0.005, load=0.02, further=0.002)
    before = time.process_time()
    found = simulate(chosen, profile, arrivals, 32, 0)
    taken = time.process_time() - before
    assert len(found.latencies) == requests
    counts = f"{requests} requests, {models} models, {sum(found.loads)} loads"
    print(f"{chosen.label}: {counts}: {taken:.1f} s of CPU time")
    return taken


SETTINGS = [
    setting("persistent"), setting("on-demand"), setting("on-demand", share=True),
    setting("lru-cached", capacity=60), setting("lru-cached", memory_budget=60 << 20),
    kept_for(1.0), kept_for(60.0), setting("keep-alive", ttl="auto"),
    setting("keep-alive", ttl="learned"), setting("cached", memory_budget=60 << 20),
    setting("keep-alive", ttl=60, memory_budget=60 << 20), Observing(),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("chosen", SETTINGS, ids=lambda chosen: chosen.label)
def test_a_million_requests_over_a_thousand_models_take_ten_times_as_long_as_a_tenth(
    chosen: Setting | Observing,
) -> None:
    assert seconds_taken(chosen, 1000, 100_000) > seconds_taken(chosen, 1000, 1_000_000) / 30


@pytest.mark.slow
@pytest.mark.parametrize("chosen", SETTINGS, ids=lambda chosen: chosen.label)
def test_more_models_cost_no_time_of_their_own(chosen: Setting | Observing) -> None:
    """A quarter of a million requests take no longer over 300 models than over 30, but for the loads."""
    assert seconds_taken(chosen, 300, 250_000) < 15 * seconds_taken(chosen, 30, 250_000)
