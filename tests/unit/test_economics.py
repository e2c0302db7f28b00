"""Costs and break-even rates, on records whose costs are known: the arithmetic, the intervals, what cannot be told."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from core.advice.choice import cheapest_by_rate
from core.config.choices import Cost
from core.costs.break_even import crossing
from core.costs.economics import RoundCost, TrialCost
from core.costs.prices import FARGATE
from core.report.prose.sentences import say
from core.results.economics import BreakEven, Economics, LoadsLacking
from core.stats.intervals import sign
from core.system import memory
from tests.helpers.priced import UNITS, costing, economics_of, ended_with, loading
from tests.helpers.synthetic import Record, run_with, summarised

KEPT, LOADED = [(500.0, 0.01)] * 5, [(400.0, 0.06)] * 5
TWO = {"persistent": KEPT, "on-demand": LOADED}
OPEN = {"open": {"rate": 10.0, "arrivals": "poisson", "popularity": "uniform", "requests": 20}}


def pair(records: Sequence[Record]) -> BreakEven:
    [found] = economics_of(records).break_even
    assert (found.trial, found.against) == ("on-demand", "persistent")
    return found


def told(even: BreakEven) -> str | None:
    """Its reason in words."""
    return None if even.reason is None else say(even.reason)


def reasons(found: Economics) -> dict[str, str]:
    """Why trials are not priced, by label."""
    return {label: say(reason) for label, reason in found.unpriced.items()}


def test_costs_and_their_break_even_rate_come_out() -> None:
    found = economics_of(costing(TWO))
    kept, loaded = found.trials
    assert (kept.holding_per_hour, loaded.holding_per_hour) == pytest.approx((500, 400))
    assert (kept.per_request, loaded.per_request) == pytest.approx((0.01, 0.06))
    assert kept.holding_ci95 == pytest.approx([500, 500])
    assert (kept.charged_mib, kept.capacity_rps) == pytest.approx((500, 10))
    assert (kept.measured_per_hour, kept.per_million) == (None, None)  # no traffic is stated
    assert found.prices.model_dump() == UNITS | {"sizes": ()}
    even = pair(costing(TWO))
    assert even.rate_per_hour == pytest.approx(100 / 0.05)
    assert even.ci95 == pytest.approx([2000, 2000])
    assert (even.cheaper_below, even.cheaper_above) == ("on-demand", "persistent")
    assert (even.capped_per_hour, told(even), even.rounds) == (None, None, 5)


def test_units_at_the_default_prices() -> None:
    """Half a GiB for an hour; 0.05 core seconds for a request; 36 000 requests an hour."""
    cost = Cost().model_dump()
    [trial] = economics_of(costing({"a": [(512.0, 0.05)] * 5}, cost=cost, workload=OPEN)).trials
    assert trial.holding_per_hour == pytest.approx(0.004445 / 2)
    assert trial.per_request == pytest.approx(0.05 * 0.04048 / 3600)
    assert trial.measured_per_hour == pytest.approx(0.004445 / 2 + 36_000 * 0.05 * 0.04048 / 3600)
    assert trial.per_million == pytest.approx((0.004445 / 2 / 36_000 + 0.05 * 0.04048 / 3600) * 1e6)
    assert trial.capacity_rps is None
    assert {name: cost[name] for name in FARGATE} == FARGATE


def test_waiting_and_memory_that_only_requests_hold() -> None:
    records = costing(TWO, ms={"on-demand": 30.0}, cost={"latency_hour": 3600.0}, workload=OPEN)
    assert economics_of(records).trials[1].per_request == pytest.approx(0.06 + 0.03)
    records = ended_with(costing(TWO, workload=OPEN), "on-demand", mean_rss=450.0)
    loaded = economics_of(records).trials[1]
    assert loaded.per_request == pytest.approx(0.06 + 50 * 2 / 20 / 3600)  # 50 MiB more, for 2 s, for 20 requests
    assert loaded.measured_per_hour == pytest.approx(450 + 0.06 * 36_000)
    assert (loaded.charged_mib, loaded.holding_per_hour) == pytest.approx((400, 400))


def test_what_is_charged() -> None:
    def holding(records: Sequence[Record]) -> list[float]:
        return [trial.holding_per_hour for trial in economics_of(records).trials]

    private = ended_with(costing(TWO, cost={"charge": "private"}), "on-demand", memory_mib={"idle_private": 123.0})
    assert holding(private) == pytest.approx([500, 123])
    changes = {"memory_mib": {"peak_rss": 490.0}, "mean_rss": 450.0}
    peak = ended_with(costing(TWO, cost={"billing": "peak"}), "on-demand", **changes)
    assert holding(peak) == pytest.approx([500, 490])
    assert economics_of(peak).trials[1].per_request == pytest.approx(0.06)  # the peak is paid for already


def test_the_most_that_was_held_counts_the_start() -> None:
    for peak, start in ((490.0, 700.0), (700.0, 490.0)):
        memory = {"peak_rss": peak, "start_peak_rss": start}
        records = ended_with(costing(TWO, cost={"billing": "peak"}), "on-demand", memory_mib=memory)
        assert [each.charged_mib for each in economics_of(records).trials] == pytest.approx([500, 700])


COLD, WARM = (40.0, 0.09), (10.0, 0.05)  # a load's milliseconds and core seconds


@pytest.mark.parametrize(
    ("cost", "page_cache", "further"),
    [
        ({"charge": "pss"}, "warm", (30, 0.04)),
        ({"charge": "pss"}, "cold", (0, 0)),
        ({"charge": "private"}, "warm", (0, 0)),
        ({"charge": "private"}, "cold", (-30, -0.04)),
        ({"charge": "pss", "billing": "peak"}, "warm", (0, 0)),
        ({"charge": "pss", "billing": "peak"}, "cold", (-30, -0.04)),
    ],
)
def test_a_load_is_priced_from_where_its_pages_are(
    cost: dict[str, Any], page_cache: str, further: tuple[float, float]
) -> None:
    """They are gone where someone else had them meanwhile, and else still in memory that is paid for, or free."""
    records = loading(costing(TWO, cost=cost, page_cache=page_cache), "on-demand", [{"cold": COLD, "warm": WARM}])
    kept, loaded = economics_of(records).trials
    assert kept.load is None
    assert kept.per_request == pytest.approx(0.01)
    assert loaded.per_request == pytest.approx(0.06 + further[1])
    assert loaded.load is not None
    assert (loaded.load.further_ms, loaded.load.further_processor_s) == pytest.approx(further)
    assert loaded.load.lacking is None
    waiting = loading(
        costing(TWO, cost=cost | {"latency_hour": 3600.0}, page_cache=page_cache),
        "on-demand",
        [{"cold": COLD, "warm": WARM}],
    )
    assert economics_of(waiting).trials[1].per_request == pytest.approx(0.07 + further[1] + further[0] / 1e3)


def test_the_loads_of_a_round_are_its_own_and_those_of_a_like_trial_stand_for_them() -> None:
    rounds = [{"cold": (10.0, 0.01 * number), "warm": (10.0, 0.0)} for number in range(5)]
    records = loading(costing(TWO), "on-demand", rounds)
    found = pair(records)
    assert found.rate_per_hour == pytest.approx(100 / (0.05 + 0.02))
    assert found.ci95 is not None
    assert found.ci95[0] < found.ci95[1]  # though everything else is the same in each round
    trials = TWO | {"evicted": LOADED, "other loader": LOADED}
    specs = {"other loader": {"loader": "mapped"}}
    records = loading(costing(trials, specs=specs), "on-demand", rounds)
    for label in ("evicted", "other loader"):
        records = loading(records, label, loads_lacking="its model stays in memory")
    _, loaded, evicted, other = economics_of(records).trials
    assert evicted.load == loaded.load
    assert other.load is not None
    assert other.load.lacking == LoadsLacking(recorded="its model stays in memory")
    assert other.load.page_cache == "warm"
    assert other.per_request == pytest.approx(0.06)


def test_requests_that_came_at_the_same_time_may_have_shared_a_load() -> None:
    records = ended_with(loading(costing(TWO), "on-demand", [{"cold": COLD, "warm": WARM}]), "on-demand", loads=5)
    assert economics_of(records).trials[1].per_request == pytest.approx(0.06 + 0.04 * 5 / 20)


@pytest.mark.process
@pytest.mark.parametrize(
    ("shape", "runs"),
    [
        ("symmetric", 60),
        ("skewed", 60),
        *(pytest.param(s, 300, marks=pytest.mark.slow) for s in ("symmetric", "skewed")),
    ],
)
def test_the_rate_covers_where_loads_are_priced_by_others_than_those_of_the_requests(shape: str, runs: int) -> None:
    """The true one is that of the medians, of which each round knows three loads of each kind."""
    rng = np.random.default_rng(20260102)
    wrong = 0

    def loads(seconds: float) -> float:
        """The median of three."""
        noise = rng.normal(0, 0.1, 3) if shape == "symmetric" else rng.exponential(0.1, 3) - 0.1 * np.log(2)
        return float(np.median(seconds * (1 + noise)))

    for _ in range(runs):
        rounds = [{"cold": (10.0, loads(0.05)), "warm": (10.0, loads(0.01))} for _ in range(5)]
        held = [(400.0 + rng.normal(0, 3), 0.06 + rng.normal(0, 0.002)) for _ in range(5)]
        bounds = pair(loading(costing({"persistent": KEPT, "on-demand": held}), "on-demand", rounds)).ci95
        assert bounds is not None
        wrong += not bounds[0] <= 100 / (0.05 + 0.04) <= bounds[1]
    assert wrong / runs <= 0.06 + 2 * (0.05 * 0.95 / runs) ** 0.5


SIZES = [{"memory": mib << 20, "cpu": cpu, "hour": hour} for mib, cpu, hour in ((512, 0.25, 3.0), (1024, 0.5, 7.0))]
BY_SIZE = {"memory_gib_hour": 0.0, "cpu_hour": 0.0, "billing": "size", "sizes": SIZES}


def test_a_size_is_paid_for_whatever_is_used_of_it() -> None:
    trials = TWO | {"large": [(600.0, 0.01)] * 5, "none": [(2000.0, 0.01)] * 5}
    found = economics_of(costing(trials, cost=BY_SIZE))
    told = [(each.label, each.holding_per_hour, each.per_request, each.charged_mib) for each in found.trials]
    assert told == [("persistent", 3, 0, 512), ("on-demand", 3, 0, 512), ("large", 7, 0, 1024)]
    assert reasons(found) == {
        "none": "it held up to 2000 MiB, start-up included, and the largest of 'sizes' has 1024 MiB"
    }
    even = next(each for each in found.break_even if {each.trial, each.against} == set(TWO))
    assert (even.rate_per_hour, even.cheaper_below) == (None, None)
    most = [{"peak_rss": 500.0, "start_peak_rss": 600.0}, {"peak_rss": 600.0, "start_peak_rss": 500.0}]
    for changes in most:  # in one round of five is enough
        records = costing(TWO, cost=BY_SIZE)
        records[-1] = records[-1] | {"memory_mib": records[-1]["memory_mib"] | changes}
        assert records[-1]["trial"] == "on-demand"
        assert [each.holding_per_hour for each in economics_of(records).trials] == [3, 7]
    waiting = costing(TWO, ms={"on-demand": 30.0}, cost=BY_SIZE | {"latency_hour": 3600.0})
    assert [each.per_request for each in economics_of(waiting).trials] == pytest.approx([0.01, 0.03])
    expiring = ended_with(costing(TWO, cost=BY_SIZE), "on-demand", least_keep=0.2)
    assert [each.is_line for each in economics_of(expiring).trials] == [True, True]


def test_the_interval_holds_the_rates_that_the_rounds_do_not_refute() -> None:
    rng = np.random.default_rng(1)
    more, less = rng.normal(100, 5, 10), rng.normal(0.05, 0.005, 10)
    _, low, high = crossing(more.tolist(), less.tolist())
    assert [sign((more - rate * less).tolist()) for rate in (0.99 * low, 1.01 * low, 0.99 * high, 1.01 * high)] == [
        1, 0, 0, -1
    ]  # fmt: skip
    assert crossing([100.0] * 5, [0.05, -0.05, 0.04, -0.03, 0.01])[1:] == (0, math.inf)
    assert crossing([-100.0] * 5, [0.05] * 5) == (0, 0, 0)


@pytest.mark.process
def test_the_interval_of_the_rate_covers() -> None:
    """Rounds in which the machine drifts, so that both differences rise and fall together."""
    rng = np.random.default_rng(20260101)
    runs, rounds = 2000, 5
    drift = rng.normal(1, 0.1, (runs, rounds))
    above = 100 * rng.normal(1, 0.03, (runs, rounds))
    below = 0.05 * drift * rng.normal(1, 0.1, (runs, rounds))
    found = [crossing(x, y) for x, y in zip(above.tolist(), below.tolist(), strict=True)]
    covered = np.mean([low <= 2000 <= high for _, low, high in found])
    assert 0.93 <= covered <= 0.97


def test_no_break_even_where_one_is_cheaper_in_both() -> None:
    even = pair(costing(TWO | {"on-demand": [(400.0, 0.005)] * 5}))
    assert (even.rate_per_hour, even.cheaper_below, even.cheaper_above) == (None, "on-demand", "on-demand")
    assert told(even) == "on-demand holds less memory than persistent and costs less per request."
    even = pair(costing(TWO | {"on-demand": [(500.5, 0.06)] * 5}))  # less than a MiB is nothing
    assert (even.cheaper_below, even.cheaper_above) == ("persistent", "persistent")
    assert told(even) == "persistent holds the same memory as on-demand (to within 1 MiB) and costs less per request."


def test_no_break_even_where_the_rounds_cannot_tell() -> None:
    unsure = [(400.0, 0.01 + change) for change in (0.05, -0.03, 0.04, -0.02, 0.02)]
    even = pair(costing(TWO | {"on-demand": unsure}))
    assert (even.rate_per_hour, even.ci95) == (None, None)
    assert (even.cheaper_below, even.cheaper_above) == ("on-demand", None)
    assert told(even) == (
        "on-demand holds less memory than persistent; in 5 rounds, no difference in cost per request could be shown."
        " About 40 more rounds would decide it, if the true difference is as large as measured."
    )
    assert not even.settled
    even = pair(costing(TWO | {"on-demand": KEPT}))
    assert (even.rate_per_hour, even.cheaper_below, even.cheaper_above) == (None, None, None)
    assert even.settled
    assert told(even) == (
        "on-demand and persistent hold the same memory (to within 1 MiB) and cost the same per request (to within 5%)."
    )


def test_memory_that_is_not_separable_is_not_the_same_memory() -> None:
    wobble = [(400.0 + change, 0.06) for change in (180.0, -90.0, 70.0, 20.0, 150.0)]
    even = pair(costing(TWO | {"on-demand": wobble}))
    assert (even.rate_per_hour, even.cheaper_below, even.cheaper_above) == (None, None, "persistent")
    assert not even.settled
    assert str(told(even)).startswith(
        "In 5 rounds, no difference in memory between persistent and on-demand could be shown; persistent costs less"
        " per request."
    )


def test_a_rate_beyond_what_was_answered_is_capped() -> None:
    even = pair(costing({"persistent": [(5000.0, 0.01)] * 5, "on-demand": [(400.0, 0.06)] * 5}))
    assert even.rate_per_hour == pytest.approx(4600 / 0.05)
    assert even.capped_per_hour == pytest.approx(36_000)
    assert str(told(even)).startswith("on-demand answered at most 36,000 requests an hour, less than")


def test_one_round_gives_figures_without_intervals() -> None:
    found = economics_of(costing({label: rounds[:1] for label, rounds in TWO.items()}))
    assert found.trials[0].holding_ci95 is None
    [even] = found.break_even
    assert even.rate_per_hour == pytest.approx(2000)
    assert even.ci95 is None
    assert told(even) == "A measurement, not a verdict: a verdict needs 5 rounds."


def test_what_cannot_be_priced_says_why() -> None:
    assert summarised(run_with({"a": [[10.0] * 20] * 5})).economics is None  # no prices
    found = economics_of(ended_with(costing(TWO), "on-demand", memory_mib={"idle_pss": None}))
    assert reasons(found) == {"on-demand": "memory is not known, because this system has no /proc"}
    assert [trial.label for trial in found.trials] == ["persistent"]
    found = economics_of(ended_with(costing(TWO), "on-demand", processor_s=None))
    assert reasons(found) == {"on-demand": "CPU time could not be read"}


def test_models_that_expire_have_no_line() -> None:
    known = ended_with(costing(TWO), "on-demand", mean_rss=450.0, least_keep=0.2)
    even = pair(known)
    assert (even.rate_per_hour, told(even)) == (
        None,
        "The cost of on-demand at other rates is unknown: its models expire in the gaps between requests.",
    )
    for least_keep in (300.0, None):
        found = pair(ended_with(costing(TWO), "on-demand", least_keep=least_keep))
        assert found.rate_per_hour == pytest.approx(2000)


def line(label: str, holding: float, per_request: float, capacity: float | None = None) -> TrialCost:
    return TrialCost(label, {0: RoundCost(holding, holding, holding, per_request, 1.0)}, capacity, is_line=True)


def test_the_cheapest_by_rate_is_an_envelope_up_to_what_each_can_serve() -> None:
    lines = [line("a", 1, 4), line("b", 3, 2), line("c", 7, 1), line("never", 6, 3)]
    assert [tuple(segment) for segment in cheapest_by_rate(lines)] == [("a", 0, 1), ("b", 1, 4), ("c", 4, np.inf)]
    limited = [line("a", 1, 2, 10), line("b", 30, 1, 20)]
    assert [tuple(segment) for segment in cheapest_by_rate(limited)] == [("a", 0, 10), ("b", 10, 20)]
    assert cheapest_by_rate([]) == []


@pytest.mark.process
def test_processor_time_is_that_of_the_tree_with_those_that_ended() -> None:
    before = memory.cpu_seconds(os.getpid())
    busy = "import time\nwhile time.process_time() < 0.3: pass"
    subprocess.run([sys.executable, "-c", busy], check=True)
    after = memory.cpu_seconds(os.getpid())
    assert before is not None
    assert after is not None
    assert after - before >= 0.28  # ticks of a hundredth
    resident = memory.rss(os.getpid())
    assert resident is None or resident > 10
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert memory.cpu_seconds(ended.pid) is None
