"""Costs and break-even rates, on records whose costs are known: the arithmetic, the intervals, what cannot be told."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from core import memory
from core.choices import Cost
from core.decide.break_even import fieller
from core.decide.choice import cheapest_by_rate
from core.decide.economics import RoundCost, TrialCost
from core.decide.prices import FARGATE
from core.decide.summary import summarise
from tests.priced import UNITS, costing, ended_with
from tests.synthetic import Record, run_with

KEPT, LOADED = [(500.0, 0.01)] * 5, [(400.0, 0.06)] * 5
TWO = {"persistent": KEPT, "on-demand": LOADED}
OPEN = {"open": {"rate": 10.0, "arrivals": "poisson", "popularity": "uniform", "requests": 20}}


def economics(records: Sequence[Record]) -> Any:
    return summarise(records)["economics"]


def pair(records: Sequence[Record]) -> Any:
    [found] = economics(records)["break_even"]
    assert (found["trial"], found["against"]) == ("on-demand", "persistent")
    return found


def test_costs_and_their_break_even_rate_come_out() -> None:
    found = economics(costing(TWO))
    kept, loaded = found["trials"]
    assert (kept["holding_per_hour"], loaded["holding_per_hour"]) == pytest.approx((500, 400))
    assert (kept["per_request"], loaded["per_request"]) == pytest.approx((0.01, 0.06))
    assert kept["holding_ci95"] == pytest.approx([500, 500])
    assert (kept["charged_mib"], kept["capacity_rps"]) == pytest.approx((500, 10))
    assert (kept["measured_per_hour"], kept["per_million"]) == (None, None)  # no traffic is stated
    assert found["prices"] == UNITS | {"sizes": ()}
    even = pair(costing(TWO))
    assert even["rate_per_hour"] == pytest.approx(100 / 0.05)
    assert even["ci95"] == pytest.approx([2000, 2000])
    assert (even["cheaper_below"], even["cheaper_above"]) == ("on-demand", "persistent")
    assert (even["capped_per_hour"], even["reason"], even["rounds"]) == (None, None, 5)


def test_units_at_the_default_prices() -> None:
    """Half a GiB for an hour; 0.05 core seconds for a request; 36 000 requests an hour."""
    cost = Cost().model_dump()
    [trial] = economics(costing({"a": [(512.0, 0.05)] * 5}, cost=cost, workload=OPEN))["trials"]
    assert trial["holding_per_hour"] == pytest.approx(0.004445 / 2)
    assert trial["per_request"] == pytest.approx(0.05 * 0.04048 / 3600)
    assert trial["measured_per_hour"] == pytest.approx(0.004445 / 2 + 36_000 * 0.05 * 0.04048 / 3600)
    assert trial["per_million"] == pytest.approx(trial["measured_per_hour"] / 36_000 * 1e6)
    assert trial["capacity_rps"] is None
    assert {name: cost[name] for name in FARGATE} == FARGATE


def test_waiting_and_memory_that_only_requests_hold() -> None:
    records = costing(TWO, ms={"on-demand": 30.0}, cost={"latency_hour": 3600.0}, workload=OPEN)
    assert economics(records)["trials"][1]["per_request"] == pytest.approx(0.06 + 0.03)
    records = ended_with(costing(TWO, workload=OPEN), "on-demand", mean_rss=450.0)
    loaded = economics(records)["trials"][1]
    assert loaded["per_request"] == pytest.approx(0.06 + 50 * 2 / 20 / 3600)  # 50 MiB more, for 2 s, for 20 requests
    assert loaded["measured_per_hour"] == pytest.approx(450 + 0.06 * 36_000)
    assert (loaded["charged_mib"], loaded["holding_per_hour"]) == pytest.approx((400, 400))


def test_what_is_charged() -> None:
    def holding(records: Sequence[Record]) -> Any:
        return [trial["holding_per_hour"] for trial in economics(records)["trials"]]

    private = ended_with(costing(TWO, cost={"charge": "private"}), "on-demand", memory_mib={"idle_private": 123.0})
    assert holding(private) == pytest.approx([500, 123])
    changes = {"memory_mib": {"peak_rss": 490.0}, "mean_rss": 450.0}
    peak = ended_with(costing(TWO, cost={"billing": "peak"}), "on-demand", **changes)
    assert holding(peak) == pytest.approx([500, 490])
    assert economics(peak)["trials"][1]["per_request"] == pytest.approx(0.06)  # the peak is paid for already


def test_the_interval_is_fiellers() -> None:
    rng = np.random.default_rng(1)
    above, below = rng.normal(100, 5, 6), rng.normal(0.05, 0.005, 6)
    for bound in fieller(above.tolist(), below.tolist()) or ():
        assert float(stats.ttest_1samp(above - bound * below, 0).pvalue) == pytest.approx(0.05)
    assert fieller([100.0] * 5, [0.05, -0.05, 0.04, -0.03, 0.01]) is None


def test_the_interval_of_the_rate_covers() -> None:
    """Rounds in which the machine drifts, so that both differences rise and fall together."""
    rng = np.random.default_rng(20260101)
    runs, rounds = 2000, 5
    drift = rng.normal(1, 0.1, (runs, rounds))
    above = 100 * rng.normal(1, 0.03, (runs, rounds))
    below = 0.05 * drift * rng.normal(1, 0.1, (runs, rounds))
    found = [fieller(x, y) for x, y in zip(above.tolist(), below.tolist(), strict=True)]
    assert None not in found
    covered = np.mean([low <= 2000 <= high for low, high in filter(None, found)])
    assert 0.93 <= covered <= 0.97


def test_no_break_even_where_one_is_cheaper_in_both() -> None:
    even = pair(costing(TWO | {"on-demand": [(400.0, 0.005)] * 5}))
    assert (even["rate_per_hour"], even["cheaper_below"], even["cheaper_above"]) == (None, "on-demand", "on-demand")
    assert even["reason"] == "on-demand holds less than persistent, and costs less for each request."
    even = pair(costing(TWO | {"on-demand": [(500.5, 0.06)] * 5}))  # less than a MiB is nothing
    assert (even["cheaper_below"], even["cheaper_above"]) == ("persistent", "persistent")
    assert even["reason"] == "persistent costs as much to hold as on-demand, and costs less for each request."


def test_no_break_even_where_the_rounds_cannot_tell() -> None:
    unsure = [(400.0, 0.01 + change) for change in (0.05, -0.03, 0.04, -0.02, 0.02)]
    even = pair(costing(TWO | {"on-demand": unsure}))
    assert (even["rate_per_hour"], even["ci95"]) == (None, None)
    assert (even["cheaper_below"], even["cheaper_above"]) == ("on-demand", None)
    assert even["reason"].startswith(
        "on-demand holds less than persistent; what a request costs is not separable in 5 rounds. About "
    )
    even = pair(costing(TWO | {"on-demand": KEPT}))
    assert (even["rate_per_hour"], even["cheaper_below"], even["cheaper_above"]) == (None, None, None)
    assert even["reason"] == "on-demand and persistent cost the same, as far as 5 rounds can tell."


def test_a_rate_beyond_what_was_answered_is_capped() -> None:
    even = pair(costing({"persistent": [(5000.0, 0.01)] * 5, "on-demand": [(400.0, 0.06)] * 5}))
    assert even["rate_per_hour"] == pytest.approx(4600 / 0.05)
    assert even["capped_per_hour"] == pytest.approx(36_000)
    assert even["reason"].startswith("No more than 36,000 requests an hour were answered under on-demand")


def test_one_round_gives_figures_without_intervals() -> None:
    found = economics(costing({label: rounds[:1] for label, rounds in TWO.items()}))
    assert found["trials"][0]["holding_ci95"] is None
    [even] = found["break_even"]
    assert (even["rate_per_hour"], even["ci95"]) == (pytest.approx(2000), None)
    assert even["reason"] == "A figure, no verdict: that takes 5 rounds."


def test_what_cannot_be_priced_says_why() -> None:
    assert economics(run_with({"a": [[10.0] * 20] * 5})) is None  # no prices
    found = economics(ended_with(costing(TWO), "on-demand", memory_mib={"idle_pss": None}))
    assert found["unpriced"] == {"on-demand": "memory is not known, because this system has no /proc"}
    assert [trial["label"] for trial in found["trials"]] == ["persistent"]
    found = economics(ended_with(costing(TWO), "on-demand", processor_s=None))
    assert found["unpriced"] == {"on-demand": "processor time could not be read"}


def test_models_that_expire_have_no_line() -> None:
    known = ended_with(costing(TWO), "on-demand", mean_rss=450.0, least_keep=0.2)
    even = pair(known)
    assert (even["rate_per_hour"], even["reason"]) == (
        None,
        "on-demand has no cost at other rates: models expire in its gaps.",
    )
    for least_keep in (300.0, None):
        found = pair(ended_with(costing(TWO), "on-demand", least_keep=least_keep))
        assert found["rate_per_hour"] == pytest.approx(2000)


def line(label: str, holding: float, per_request: float, capacity: float | None = None) -> TrialCost:
    return TrialCost(label, {0: RoundCost(holding, holding, holding, per_request, 1.0)}, capacity, is_line=True)


def test_the_cheapest_by_rate_is_an_envelope_up_to_what_each_can_serve() -> None:
    lines = [line("a", 1, 4), line("b", 3, 2), line("c", 7, 1), line("never", 6, 3)]
    assert [tuple(segment) for segment in cheapest_by_rate(lines)] == [("a", 0, 1), ("b", 1, 4), ("c", 4, np.inf)]
    limited = [line("a", 1, 2, 10), line("b", 30, 1, 20)]
    assert [tuple(segment) for segment in cheapest_by_rate(limited)] == [("a", 0, 10), ("b", 10, 20)]
    assert cheapest_by_rate([]) == []


def test_processor_time_is_that_of_the_tree_with_those_that_ended() -> None:
    before = memory.processor_seconds(os.getpid())
    busy = "import time\nwhile time.process_time() < 0.3: pass"
    subprocess.run([sys.executable, "-c", busy], check=True)
    after = memory.processor_seconds(os.getpid())
    assert before is not None
    assert after is not None
    assert after - before >= 0.28  # ticks of a hundredth
    resident = memory.resident(os.getpid())
    assert resident is None or resident > 10
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert memory.processor_seconds(ended.pid) is None
