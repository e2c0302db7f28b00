"""A choice by the first half of a plan's requests, against what would have been the best in the second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.planning.hindsight import TimeoutOfEach, best_timeouts
from core.planning.plan_file import load_plan
from core.report.prose.plan import answer
from core.results.plan import Hindsight, Plan
from tests.runner.test_plan import planned_from

HOLDING = {"memory_gib_hour": 3.6e3, "cpu_hour": 0, "latency_hour": 3.6e5}  # m is 0.039 a second, k is 2.4
OFTEN, SELDOM = 20.0, 500.0  # seconds between requests: with one timeout for both, either is kept in vain or loaded


def two_models(folder: Path, **changes: Any) -> Plan:
    """One model is to be kept, the other one not."""
    times = [(at, "m0") for at in np.arange(300) * OFTEN] + [(at + 7, "m1") for at in np.arange(12) * SELDOM]
    lines = [f"{at},{model}" for at, model in sorted(times)]
    (folder / "trace.csv").write_text("time,model\n" + "\n".join(lines))
    grid = {"keep-alive": {"ttl": ["1s", "15min"]}, "lru-cached": None, "on-demand": None, "persistent": None}
    workload = {"trace": {"file": "trace.csv", "columns": {"model": "model"}}}
    values = {"workload": workload, "grid": grid, "cost": HOLDING} | changes
    return planned_from(folder, 2, **values)[1]


def hindsight_of(plan: Plan) -> Hindsight:
    assert plan.hindsight is not None
    return plan.hindsight


def test_the_best_in_hindsight_has_a_timeout_for_each_model(tmp_path: Path) -> None:
    plan = two_models(tmp_path)
    found = hindsight_of(plan)
    assert found.timeouts_cost is not None
    assert found.timeouts_cost < 0.9 * found.best_cost
    assert found.ratio is not None
    assert found.ratio == pytest.approx(found.cost / found.timeouts_cost)
    assert found.ratio > found.target
    assert any("as the best timeout for each model, beyond the target of 1.1. Such" in said for said in answer(plan))
    planned = load_plan(tmp_path / "plan.yaml")
    timeouts = best_timeouts(planned, planned.profiles[0])
    assert timeouts == {"m0": pytest.approx(OFTEN), "m1": 0.0}
    assert TimeoutOfEach({}).decisions().has_keep


@pytest.mark.parametrize(
    "changes",
    [
        {"cost": HOLDING | {"billing": "peak"}},
        {"limit": {"memory": "330MiB"}},
        {"slo": {"p50": "1ms"}},
        {"workload": {"trace": {"file": "trace.csv", "columns": {"model": "model"}, "speed": 2}}},
    ],
    ids=["no price per second", "over the limit", "target missed", "another clock"],
)
def test_timeouts_that_cannot_be_had_are_no_reference(tmp_path: Path, changes: dict[str, Any]) -> None:
    found = two_models(tmp_path, **changes).hindsight
    assert found is None or found.timeouts_cost is None


def test_warm_answers_are_no_part_of_what_a_setting_decides(tmp_path: Path) -> None:
    """Where callers' waiting is all that is paid for, a model that stays costs next to nothing, queueing apart."""
    cost = {"memory_gib_hour": 0, "cpu_hour": 0, "latency_hour": 3600.0}
    workload = {"open": {"rate": "60/h", "requests": 200, "arrivals": "constant"}}
    _, plan = planned_from(tmp_path, workload=workload, cost=cost)
    kept, loaded = (next(row for row in plan.settings if row.label == name) for name in ("persistent", "on-demand"))
    assert kept.decides_per_hour[0] == pytest.approx(0.0, abs=1e-9)
    assert loaded.decides_per_hour[0] == pytest.approx(60 * 0.024, rel=0.02)  # each waits 24 ms longer
