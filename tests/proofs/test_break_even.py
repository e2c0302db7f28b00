"""The break-even rate of a run, held against life: at half and at twice that rate another strategy is cheaper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers.priced import economics_of
from tests.helpers.support import ROOT, read_json, run_python
from tests.helpers.synthetic import lines_in

RATE = 3 * 3600.0  # requests per hour, at which prices are chosen so that it is the break-even rate
CPU_HOUR = 3600.0
LONG = 1800  # seconds, for a run at rates at which a request comes every half minute


def run(folder: Path, name: str, **changes: Any) -> Path:
    """Measure `persistent` against `on-demand`; the folder of results."""
    values = {
        "name": name,
        "models": {"model": "synthetic:minilm-l6"},
        "strategies": ["persistent", "on-demand"],
        "texts": ["I absolutely love this product.", "Not worth the money."],
    } | changes
    path = folder / f"{name}.yaml"
    path.write_text(f"# Does it?\n{yaml.safe_dump(values)}")
    done = run_python(str(ROOT / "runner.py"), str(path), "--output", str(folder / "out"), seconds=LONG)
    # 1 where a send was late, on a machine that had something else to do: the trial is then left out.
    assert done.returncode in (0, 1), done.stdout + done.stderr
    [results] = (folder / "out" / name).glob("2*")
    return results


@pytest.mark.slow
@pytest.mark.parametrize("charge", ["pss", "private"])
def test_the_cheaper_one_changes_at_the_break_even_rate(charge: str, tmp_path: Path) -> None:
    """If freed memory is reused by others, and loads come from disk; and if mapped pages are not charged,
    and loads come from the page cache.
    """
    cost = {"memory_gib_hour": 1024.0, "cpu_hour": CPU_HOUR, "charge": charge, "trifle": 0.0}
    header, *records = lines_in(run(tmp_path, "plain", cost=cost, repetitions=50, repeats=5))
    [even] = economics_of([header, *records]).break_even
    assert even.rate_per_hour is not None, even.reason
    # The rate is nearly in proportion to the price of memory: what requests alone hold is paid for, too.
    rate = even.rate_per_hour
    for _ in range(20):
        header["cost"]["memory_gib_hour"] *= RATE / rate
        [even] = economics_of([header, *records]).break_even
        assert even.rate_per_hour is not None
        rate = even.rate_per_hour
    assert rate == pytest.approx(RATE, rel=0.05)
    price = header["cost"]["memory_gib_hour"]
    print(f"{charge}: break-even at {rate:.0f}/h, {even.ci95}, at {price:.0f}")
    cheaper = {}
    for name, factor in (("half", 0.5), ("twice", 2.0)):
        workload = {"open": {"rate": rate * factor / 3600, "duration": 15}}
        stated = cost | {"memory_gib_hour": price}
        found = read_json(run(tmp_path, name, cost=stated, workload=workload, repeats=5) / "summary.json")
        assert min(trial["rounds"] for trial in found["trials"]) >= 3, found["failures"]
        costs = {trial["label"]: trial["measured_per_hour"] for trial in found["economics"]["trials"]}
        print(f"{name}: {costs}, {found['card']['answer']}")
        cheaper[name] = min(costs, key=lambda label: costs[label])
    assert cheaper == {"half": even.cheaper_below, "twice": even.cheaper_above}
    assert cheaper == {"half": "on-demand", "twice": "persistent"}


@pytest.mark.slow
def test_the_flip_of_the_default_experiment_at_its_own_prices(tmp_path: Path) -> None:
    """Of its first two trials; 25 minutes, because few requests come at such a rate.

    Under `charge: private` it flips at a rate that is lower still: at one request a minute a trial would take an hour.
    """
    default = yaml.safe_load((ROOT / "experiments" / "default.yaml").read_text())
    values = {key: default[key] for key in ("models", "texts")} | {"strategies": default["strategies"][:2]}
    cost = {"trifle": 0.0}
    found = read_json(run(tmp_path, "closed", cost=cost, repetitions=4, repeats=7, **values) / "summary.json")
    [even] = found["economics"]["break_even"]
    assert even["settled"], even["reason"]
    rate = even["rate_per_hour"]
    print(f"break-even at {rate:.0f}/h, {even['ci95']}: {found['card']['answer']}", flush=True)
    cheaper = {}
    for name, factor in (("half", 0.5), ("twice", 2.0)):
        workload = {"open": {"rate": rate * factor / 3600, "arrivals": "constant", "requests": 5}}
        there = read_json(run(tmp_path, name, cost=cost, workload=workload, repeats=5, **values) / "summary.json")
        costs = {trial["label"]: trial["measured_per_hour"] for trial in there["economics"]["trials"]}
        print(f"{name}: {costs}, {there['card']['answer']}", flush=True)
        cheaper[name] = min(costs, key=lambda label: costs[label])
    assert cheaper == {"half": even["cheaper_below"], "twice": even["cheaper_above"]}
