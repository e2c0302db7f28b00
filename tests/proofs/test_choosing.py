"""What a plan advises where settings are a tie, and where what they save is not worth deciding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from core.planning.arrivals import Arrivals
from core.planning.candidates import candidates, simulate
from core.planning.choosing import choose
from core.planning.outcome import Outcome
from core.planning.plan_file import load_plan
from core.planning.targets import judge
from core.report.prose.plan import answer, grounds
from core.results.plan import ChoiceReasons, Plan, SettingFigures
from tests.runner.test_plan import plan_file, planned_from, run_folder
from tests.unit.test_simulate import profile_of, setting


def row_of(plan: Plan, label: str) -> SettingFigures:
    return next(row for row in plan.settings if row.label == label)


def break_even_rate(plan: Plan) -> float:
    """Of the first model, in requests an hour."""
    rate = plan.theory[0].break_even_per_hour
    assert rate is not None
    return rate


def choice_of(plan: Plan) -> ChoiceReasons:
    assert plan.choice is not None
    return plan.choice


@pytest.mark.parametrize("rate", ["1200/h", "8/s"])
def test_what_costs_the_same_is_a_tie_and_the_simplest_is_advised(tmp_path: Path, rate: str) -> None:
    """A model that nobody lets rest costs the same under every setting that would keep it."""
    for seed in range(4):
        _, plan = planned_from(tmp_path, workload={"open": {"rate": rate, "requests": 1000}}, seed=seed)
        assert plan.recommended == "persistent"
        assert any(label.startswith("keep-alive") for label in [choice_of(plan).cheapest, *choice_of(plan).same])
        assert any("cost the same: without the costs common to all settings" in s for s in answer(plan))
        assert any("Any of these will do; persistent is named because it" in s for s in answer(plan))


def test_an_order_that_changes_with_the_seed_is_a_tie(tmp_path: Path) -> None:
    """Next to the break-even rate the draws of arrivals decide, which are not the user's."""
    grid = {"keep-alive": None, "lru-cached": None, "on-demand": {"share": [True]}}
    _, plan = planned_from(tmp_path, grid=grid)
    rate = break_even_rate(plan)
    for times, tie in ((1.08, True), (1.9, False)):
        workload = {"open": {"rate": f"{times * rate:.3f}/h", "requests": 60}}
        _, plan = planned_from(tmp_path, workload=workload, grid=grid)
        assert bool(choice_of(plan).same) is tie
        assert plan.recommended == "persistent"  # which answers sooner
        costs = [row.decides_per_hour for row in plan.settings]
        assert {len(each) for each in costs} == {5}
    workload = {"open": {"rate": f"{1.08 * rate:.3f}/h", "requests": 60, "arrivals": "constant"}}
    _, plan = planned_from(tmp_path, workload=workload, grid=grid)
    assert choice_of(plan).same == []


@pytest.mark.slow
@pytest.mark.parametrize(("times", "truth"), [(0.85, "on-demand (share true)"), (1.15, "persistent")])
def test_which_is_the_cheapest_is_seldom_wrong(tmp_path: Path, times: float, truth: str) -> None:
    """15 % from the break-even rate, and 60 Poisson requests: what is no tie is the truth."""
    run_folder(tmp_path / "run")
    grid = {"keep-alive": None, "lru-cached": None, "on-demand": {"share": [True]}}
    rate = break_even_rate(planned_from(tmp_path, grid=grid)[1])
    workload = {"open": {"rate": f"{times * rate:.3f}/h", "requests": 60}}
    told = []
    for seed in range(30):
        planned = load_plan(plan_file(tmp_path, workload=workload, grid=grid, seed=seed))
        choice = choose(candidates(planned)[0], planned.trifle)
        assert choice is not None
        told += [] if choice.same else [choice.cheapest.label]
    assert len(told) > 5
    assert len([label for label in told if label != truth]) <= 0.06 * 30


def test_nothing_is_charged_before_the_first_request(tmp_path: Path) -> None:
    late = [3600.0 + number for number in range(60)]
    trace = tmp_path / "trace.csv"
    costs = []
    for times in (late, [time - 3600 for time in late]):
        trace.write_text("time\n" + "\n".join(map(str, times)))
        _, plan = planned_from(tmp_path, workload={"trace": {"file": "trace.csv"}})
        costs.append(row_of(plan, "persistent").cost.total)
    assert costs[0] == pytest.approx(costs[1])
    _, plan = planned_from(tmp_path, workload={"open": {"rate": "30/h", "requests": 200}})
    kept, forever = (row_of(plan, label) for label in ("persistent", "keep-alive (ttl forever)"))
    assert kept.cost.holding == pytest.approx(forever.cost.holding, rel=1e-12)


def test_less_than_a_trifle_is_not_worth_deciding(tmp_path: Path) -> None:
    """Memory of one small model: the quickest setting is named, and what the cheapest would save."""
    workload = {"open": {"rate": "2/h", "requests": 300}}
    _, plan = planned_from(tmp_path, workload=workload)
    assert choice_of(plan).cheapest == "on-demand"
    saved = row_of(plan, "persistent").cost_per_hour - row_of(plan, "on-demand").cost_per_hour
    assert choice_of(plan).saves["persistent"] == pytest.approx(730 * saved, rel=1e-6)
    assert 0 < 730 * saved < 1
    assert any(s.startswith("In a month at this rate (730 hours) it saves") for s in answer(plan))
    _, plan = planned_from(tmp_path, workload=workload, cost={"trifle": 1})
    assert plan.recommended == "persistent"
    assert any("savings of less than 1 a month are ignored ('trifle')" in sentence for sentence in answer(plan))
    assert any("persistent is named because its mean latency is the lowest" in sentence for sentence in answer(plan))
    _, plan = planned_from(tmp_path, workload=workload, cost={"memory_gib_hour": 10, "trifle": 1})
    assert plan.recommended == "on-demand"
    assert choice_of(plan).saves["persistent"] > 1


