"""`--plan`: from the samples of a run to the setting that is advised, and the refusals on the way."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import runner
from core.bench.experiment import load_experiment
from core.costs.prices import Prices
from core.errors import ResidencyError
from core.names import COMMAND
from core.planning.candidates import Candidate, candidates, simulate
from core.planning.choosing import choose
from core.planning.confirm import errors, write_experiment
from core.planning.plan import plan_of_settings
from core.planning.plan_file import PlanInputs, load_plan
from core.planning.profile import profiles
from core.report.plan import plan_text
from core.report.prose.plan import answer, confirmed_in_words, grounds, of_models
from core.report.prose.sentences import say
from core.results.flips import LatencyFlip
from core.results.folder import read_records
from core.results.header import SCHEMA, CostSpec
from core.results.plan import Confirmed, FewestLoads, LeastColdStarts, Plan, SettingFigures
from core.results.plan_findings import BelowMinimum, LoadsBySize, Unmeasured
from core.results.plan_models import CostliestModels, MemoryCurve, ModelsToDrop
from core.stats.rounds import arrange
from tests.helpers.priced import UNITS
from tests.helpers.support import ROOT, running
from tests.helpers.synthetic import arranged, ended, run_of, sample_of, trial_of
from tests.unit.test_plan_prose import MANY

STRATEGIES = ("persistent", "on-demand")
PSS = Prices.of(CostSpec.model_validate(UNITS))


def run_folder(folder: Path, models: int = 1, **trial: Any) -> Path:
    """What a run leaves: a forward takes 5 ms (after a load 9), a load 20 ms, an unload 3, all else 1 ms; a model
    holds 40 of its 50 MiB, an empty server 300, and 20 more at most; a request takes 8 ms of processor, a load 25 ms.
    """
    ids = [f"m{number}" for number in range(models)]
    header = {
        "kind": "run", "schema": SCHEMA, "experiment": "small", "question": "", "started": "2026-01-01T00:00:00+00:00",
        "rounds": 1, "page_cache": "warm", "batching": {"max_batch_size": 32}, "workload": None, "slo": None,
        "precision": None, "models": {model: {"reference": "embedded", "sha256": ""} for model in ids},
        "trials": [
            {"label": name, "strategy": name, "route": f"/predict-{name}", "options": {}, "loader": "transformers",
             "loader_options": {}, "dtype": "float32", "weights_mib": 50.0 * models}
            for name in STRATEGIES
        ],
    }  # fmt: skip
    lines = [header]
    for name in STRATEGIES:
        place, cold = {"round": 0, "trial": name}, name == "on-demand"
        lines.append({"kind": "begin", **place})
        for number in range(21):
            timing = {"queue": 0.2, "load": 20.0, "load-weights": 18.0, "inference": 9.0} if cold else {}
            timing = timing or {"queue": 0.2, "load": 0.0, "inference": 5.0}
            ms = timing["load"] + timing["inference"] + 1.0
            asked = {"model": ids[number % models], "text": 0, "first": number == 0}
            answer = {"ms": ms, "status": 200, "cold": cold, "label": "A", "score": 1.0, "timing": timing}
            lines.append({"kind": "sample", **place, **asked, **answer})
        loads = 21 if cold else models
        idle = 300.0 if cold else 300.0 + 40.0 * models
        end: dict[str, Any] = {
            "ready_s": 1,
            "first_answer_s": 1,
            "steady_s": 0.2,
            "loads": loads,
            "unloads": 21 if cold else 0,
        }
        end |= {"unload_s": 21 * 0.003 if cold else 0.0, "least_keep": None}
        most = 320.0 + 40.0 * (1 if cold else models)
        memory = {
            "idle_pss": idle,
            "idle_private": idle / 2,
            "idle_rss": idle,
            "peak_rss": most,
            "start_peak_rss": idle,
        }
        processor = {"processor_s": 20 * 0.008 + (20 * 0.025 if cold else 0)}
        lines.append({"kind": "trial", **place, **end, "memory_mib": memory, **processor, **trial})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def plan_file(folder: Path, **changes: Any) -> Path:
    """Every difference is worth deciding, unless `cost` says what is not."""
    values = {"name": "evening", "profile": "run", "workload": {"open": {"rate": "30/h", "requests": 200}}} | changes
    values["cost"] = {"trifle": 0} | changes.get("cost", {})
    (folder / "plan.yaml").write_text(yaml.safe_dump({k: v for k, v in values.items() if v is not None}))
    return folder / "plan.yaml"


def write_resolved(run: Path) -> None:
    """The experiment that it was, as a run leaves it."""
    resolved = {"name": "small", "strategies": ["persistent"], "texts": ["a", "b"], "models": {"m0": "embedded"}}
    (run / "experiment.yaml").write_text(yaml.safe_dump(resolved))


def planned_from(folder: Path, of_run: int = 1, **changes: Any) -> tuple[PlanInputs, Plan]:
    run_folder(folder / "run", of_run)
    planned = load_plan(plan_file(folder, **changes))
    return planned, plan_of_settings(planned, *candidates(planned))


def ratio_of(plan: Plan) -> float:
    """Of the first half's choice to the second half's best one."""
    assert plan.hindsight is not None
    assert plan.hindsight.ratio is not None
    return plan.hindsight.ratio


def best_of(planned: PlanInputs, found: list[Candidate]) -> list[Candidate]:
    choice = choose(found, planned.trifle)
    assert choice is not None
    return choice.ranked


def test_a_profile_is_what_the_run_measured(tmp_path: Path) -> None:
    [profile] = profiles(arrange(read_records(run_folder(tmp_path, 2))), PSS)
    model = profile.models["m1"]
    assert profile.base_mib == pytest.approx(300)
    assert (model.weights_mib, model.mib) == pytest.approx((50, 40))
    assert (np.mean(model.warm), np.mean(model.first), model.load_s) == pytest.approx((0.005, 0.009, 0.02))
    assert (model.around, model.around_cold, model.waiting_s) == pytest.approx((0.001, 0.001, 0.024))
    assert (model.request_cpu, model.load_cpu, model.unload) == pytest.approx((0.008, 0.025, 0.003))
    note, unknown = profile.notes
    assert say(unknown).startswith("the cost of a load from disk is unknown (loads from disk and")
    assert note == Unmeasured(what="batches")
    [private] = profiles(arrange(read_records(tmp_path)), replace(PSS, charge="private"))
    assert private.models["m1"].mib == pytest.approx(20)


def test_what_was_not_measured_is_told(tmp_path: Path) -> None:
    memory = {"idle_pss": None, "idle_private": None, "peak_rss": None, "start_peak_rss": None}
    folder = run_folder(tmp_path, processor_s=None, memory_mib=memory, unload_s=None)
    [profile] = profiles(arrange(read_records(folder)), PSS)
    model = profile.models["m0"]
    assert (model.mib, model.load_cpu, model.request_cpu) == pytest.approx((50, 0.02, 0.005))
    assert model.unload == 0
    assert profile.notes[1:4] == tuple(Unmeasured(what=what) for what in ("unloads", "memory", "CPU time"))


def test_batches_are_seen_in_the_samples(tmp_path: Path) -> None:
    """Of one model, at once, and of one forward to the microsecond: computed together."""
    lines = [json.loads(line) for line in (run_folder(tmp_path) / "samples.jsonl").read_text().splitlines()]
    at, number = 0.0, 0
    for line in lines:
        if line["kind"] == "sample":
            line["at"] = at
            number += 1
            at += 1.0
    samples = [line for line in lines if line["kind"] == "sample" and line["trial"] == "persistent"]
    for batch in range(6):  # three texts in 5 + 2 × 2 ms, while others come one by one
        inference = 9.0 + batch / 1000
        for late in (0.0, 0.002, 0.004):
            copy = dict(samples[-1], at=1000.0 + batch + late, ms=20.0 - late * 1e3)
            lines.insert(2, copy | {"timing": {"queue": 10.0, "load": 0.0, "inference": inference}})
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    [profile] = profiles(arrange(read_records(tmp_path)), PSS)
    assert profile.models["m0"].further == pytest.approx(0.002, rel=0.01)
    assert min(profile.models["m0"].warm) == 0.005


def test_rare_requests_are_loaded_for_and_frequent_ones_kept(tmp_path: Path) -> None:
    """λ* = m/k divides them: what is advised lies on the right side of it."""
    _, rare = planned_from(tmp_path)
    [theory] = rare.theory
    rate = theory.break_even_per_hour
    assert rate is not None
    assert rate == pytest.approx(theory.holding_per_hour / theory.cold_start)
    for times, cold in ((0.05, 1.0), (20, 0.0)):
        workload = {"open": {"rate": f"{times * rate:.4f}/h", "requests": 400}}
        _, plan = planned_from(tmp_path, workload=workload)
        chosen = next(row for row in plan.settings if row.label == plan.recommended)
        assert chosen.cold_share == pytest.approx(cold, abs=0.05)
        assert ratio_of(plan) <= 1.1
        assert f"use {plan.recommended}" in answer(plan)[0]


def test_half_chooses_and_half_scores(tmp_path: Path) -> None:
    """Sparse requests, then dense ones: the first half's choice is held against the second half's best."""
    (tmp_path / "trace.csv").write_text(
        "time\n" + "\n".join(str(t) for t in [*np.arange(100) * 3600.0, *(360_000 + np.arange(100) * 0.1)])
    )
    _, plan = planned_from(tmp_path, workload={"trace": {"file": "trace.csv"}})
    settings = {row.label: row for row in plan.settings}
    hindsight = plan.hindsight
    assert hindsight is not None
    assert settings[hindsight.by_first].first_half == min(row.first_half for row in plan.settings)
    assert hindsight.best_cost == min(row.second_half for row in plan.settings)
    assert hindsight.cost == settings[hindsight.by_first].second_half
    least = min(hindsight.best_cost, hindsight.timeouts_cost or hindsight.best_cost)
    assert hindsight.ratio == pytest.approx(hindsight.cost / least)
    assert ratio_of(plan) > hindsight.target == 1.1
    assert any("beyond the target of 1.1" in sentence for sentence in answer(plan))


def test_regret_and_eviction_are_reported(tmp_path: Path) -> None:
    trace = {"open": {"rate": "600/h", "requests": 500, "popularity": {"zipf": 1.1}}}
    _, plan = planned_from(tmp_path, 4, workload=trace)
    assert all(row.regret is not None and row.regret >= 1 for row in plan.settings)
    auto = next(row for row in plan.settings if row.label == "keep-alive (ttl auto)")
    assert auto.regret is not None
    assert auto.regret < 2.01  # the bound of ski rental, but for the time in service
    [fewest] = [each for each in plan.eviction if isinstance(each, FewestLoads)]
    assert fewest.optimum
    assert [room.capacity for room in fewest.rooms] == [1, 2]
    assert all(room.lru_loads >= room.belady_loads >= 4 for room in fewest.rooms)
    words = "\n".join(grounds(plan))
    for part in ("at least 1.58 times", "as the minimum (Belady", "break-even rate", "Prices: 0.004445"):
        assert part in words


def test_the_money_of_cold_starts_is_bounded_within_each_budget(tmp_path: Path) -> None:
    """In one sentence, about the budget in which the LRU is farthest from the bound."""
    trace = {"open": {"rate": "60/h", "requests": 500, "popularity": {"zipf": 1.1}}}
    grid = {"lru-cached": {"memory_budget": ["60MiB", "120MiB"]}, "cached": None}
    _, plan = planned_from(tmp_path, 4, workload=trace, grid=grid)
    [found] = plan.eviction
    assert isinstance(found, LeastColdStarts)
    assert [room.memory_budget for room in found.rooms] == [60 << 20, 120 << 20]
    for room, row in zip(found.rooms, [each for each in plan.settings if "memory_budget" in each.options], strict=True):
        assert room.capacity is None
        assert room.lru_cost == pytest.approx(row.loads * plan.theory[0].cold_start)
        assert 0 < room.least_cost < room.lru_cost
    [told] = [each for each in grounds(plan) if "PFOO-L" in each]
    assert "MiB, the worst of 2 limits of memory." in told


def test_the_time_that_a_server_finds_itself_is_told_where_it_is_another(tmp_path: Path) -> None:
    """A server knows its 50 MiB of weights, not the 40 that are charged for them."""
    planned, plan = planned_from(tmp_path, grid={"keep-alive": {"ttl": ["auto"]}})
    [row] = plan.theory
    assert row.timeout_s == pytest.approx(5.85, abs=0.01)
    assert row.served_timeout_s == pytest.approx(4.68, abs=0.01)
    assert row.is_served_otherwise
    [auto] = [each for each in planned.settings if each.options == {"ttl": "auto"}]
    simulated = simulate(auto, planned.profiles[0], planned.arrivals, 32, 0, planned.prices)
    assert simulated.least_keep == pytest.approx(row.served_timeout_s)
    told = next(sentence for sentence in grounds(plan) if "(k/m," in sentence)
    assert "freed after 5.85 s idle (k/m," in told
    assert (
        "With ttl: auto or learned, a server computes this time from the size of its weights (50 MiB) and its own loads"
        in told
    )
    assert "is charged: 4.68 s. The simulation does so, too." in told


def test_loads_are_priced_from_where_the_prices_put_the_checkpoint(tmp_path: Path) -> None:
    """As a card prices them: from disk, if freed memory is reused by others; latencies stay as they were."""

    def found(**cost: Any) -> tuple[SettingFigures, str]:
        planned = load_plan(plan_file(tmp_path, cost={"latency_hour": 3600.0, "cpu_hour": 3600.0} | cost))
        plan = plan_of_settings(planned, *candidates(planned))
        [row] = [each for each in plan.settings if each.label == "on-demand"]
        return row, "\n".join(map(say, plan.notes))

    run_folder(tmp_path / "run")
    measured, _ = found()
    samples = tmp_path / "run" / "samples.jsonl"
    place = {"kind": "load", "round": 0, "trial": "on-demand", "model": "m0"}
    kinds = (("cold", 60.0, 0.045), ("warm", 30.0, 0.033))
    loads = [place | {"page_cache": kind, "ms": ms, "processor_s": seconds} for kind, ms, seconds in kinds]
    samples.write_text(samples.read_text() + "".join(json.dumps(load) + "\n" for load in loads))
    priced, notes = found()
    assert priced.mean_ms == measured.mean_ms
    loads_of = priced.loads
    assert priced.cost.processor - measured.cost.processor == pytest.approx(loads_of * 0.012)
    assert priced.cost.waiting - measured.cost.waiting == pytest.approx(loads_of * 0.030)
    more = "30.0 ms longer and 12.0 ms more CPU time each than the loads that requests waited for."
    assert f"priced as loads from disk, because freed memory is assumed to be reused by others: {more}" in notes
    private, notes = found(charge="private")
    assert private.cost.processor == pytest.approx(measured.cost.processor)
    assert "page cache" not in notes


def test_it_says_where_loads_and_processor_time_were_measured_otherwise(tmp_path: Path) -> None:
    def notes(**changes: Any) -> str:
        return "\n".join(map(say, planned_from(tmp_path, **changes)[1].notes))

    told = notes()
    lacking = "(loads from disk and from the page cache were not measured separately)"
    assert f"the cost of a load from disk is unknown {lacking}" in told
    assert "was measured at 100 requests a second, and is used here for 0.00" in told
    assert "page cache" not in notes(cost={"charge": "private"})
    near = {"open": {"rate": "70/s", "requests": 200}}
    assert "requests a second" not in notes(workload=near)
    assert "requests a second" not in notes(cost={"cpu_hour": 0})


def test_memory_that_costs_nothing_is_kept_at_every_rate(tmp_path: Path) -> None:
    _, plan = planned_from(tmp_path, cost={"memory_gib_hour": 0})
    assert any("Holding it costs nothing, so keeping it pays at every rate." in each for each in grounds(plan))
    assert plan.recommended == "persistent"


def test_a_limit_needs_resident_memory(tmp_path: Path) -> None:
    memory = {"idle_pss": 300.0, "idle_private": 150.0}
    run_folder(tmp_path / "run", memory_mib=memory)
    with pytest.raises(ResidencyError, match=r"plan.yaml:.*: limit: needs resident memory, which this run did not"):
        load_plan(plan_file(tmp_path, limit={"memory": "1GiB"}))


def test_another_clock_has_no_timeouts(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text("time\n" + "\n".join(str(t * 60) for t in range(50)))
    _, plan = planned_from(tmp_path, workload={"trace": {"file": "trace.csv", "speed": 10}})
    assert not [row for row in plan.settings if "ttl" in row.options and row.options["ttl"] != "forever"]
    assert any("no advice on timeouts" in sentence for sentence in answer(plan))


def test_a_target_that_is_missed_rules_out(tmp_path: Path) -> None:
    _, plan = planned_from(tmp_path, cost={"memory_gib_hour": 1000})
    assert plan.recommended == "on-demand"
    _, plan = planned_from(tmp_path, slo={"p99": "15ms"}, cost={"memory_gib_hour": 1000})
    found = {row.label: row for row in plan.settings}
    assert plan.chosen is not None
    assert plan.chosen.cold_share < 0.01
    assert found["on-demand"].targets[0].verdict == "missed"  # by all requests, so that 200 are enough
    assert found["persistent"].targets[0].verdict == "not known"
    assert any(
        "Whether" in s and "is not known: that needs 1,000 requests, and there are 200" in s for s in answer(plan)
    )
    assert any("Cheaper settings that miss p99 ≤ 15 ms" in s and "on-demand" in s for s in answer(plan))
    _, plan = planned_from(tmp_path, slo={"p99": "2ms"})
    assert (plan.recommended, plan.yaml) == (None, None)
    assert "no setting can be recommended" in answer(plan)[0]


def test_it_says_at_which_price_of_memory_the_answer_flips(tmp_path: Path) -> None:
    """A plan at prices on both sides of the flip chooses what it said."""
    grid = {"keep-alive": None, "lru-cached": None, "on-demand": {"share": [False]}}
    workload = {"open": {"rate": "30/h", "arrivals": "constant", "requests": 200}}
    _, plan = planned_from(tmp_path, cost={"memory_gib_hour": 1e-5}, grid=grid, workload=workload)
    assert plan.recommended == "persistent"
    [flip] = [flip for flip in plan.flips if flip.what == "memory price"]
    assert flip.to == "on-demand"
    assert say(flip).startswith("If a GiB-hour of memory cost more than")
    assert say(flip) in answer(plan)
    for times, chosen in ((0.9, "persistent"), (1.1, "on-demand")):
        cost = {"memory_gib_hour": times * flip.at}
        _, there = planned_from(tmp_path, cost=cost, grid=grid, workload=workload)
        assert there.recommended == chosen
    [latency] = [flip for flip in there.flips if isinstance(flip, LatencyFlip)]
    assert (latency.to, latency.percentile) == ("persistent", "p50")  # too few requests for a p99
    assert latency.at == pytest.approx(30, abs=0.1)


def test_its_settings_start_an_app(tmp_path: Path) -> None:
    grid = {"keep-alive": {"ttl": [300]}, "persistent": None, "on-demand": None, "cached": None, "lru-cached": None}
    _, plan = planned_from(tmp_path, 2, grid=grid)
    assert plan.recommended is not None
    assert plan.recommended.startswith("keep-alive")
    assert plan.yaml is not None
    assert "# app.yaml: keep-alive" in plan_text(plan, "simple")
    with running(yaml.safe_load(plan.yaml)) as (_, client):
        [strategy] = client.get("/strategies").json()["strategies"]
        assert (strategy["name"], strategy["options"]["ttl"], strategy["loads"]) == ("keep-alive", 300, 0)
    for style, mark in (("pipe", "```yaml\n# app.yaml"), ("simple", "\n  # app.yaml")):
        assert mark in plan_text(plan, style)
    _, many = planned_from(tmp_path, models=3)
    assert many.yaml is None  # none of its own to serve


def test_a_target_is_judged_by_all_requests(tmp_path: Path) -> None:
    """Dense requests, then sparse ones, for which a short timeout loads each time."""
    at = [*np.arange(50) * 0.5, *(25 + np.arange(400) * 100.0)]
    (tmp_path / "trace.csv").write_text("time\n" + "\n".join(map(str, at)))
    grid = {"keep-alive": {"ttl": [10, "forever"]}, "persistent": None, "on-demand": None}
    _, plan = planned_from(tmp_path, workload={"trace": {"file": "trace.csv"}}, grid=grid, slo={"p50": "15ms"})
    verdicts = {row.label: row.targets[0].verdict for row in plan.settings}
    assert verdicts == {"keep-alive (ttl 10)": "missed", "keep-alive (ttl forever)": "met"}
    assert plan.recommended == "keep-alive (ttl forever)"


def test_the_first_load_of_a_model_decides_no_target(tmp_path: Path) -> None:
    """Of 100 requests one waits for it: that says nothing of p99; of 20,000 it is nothing."""
    grid = {"keep-alive": {"ttl": ["1min", "forever"]}, "persistent": {}, "on-demand": None, "lru-cached": None}
    for requests, verdict in ((100, "not known"), (20_000, "met")):
        workload = {"open": {"rate": "1200/h", "requests": requests}}
        _, plan = planned_from(tmp_path, workload=workload, slo={"p99": "15ms"}, grid=grid)
        kept = [row for row in plan.settings if row.label != "keep-alive (ttl 1min)"]
        assert {row.targets[0].verdict for row in kept} == {verdict}
        assert not any("that miss" in sentence for sentence in answer(plan))
    # Over many models each one's first load is more than one request in a hundred, and says no more.
    workload = {"open": {"rate": "20/s", "requests": 2000}}
    _, plan = planned_from(tmp_path, 1, models=100, workload=workload, slo={"p99": "20ms"}, grid=grid)
    verdicts = {row.label: row.targets[0].verdict for row in plan.settings}
    assert verdicts["keep-alive (ttl forever)"] == "not known"
    assert verdicts["persistent"] == "met"


def test_without_a_setting_it_says_so(tmp_path: Path) -> None:
    none = dict.fromkeys(("persistent", "on-demand", "lru-cached", "keep-alive"))
    _, plan = planned_from(tmp_path, grid=none)
    assert "there is no setting to choose from" in answer(plan)[0]
    _, plan = planned_from(tmp_path, grid=none | {"lru-cached": {"memory_budget": ["1MiB", "49MiB"]}})
    assert "there is no setting to choose from" in answer(plan)[0]
    for note, budget in zip(plan.notes, ("1MiB", "49MiB"), strict=False):
        assert say(note).startswith(
            f"transformers: lru-cached (memory_budget {budget}) is left out: model 'm0' takes 50.0MiB"
        )


def test_a_clairvoyant_can_be_beaten_where_requests_wait(tmp_path: Path) -> None:
    """Who waits shares a load; the bound is of requests that are answered at once."""
    grid = {"persistent": None, "keep-alive": None, "on-demand": None, "lru-cached": {"capacity": [1]}}
    workload = {"open": {"rate": "60/s", "requests": 1000}}
    _, plan = planned_from(tmp_path, 3, workload=workload, grid=grid, cost={"memory_gib_hour": 1.0})
    assert isinstance(plan.minimum, BelowMinimum)
    assert plan.minimum.ratio == plan.settings[0].regret
    assert plan.minimum.ratio < 1
    assert any("each request is answered at once; here requests wait" in sentence for sentence in grounds(plan))


SMALL = {
    "persistent": None,
    "cached": None,
    "keep-alive": None,
    "on-demand": None,
    "lru-cached": {"memory_budget": ["60MiB"]},
}


def test_a_plan_for_nodes_prices_all_of_them_and_says_so(tmp_path: Path) -> None:
    workload = {"open": {"rate": "5/s", "requests": 400, "popularity": {"zipf": 1.0}}}
    _, alone = planned_from(tmp_path, 4, workload=workload, grid=SMALL)
    planned, plan = planned_from(tmp_path, 4, workload=workload, grid=SMALL, nodes=3)
    [setting], [single] = plan.settings, alone.settings
    assert plan.nodes is not None
    assert (plan.nodes.count, alone.nodes, single.nodes) == (3, None, None)
    assert setting.nodes is not None
    assert [each.most_mib for each in setting.nodes.each] == [50.0] * 3
    assert sum(each.requests for each in setting.nodes.each) == 400
    assert setting.nodes.room == pytest.approx(50 / 60)
    assert setting.cold_share < single.cold_share
    assert setting.peak_mib == pytest.approx(3 * single.peak_mib)
    assert setting.most_mib == single.most_mib
    text = plan_text(plan, "pipe")
    assert " on 3 nodes, use lru-cached (memory_budget 60MiB)" in text
    assert "and none holds more than 83% of its memory_budget" in text
    assert all(column in text for column in ("busiest node / mean", "most bytes / budget", "models in memory"))
    assert f"{COMMAND} serve app.yaml" in text
    assert yaml.safe_load(plan.yaml or "")["cluster"] == {"nodes": 3}
    assert (plan.eviction, plan.over_models[1:]) == ([], [])
    assert Plan.model_validate_json(plan.model_dump_json(by_alias=True)) == plan
    assert planned.nodes is not None


def test_nodes_that_ray_routes_to_are_compared_and_not_served(tmp_path: Path) -> None:
    grid = SMALL | {"lru-cached": {"capacity": [2]}}
    workload = {"open": {"rate": "5/s", "requests": 200}}
    _, plan = planned_from(tmp_path, 6, workload=workload, grid=grid, nodes={"count": 2, "routing": "multiplexed"})
    assert plan.yaml is None
    assert "Requests are routed as Ray Serve does for @serve.multiplexed" in plan_text(plan, "pipe")


def test_one_node_is_a_plan_without_nodes(tmp_path: Path) -> None:
    _, plan = planned_from(tmp_path, 2, grid=SMALL, nodes=1)
    assert (plan.nodes, plan.settings[0].nodes) == (None, None)
    assert " on 1 node" not in plan_text(plan, "pipe")


def test_confirming_nodes_starts_as_many(tmp_path: Path) -> None:
    run_folder(tmp_path / "run", 4)
    write_resolved(tmp_path / "run")
    nodes = {"count": 2, "placement": "hash", "queue": 9}
    workload = {"open": {"rate": "5/s", "requests": 400}}
    planned = load_plan(plan_file(tmp_path, workload=workload, grid=SMALL, nodes=nodes, confirm={"window": "20s"}))
    found, _ = candidates(planned)
    path = write_experiment(planned, found, tmp_path)
    [choice] = yaml.safe_load(path.read_text())["strategies"]
    assert choice["cluster"] == {"nodes": 2, "lifecycle": "local", "placement": "hash", "queue": 9}
    [trial] = load_experiment(path).trials
    assert trial.choice.cluster is not None
    assert trial.choice.cluster.count == 2


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"nodes": 100}, "lower 'nodes' in"),
        ({"nodes": {"count": 2, "routing": "multiplexed"}}, "is Ray Serve's own rule, which is only simulated"),
        ({"workload": {"open": {"rate": "1/h", "requests": 10}}}, "lengthen 'confirm.window', or the workload, in"),
        ({"models": 3}, "asks for models that are only simulated, which cannot be served"),
        ({"workload": {"trace": {"file": "trace.csv", "speed": 2}}}, "remove 'speed' from the workload in"),
        ({}, "experiment.yaml: cannot be read"),
    ],
)
def test_what_cannot_be_confirmed_is_told_before_anything_is_simulated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], sentence: str
) -> None:
    run_folder(tmp_path / "run")
    if sentence.startswith("lengthen"):
        write_resolved(tmp_path / "run")
    (tmp_path / "trace.csv").write_text("time\n" + "\n".join(str(t) for t in range(50)))
    path = plan_file(tmp_path, **changes)
    assert runner.main(["plan", str(path), "--confirm", "--output", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert not (tmp_path / "out").exists()


def test_a_plan_of_several_models_names_them(tmp_path: Path) -> None:
    """m0 is requested all the time, m1 each half hour, m2 twice."""
    at = [(number * 20.0, "m0") for number in range(300)] + [(number * 1800.0 + 7, "m1") for number in range(4)]
    rows = sorted([*at, (1003.0, "m2"), (4003.0, "m2")])
    (tmp_path / "trace.csv").write_text("time,model\n" + "\n".join(f"{time},{model}" for time, model in rows))
    trace = {"trace": {"file": "trace.csv", "columns": {"time": "time", "model": "model"}}}
    grid = {"persistent": None, "on-demand": None, "lru-cached": None, "keep-alive": {"ttl": ["10min"]}}
    cost = {"memory_gib_hour": 0.005, "latency_hour": 10}
    _, plan = planned_from(tmp_path, 3, workload=trace, grid=grid, cost=cost)
    costs, drop, curve = plan.over_models
    assert isinstance(costs, CostliestModels)
    assert [(each.model, each.requests) for each in costs.named] == [("m1", 4), ("m0", 300), ("m2", 2)]
    assert isinstance(drop, ModelsToDrop)
    assert {each.model for each in drop.named} == {"m1", "m2"}
    assert isinstance(curve, MemoryCurve)
    for style, head in (("pipe", "\n## Models\n\n- Under keep-alive"), ("simple", "\nModels\n\nUnder keep-alive")):
        text = plan_text(plan, style)
        assert head in text
        assert all(sentence in text for sentence in of_models(plan))
    summed_up = plan.model_copy(update={"theory_over_models": [MANY]})
    assert grounds(summed_up) == [say(MANY), *grounds(plan)[len(plan.theory) :]]
    _, one = planned_from(tmp_path, 1)
    assert not one.over_models
    assert "Models" not in plan_text(one, "pipe")


def test_a_thousand_models_like_the_first(tmp_path: Path) -> None:
    grid = {"keep-alive": {"ttl": ["1min"]}, "lru-cached": {"capacity": [10]}, "cached": None, "on-demand": None}
    _, plan = planned_from(tmp_path, models=1000, grid=grid)
    assert plan.models == 1000
    labels = [row.label for row in plan.settings]
    assert labels == ["persistent", "lru-cached (capacity 10)", "keep-alive (ttl 1min)"]
    assert plan.settings[0].peak_mib == pytest.approx(300 + 40 * 1000)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"workload": {"closed": {"clients": 2, "requests": 10}}}, "workload.closed: has no arrivals to plan for"),
        ({"workload": {"open": {"rate": 1, "requests": 1}}}, "must have two requests or more"),
        ({"workload": {"open": {"rate": "2/min", "duration": "60s"}}, "seed": 8}, "must have two requests or more"),
        ({"seed": -1}, "seed: must be at least 0, such as 0 (got -1)."),
        ({"grid": {"lru-cached": 3}}, "grid.lru-cached"),
        ({"grid": {"lru-cached": {"memory_budget": [-1]}}}, "grid.lru-cached.memory_budget[0]"),
        ({"workload": {"trace": {"file": "none.csv"}}}, "none.csv: cannot be read"),
        ({"profile": "nowhere"}, "profile: "),
        ({"grid": {"keep_alive": {}}}, "grid.keep_alive: There is no strategy 'keep_alive'. Known: persistent"),
        ({"grid": {"keep-alive": {"ttl": ["soon"]}}}, "grid.keep-alive.ttl[0]"),
        ({"grid": {"lru-cached": {"capacity": [0]}}}, "must be more than 0"),
        ({"grid": {"persistent": {"x": [1]}}}, "there is no option 'x'"),
        ({"plugins": ["nowhere.py"]}, "nowhere.py' cannot be imported: there is no file"),
        ({"models": 0}, "models: must be at least 1"),
        ({"models": {"trace": True}}, "models.sizes: is required"),
        (
            {"models": {"trace": False, "sizes": "sizes.csv"}},
            "models.trace: must be true; to plan for a number of models, write",
        ),
        (
            {"models": "trace"},
            "models: must be a number of models, or a mapping such as {trace: true, sizes: sizes.csv}",
        ),
        *(
            (
                {"models": {"trace": True, "sizes": sizes}},
                "models.sizes: must be the path of a file with sizes, a mapping such as {file: sizes.csv, column: mib}",
            )
            for sizes in (3, {"fiel": "a"}, {"log_uniform": ["1MiB", "2MiB"], "unit": "MB"})
        ),
        ({"models": {"trace": True, "sizes": {"log_uniform": ["2MiB", "1MiB"]}}}, "must begin with the smaller size"),
        ({"models": {"trace": True, "sizes": {"file": "a", "unit": "KB"}}}, "models.sizes.unit: must be one of B, MB"),
        ({"models": {"trace": True, "sizes": "sizes.csv"}}, "models.trace: needs a 'trace' workload that names models"),
        ({"name": None}, "name: is required"),
        ({"cost": {"memory": 1}}, "cost.memory: is not a known key"),
    ],
)
def test_a_bad_plan_is_a_sentence(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    run_folder(tmp_path / "run")
    with pytest.raises(ResidencyError) as caught:
        load_plan(plan_file(tmp_path, **changes))
    assert sentence in str(caught.value)
    assert "plan.yaml:" in str(caught.value)


def of_the_trace(folder: Path, sizes: object, trace: str = "time,model\n0,b\n1,a\n9,b\n", **choice: Any) -> PlanInputs:
    """A plan for the models that a trace names, from a run of models of 20 and 80 MiB."""
    used = [{"model": f"m{n}", "loader": "x", "dtype": "", "nbytes": mib << 20} for n, mib in enumerate((20, 80))]
    run_folder(folder / "run", 2, used=used)
    (folder / "trace.csv").write_text(trace)
    workload = {"trace": {"file": "trace.csv", **choice}}
    return load_plan(plan_file(folder, workload=workload, models={"trace": True, "sizes": sizes}))


def test_the_models_that_a_trace_names_are_planned_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sizes.csv").write_text("model,mb\na,100\nb,200\nc,300\n")
    planned = of_the_trace(tmp_path, {"file": "sizes.csv", "column": "mb", "unit": "MB"})
    plan = plan_of_settings(planned, *candidates(planned))
    [profile] = planned.profiles
    assert {name: round(model.weights_mib * 1.048576) for name, model in profile.models.items()} == {"a": 100, "b": 200}
    assert (plan.models, plan.yaml) == (2, None)
    assert planned.arrivals.asked == [1, 0, 1]
    [note] = [note.finding for note in plan.notes if isinstance(note.finding, LoadsBySize)]
    assert (note.start_ms, note.ms_per_mib, *note.measured_mib) == pytest.approx((20.0, 0.0, 20.0, 80.0))
    assert "fitted to 2 models of 20 to 80 MiB" in plan_text(plan, "pipe")
    assert runner.main(["plan", str(planned.path), "--confirm", "--output", str(tmp_path / "out")]) == 2
    assert "measure the models themselves in the run" in capsys.readouterr().err


def test_a_window_of_the_trace_leaves_the_drawn_sizes(tmp_path: Path) -> None:
    sizes = {"log_uniform": ["40MiB", "1.3GiB"]}
    whole = of_the_trace(tmp_path, sizes).profiles[0].models
    part = of_the_trace(tmp_path, sizes, window=[1, 10]).profiles[0].models
    assert list(whole) == list(part) == ["a", "b"]
    thinned = of_the_trace(tmp_path, sizes, "time,model\n0,c\n1,c\n9,b\n").profiles[0].models
    assert thinned["b"] == whole["b"]


@pytest.mark.parametrize(
    ("sizes", "choice", "sentence"),
    [
        ("sizes.csv", {}, "models.sizes: "),
        ({"log_uniform": ["1MiB", "2MiB"]}, {"trace": "time\n0\n1\n"}, "trace.csv: names no models; name their column"),
        ({"log_uniform": ["1MiB", "2MiB"]}, {"popularity": "uniform"}, "draws models in place of those that the trace"),
    ],
)
def test_a_trace_whose_models_are_not_known_is_a_sentence(
    tmp_path: Path, sizes: object, choice: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ResidencyError) as caught:
        of_the_trace(tmp_path, sizes, **choice)
    assert sentence in str(caught.value)
    assert "plan.yaml:" in str(caught.value)


def test_a_run_of_one_size_says_nothing_of_a_catalogue(tmp_path: Path) -> None:
    run_folder(tmp_path / "run", 2)
    (tmp_path / "trace.csv").write_text("time,model\n0,a\n1,a\n")
    models = {"trace": True, "sizes": {"log_uniform": ["1MiB", "2MiB"]}}
    with pytest.raises(ResidencyError, match=r"profile: .*measure two models of different size"):
        load_plan(plan_file(tmp_path, workload={"trace": {"file": "trace.csv"}}, models=models))


def test_a_run_without_loads_is_a_sentence(tmp_path: Path) -> None:
    lines = (run_folder(tmp_path / "run") / "samples.jsonl").read_text().replace('"cold": true', '"cold": false')
    (tmp_path / "run" / "samples.jsonl").write_text(lines)
    with pytest.raises(ResidencyError, match="run it again with a strategy that loads for each request"):
        load_plan(plan_file(tmp_path))


def test_the_plan_of_the_docs_is_understood(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "planning.md").read_text()
    block = page.partition("# Which setting suits")[2].partition("```")[0]
    values = yaml.safe_load(block.partition("\n")[2])
    (tmp_path / "requests.csv").write_text("time\n1\n2\n")
    run_folder(tmp_path / "run")
    planned = load_plan(plan_file(tmp_path, **(values | {"profile": "run"})))
    labels = {candidate.label for candidate in candidates(planned)[0]}
    assert labels >= {"lru-cached (memory_budget 512MiB)", "keep-alive (ttl 5min)", "keep-alive (ttl auto)"}


def test_the_plan_of_a_catalogue_in_the_docs_is_understood(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "planning.md").read_text()
    block = page.partition("# Which setting suits the whole catalogue?\n")[2].partition("```")[0]
    values = yaml.safe_load(block)
    of_the_trace(tmp_path, values["models"]["sizes"])  # writes the run
    (tmp_path / "requests.csv").write_text("time,app\n0,x\n1,y\n")
    planned = load_plan(plan_file(tmp_path, **(values | {"profile": "run"})))
    [profile] = planned.profiles
    assert list(profile.models) == ["x", "y"]
    assert all(40 <= model.weights_mib <= 1331.2 for model in profile.models.values())
    assert candidates(planned)[0]


def test_the_runner_writes_a_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_folder(tmp_path / "run")
    assert runner.main(["plan", str(plan_file(tmp_path)), "--output", str(tmp_path / "out")]) == 0
    [folder] = (tmp_path / "out" / "evening").glob("2*")
    plan = Plan.model_validate_json((folder / "plan.json").read_text())
    shown = capsys.readouterr().out
    assert answer(plan)[0] in shown
    assert answer(plan)[0] in (folder / "plan.md").read_text()
    assert {row.label for row in plan.settings} >= {"persistent", "on-demand", "keep-alive (ttl auto)"}


def test_confirming_runs_the_best_two_thinned_to_what_they_can_serve(tmp_path: Path) -> None:
    run_folder(tmp_path / "run")
    write_resolved(tmp_path / "run")
    workload = {"open": {"rate": "100/s", "requests": 2000}}  # an unshared on-demand can answer some 30/s
    grid = {"persistent": None, "lru-cached": None, "on-demand": {"share": [True]}, "keep-alive": {"ttl": [0.2]}}
    path = plan_file(tmp_path, workload=workload, grid=grid, confirm={"window": "10s", "repeats": 2})
    planned = load_plan(path)
    found, _ = candidates(planned)
    written = yaml.safe_load(write_experiment(planned, found, tmp_path).read_text())
    labels = [each.label for each in best_of(planned, found)[:2]]
    assert [choice["label"] for choice in written["strategies"]] == labels
    assert load_experiment(tmp_path / "confirm.yaml").texts == ("a", "b")
    assert (written["repeats"], written["workload"]["open"]["duration"]) == (2, 10)
    assert 5 < written["workload"]["open"]["rate"] < 100

    def confirmed(ms: dict[str, float]) -> Confirmed:
        """As if each had answered one request, after a load, in so many milliseconds."""
        samples = [sample_of(label, each, cold=True) for label, each in ms.items()]
        live = [run_of(*map(trial_of, ms)), *samples, *map(ended, ms)]
        return errors(planned, found, planned.traffic, arranged(live))

    live = [run_of(*map(trial_of, labels), rounds=3)]
    for number, ms in enumerate((1.0, 200.0, 3.0)):
        live += [sample_of(label, ms, number, cold=number == 0) for label in labels]
        live += [ended(label, number, events=[], steady_loads=0) for label in labels]
    for trial in errors(planned, found, planned.traffic, arranged(live)).trials:  # the median of three
        assert (trial.rounds, trial.measured.mean_ms, trial.measured.cold_share) == (3, 3.0, 0.0)
        assert trial.measured.cost_per_hour is not None

    assert set(labels) == {"on-demand (share true)", "keep-alive (ttl 0.2)"}
    simulated = {trial.label: trial.simulated for trial in confirmed(dict.fromkeys(labels, 1.0)).trials}
    twice = {"on-demand (share true)": 1.0, "keep-alive (ttl 0.2)": 2.0}
    found_errors = confirmed({label: simulated[label].mean_ms * twice[label] for label in labels})
    words = dict(zip(labels, confirmed_in_words(found_errors), strict=True))
    assert "cold 100.0% against 100.0% (an error of +0.0%)" in words["on-demand (share true)"]
    assert "within the target of 10%" in words["on-demand (share true)"]
    assert "ms (an error of -50.0%), money not known: beyond the target of 10%" in words["keep-alive (ttl 0.2)"]


@pytest.mark.slow
def test_what_is_confirmed_is_as_it_was_simulated(tmp_path: Path) -> None:
    """A real run, a plan from it, and the best two for real."""
    texts = ["I absolutely love this product.", "The installer fails and the error message says nothing."]
    traffic = {"open": {"rate": "2/s", "duration": "40s"}}
    experiment = {
        "name": "small", "strategies": ["persistent", "on-demand"], "texts": texts, "workload": traffic, "repeats": 3,
        "models": {"one": "embedded", "two": "synthetic:minilm-l6"},
    }  # fmt: skip
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(experiment))
    assert runner.main([str(tmp_path / "small.yaml"), "--output", str(tmp_path / "out")]) == 0
    [folder] = (tmp_path / "out" / "small").glob("2*")
    grid = {"persistent": None, "on-demand": {"share": [True]}, "keep-alive": {"ttl": ["1s"]}, "lru-cached": None}
    changes = {"profile": str(folder), "workload": traffic, "grid": grid, "confirm": {"window": "40s", "repeats": 3}}
    assert runner.main(["plan", str(plan_file(tmp_path, **changes)), "--confirm", "--output", str(tmp_path)]) == 0
    [made] = (tmp_path / "evening").glob("2*")
    confirmed = Plan.model_validate_json((made / "plan.json").read_text()).confirmed
    assert confirmed is not None
    print(*confirmed_in_words(confirmed), sep="\n")
    assert len(confirmed.trials) == 2
    for trial in confirmed.trials:
        assert trial.error.cold_share is not None
        assert trial.error.mean_ms is not None
        assert max(abs(trial.error.cold_share), abs(trial.error.mean_ms)) < trial.target == 0.1
