"""A strategy in one file of its own, which nothing here knows: served, checked, measured, priced, planned, chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from core.errors import ResidencyError
from core.planning.candidates import candidates
from core.planning.plan import plan_of_settings
from core.planning.plan_file import load_plan
from core.report.plan import plan_text
from core.results.plan import Plan
from tests.helpers.support import FAKES, ROOT, checkpoint_in, read_json, run_python, running, wait_for
from tests.runner.test_plan import plan_file, run_folder, write_resolved

CODE = '''
"""Frees a model when the burst of requests that it came for is over."""
import math
from collections import Counter

import pluggy


class Bursts:
    """Frees a model after every so many requests for it."""

    name = "bursts"

    def __init__(self, *, size: int = 3, most: int = 2):
        self.size, self.capacity, self.asked = size, most, Counter()

    def requested(self, model_id, now):
        self.asked[model_id] += 1

    def keep(self, model, now):
        return math.inf if self.asked[model.model_id] % self.size else 0.0

    def evict(self, candidates, now):
        return min(candidates, key=lambda model: self.asked[model.model_id]).model_id

    def explain(self, model, now):
        return f"{self.size - self.asked[model.model_id] % self.size} more requests, and it goes"


@pluggy.HookimplMarker("residency")
def register_strategies():
    return [Bursts]
'''


@pytest.fixture
def plugin(tmp_path: Path) -> str:
    (tmp_path / "bursts.py").write_text(CODE)
    return str(tmp_path / "bursts.py")


def test_it_is_served_and_explained(plugin: str, tmp_path: Path) -> None:
    settings = {
        "strategies": [{"strategy": "bursts", "loader": "fake", "options": {"size": 3}}],
        "models": {name: str(checkpoint_in(tmp_path / name)) for name in "abc"},
        "plugins": [FAKES, plugin],
    }
    with running(settings) as (_, client):

        def models() -> dict[str, Any]:
            [strategy] = client.get("/residency").json()["strategies"]
            return {model["model"]: model for model in strategy["models"]}

        for model in "aabccc":
            assert client.post("/predict-bursts", json={"text": "good", "model": model}).status_code == 200
            wait_for(lambda: not any(each["in_use"] for each in models().values()))  # answers leave before
        found = models()
        assert [event["reason"] for event in found["b"]["history"]] == ["capacity", "request"]  # it was asked for least
        assert [event["reason"] for event in found["c"]["history"]] == ["request", "request"]  # the burst was over
        assert found["a"]["state"] == "resident"
        assert found["a"]["why"] == "it would be evicted next; 1 more requests, and it goes"
        [status] = client.get("/strategies").json()["strategies"]
        assert status["faults"] == {}


def test_it_is_checked(plugin: str) -> None:
    done = run_python(str(ROOT / "runner.py"), "check", plugin)
    assert (done.returncode, done.stderr.count("Traceback")) == (0, 0), done.stdout + done.stderr
    assert "NO" not in done.stdout
    assert "strategy bursts: its members answer as the contract says: yes" in done.stdout


@pytest.mark.slow
def test_it_is_measured_priced_and_written_into_the_settings(plugin: str, tmp_path: Path) -> None:
    experiment = {
        "name": "small",
        "models": {"a": "embedded"},
        "plugins": ["bursts.py"],
        "strategies": ["persistent", {"strategy": "bursts", "options": {"size": 2}}],
        "texts": ["It was good.", "It was bad."],
        "repetitions": 5,
        "cost": {"latency_hour": 0.0},
        "repeats": 2,
    }
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(experiment))
    done = run_python(str(ROOT / "runner.py"), str(tmp_path / "small.yaml"), "--output", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    [folder] = (tmp_path / "out" / "small").glob("2*")
    summary = read_json(folder / "summary.json")
    [_, bursts] = summary["trials"]
    assert (bursts["strategy"], bursts["errors"]) == ("bursts", 0)
    assert 10 <= bursts["loads"] < 20  # one for two requests
    assert summary["economics"]["unpriced"] == {}
    assert {trial["label"] for trial in summary["economics"]["trials"]} == {"persistent", "bursts"}
    card = (folder / "table.md").read_text().partition("## What to use")[2].partition("## All figures")[0]
    assert any("bursts" in line for line in card.splitlines() if line.startswith("- "))


def planned(folder: Path, plugin: str, **changes: Any) -> Plan:
    """Under bursts of five requests, a second apart, every half an hour; where memory is what costs."""
    run_folder(folder / "run")
    write_resolved(folder / "run")
    times = [burst * 1800 + number for burst in range(20) for number in range(5)]
    (folder / "trace.csv").write_text("time\n" + "\n".join(map(str, times)))
    values = {
        "workload": {"trace": {"file": "trace.csv"}},
        "plugins": [Path(plugin).name],
        "cost": {"memory_gib_hour": 0.01},
        "grid": {"bursts": {"size": [2, 5, 50]}},
    }
    plan = load_plan(plan_file(folder, **(values | changes)))
    return plan_of_settings(plan, *candidates(plan))


def test_it_is_planned_beside_the_others_and_chosen_where_it_is_the_cheapest(plugin: str, tmp_path: Path) -> None:
    plan = planned(tmp_path, plugin)
    labels = [row.label for row in plan.settings]
    assert {"persistent", "on-demand", "keep-alive (ttl auto)"} < set(labels)
    assert {"bursts (size 2)", "bursts (size 5)", "bursts (size 50)"} < set(labels)
    assert plan.recommended == "bursts (size 5)"
    [chosen] = [row for row in plan.settings if row.label == "bursts (size 5)"]
    assert chosen.cold_share == pytest.approx(1 / 5)
    assert plan.yaml is not None
    settings = yaml.safe_load(plan.yaml)
    assert settings["strategies"] == [{"strategy": "bursts", "options": {"size": 5}, "loader": "transformers"}]
    assert settings["plugins"] == [plugin]
    assert "requests go to POST /predict-bursts" in plan_text(plan, "simple")


@pytest.mark.parametrize(
    ("grid", "sentence"),
    [
        ({"bursts": {"sizes": [1]}}, "grid.bursts.sizes"),
        ({"bursts": {"size": ["many"]}}, "grid.bursts.size[0]"),
        ({"burst": {"size": [1]}}, "There is no strategy 'burst'. Known: persistent"),
    ],
)
def test_a_grid_that_does_not_fit_it_is_a_sentence(plugin: str, tmp_path: Path, grid: Any, sentence: str) -> None:
    with pytest.raises(ResidencyError, match=r"plan\.yaml") as caught:
        planned(tmp_path, plugin, grid=grid)
    assert sentence in str(caught.value)