SIZES = [{"memory": "384MiB", "cpu": 0.25, "hour": 0.01}, {"memory": "512MiB", "cpu": 0.5, "hour": 0.02}]


def sized(**more: Any) -> dict[str, Any]:
    return {"billing": "size", "sizes": SIZES, **more}


def test_what_fits_the_same_size_costs_the_same(tmp_path: Path) -> None:
    """Of two models: both fit the larger size, one the smaller; 20 MiB more are taken at most."""
    grid = {"lru-cached": {"capacity": [1]}, "keep-alive": {"ttl": ["forever"]}}
    _, plan = planned_from(tmp_path, 2, grid=grid, cost=sized())
    both, one = row_of(plan, "persistent"), row_of(plan, "lru-cached (capacity 1)")
    assert (both.most_mib, one.most_mib) == pytest.approx((300 + 2 * 40 + 20, 300 + 40 + 20))
    assert (both.cost_per_hour, one.cost_per_hour) == pytest.approx((0.02, 0.01))
    assert plan.recommended == "lru-cached (capacity 1)"
    assert choice_of(plan).saves["persistent"] == pytest.approx(7.3)
    words = "\n".join([*answer(plan), *grounds(plan)])
    assert "It holds up to 360 MiB, so it is billed for the size with 384 MiB and 0.25 cores at 0.01 an hour" in words
    assert "Hourly price of each size: 0.01 for 384 MiB and" in words
    assert ", 0.02 for 512 MiB and" in words
    assert "no clairvoyant minimum to compare with: under 'billing: size'" in words
    assert not [flip for flip in plan.flips if flip.what == "memory price"]
    _, plan = planned_from(tmp_path, 1, cost=sized(), grid=grid)
    assert plan.recommended == "persistent"  # at the same price the quickest, and of those the simplest
    assert any("they cost the same, however much of it they use." in sentence for sentence in answer(plan))
    _, plan = planned_from(tmp_path, 1, cost=sized(latency_hour=1.0), grid=grid)
    assert row_of(plan, "on-demand").cost_per_hour > row_of(plan, "persistent").cost_per_hour > 0.01
    assert any("however much of it they use, apart from the cost of waiting." in sentence for sentence in answer(plan))


def test_what_goes_over_a_limit_is_left_out(tmp_path: Path) -> None:
    grid = {"lru-cached": {"capacity": [1]}, "cached": None, "keep-alive": None, "on-demand": None}
    _, plan = planned_from(tmp_path, 2, grid=grid, limit={"memory": "380MiB"})
    assert [row.label for row in plan.settings] == ["lru-cached (capacity 1)"]
    assert plan.too_large == {"persistent": pytest.approx(400)}
    [told] = [sentence for sentence in answer(plan) if sentence.startswith("Left out, because")]
    limit = "the limit of 380 MiB in resident memory at some point (start-up included): 400 MiB under persistent."
    assert limit in told
    assert "A server without a model takes 300 MiB of resident memory between requests." in told
    _, plan = planned_from(tmp_path, 2, grid=grid, limit={"memory": "1GiB"})
    assert plan.too_large == {}
    assert any("every setting stays below the limit of 1024 MiB." in sentence for sentence in answer(plan))
    _, plan = planned_from(tmp_path, 2, grid=grid, limit={"memory": "100MiB"})
    assert plan.recommended is None
    assert "or is too large" in answer(plan)[0]
    _, plan = planned_from(tmp_path, 4, grid=grid, cost=sized())
    assert plan.too_large == {}
    _, plan = planned_from(tmp_path, 6, grid=grid, cost=sized())
    assert any(
        "the largest size of 512 MiB in resident memory at some point (start-up included): 560 MiB under" in s
        for s in answer(plan)
    )


@pytest.mark.parametrize("runs", [60, pytest.param(400, marks=pytest.mark.slow)])
@pytest.mark.parametrize("burstiness", [1, 8])
def test_a_verdict_on_a_target_is_seldom_wrong(burstiness: int, runs: int) -> None:
    """Where the truth lies right beside the target, on either side: at most 6 % of the workloads say the opposite.

    In bursts requests that wait for a load come together, so that they say less than as many independent ones.
    """
    gap = stats.gamma(1 / burstiness, scale=burstiness)
    profile, kept = profile_of(1, warm=0.005, load=0.02), setting("keep-alive", ttl=float(gap.isf(0.03)))

    def outcome(requests: int, seed: int) -> Outcome:
        at = np.cumsum(np.random.default_rng(seed).gamma(1 / burstiness, burstiness, requests))
        return simulate(kept, profile, Arrivals(at.tolist(), [0] * requests), 32, 0)

    truth = 100 * float(np.mean(outcome(200_000, 0).latencies <= 0.012))
    for requests in (200, 1000):
        slo = {f"p{truth + 0.05:.3f}": 0.012, f"p{truth - 0.05:.3f}": 0.012}  # missed, and met
        verdicts = [[each.verdict for each in judge(outcome(requests, seed), slo)] for seed in range(1, runs + 1)]
        for told, wrong in zip(zip(*verdicts, strict=True), ("met", "missed"), strict=True):
            assert told.count(wrong) <= 0.06 * runs, (requests, wrong)
    for name, verdict in ((f"p{truth + 3:.3f}", "missed"), (f"p{truth - 3:.3f}", "met")):
        assert judge(outcome(4000, 1), {name: 0.012})[0].verdict == verdict
