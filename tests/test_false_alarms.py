"""Verdicts on real servers: a strategy against itself, and against itself with a known delay."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import ROOT, read_json, run_python

RUNS = int(os.environ.get("FALSE_ALARM_RUNS", "20"))
PRECISION = 0.15  # of an interval: as wide as the difference that is to be found, so its half is on either side
MOST_ROUNDS = 12
DELAY = 0.15  # of p50


def measured(folder: Path, strategies: list[Any]) -> Any:
    """The summary of an experiment with the embedded model: 40 requests for each trial in each round, and as many
    rounds as `precision` asks for.
    """
    folder.mkdir()
    values = {
        "name": "self",
        "models": {"embedded": "embedded"},
        "plugins": [str(ROOT / "tests" / "delayed.py")],
        "strategies": strategies,
        "texts": ["The seats were narrow, but the crew was kind.", "The map shows streets that do not exist."],
        "repetitions": 20,
        "repeats": MOST_ROUNDS,
        "precision": PRECISION,
        "seed": int(folder.name) if folder.name.isdecimal() else 0,
    }
    (folder / "self.yaml").write_text("# Is it itself?\n" + yaml.safe_dump(values))
    done = run_python(str(ROOT / "runner.py"), str(folder / "self.yaml"), "--output", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    [summary] = folder.glob("self/*/summary.json")
    return read_json(summary)


@pytest.mark.slow
def test_few_false_alarms_and_a_delay_of_15_percent_is_found(tmp_path: Path) -> None:
    """20 runs, some 40 minutes; FALSE_ALARM_RUNS=2 for a try.

    `on-demand`, whose processes differ by some 3 % in p50. Those of `persistent` with a model this small differ by
    10 %, so that the same precision takes up to 20 rounds.
    """
    [before] = measured(tmp_path / "alone", ["on-demand"])["trials"]
    alarms = found = 0
    for number in range(RUNS):
        seconds = DELAY * before["latency_ms"]["p50"] / 1e3  # of the run before: a machine is faster at times
        strategies = [
            {"strategy": "on-demand", "label": "one"},
            {"strategy": "on-demand", "label": "again"},
            {"strategy": "on-demand", "label": "later", "loader": {"name": "delayed", "seconds": seconds}},
        ]
        summary = measured(tmp_path / str(number), strategies)
        before = summary["trials"][0]
        same, later = (p["statistics"]["p50"] for p in summary["comparisons"] if p["against"] == "one")
        alarms += same["verdict"] != "not separable"
        found += later["verdict"] == "higher"
        for name, pair in (("again", same), ("later", later)):
            low, high = pair["ci95"]
            of = f"{pair['rounds']} rounds"
            print(f"{number}: {name} {pair['ratio']:.3f} ({low:.3f} to {high:.3f}, {of}) {pair['verdict']}", flush=True)
    print(f"{alarms} false alarms, {found} delays found in {RUNS} runs")
    assert alarms <= 0.15 * RUNS
    assert found >= 0.9 * RUNS
