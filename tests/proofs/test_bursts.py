"""What a card says of bursty arrivals, compared with plans of the same traffic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.advice.summary import summarise
from core.cli.run_report import ReportOptions, report_run
from core.planning.bursts import bursts
from core.report.prose.bursts import say_bursts
from core.results.card import Bursts
from core.results.folder import read_records
from core.results.plan import SettingFigures
from core.stats.rounds import Run, arrange
from tests.helpers.priced import UNITS, costing
from tests.helpers.support import read_json
from tests.helpers.synthetic import arranged, lines_in
from tests.runner.test_plan import planned_from, run_folder

# One a MiB-hour and one a core second: 40 MiB against 25 core milliseconds make 1600 requests an hour.
FLIP = 40 / 0.025


def folder_of(place: Path, latency_hour: float = 0.0, **changes: Any) -> Path:
    """The run of a plan, with prices, in five rounds that are alike."""
    folder = run_folder(place / "run")
    header, *records = map(json.loads, (folder / "samples.jsonl").read_text().splitlines())
    changed = header | {"rounds": 5, "cost": UNITS | {"latency_hour": latency_hour}} | changes
    rounds = [record | {"round": number} for number in range(5) for record in records]
    (folder / "samples.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in [changed, *rounds]))
    return folder


def found_in(folder: Path) -> Bursts:
    found = found_of(arrange(read_records(folder)))
    assert found is not None
    return found


def found_of(run: Run) -> Bursts | None:
    return bursts(run, summarise(run))


def planned(place: Path, per_hour: float, latency_hour: float) -> dict[str, SettingFigures]:
    """The rows of a plan with ten times as many requests and another seed, by setting."""
    workload = {"open": {"rate": per_hour / 3600, "arrivals": {"gamma": 8}, "requests": 20_000}}
    cost = UNITS | {"latency_hour": latency_hour, "sizes": []}
    grid = {"keep-alive": None, "lru-cached": None}
    _, plan = planned_from(place, workload=workload, cost=cost, grid=grid, seed=3)
    return {row.label: row for row in plan.settings}


@pytest.mark.parametrize("latency_hour", [pytest.param(0.0, marks=pytest.mark.slow), 3600.0])
def test_the_figures_are_those_of_a_plan(latency_hour: float, tmp_path: Path) -> None:
    found = found_in(folder_of(tmp_path, latency_hour))
    assert found.alone_ms == pytest.approx(24.0)  # a load of 20 ms, and 9 in place of 5 for the forward after it
    rows = planned(tmp_path, found.at, latency_hour)
    longer = rows["on-demand"].mean_ms - rows["persistent"].mean_ms
    assert found.longer_ms == pytest.approx(longer, rel=0.2)
    assert found.flip is not None
    rows = planned(tmp_path, found.flip, latency_hour)
    assert rows["on-demand"].cost_per_hour == pytest.approx(rows["persistent"].cost_per_hour, rel=0.05)


def test_bursts_move_the_flip_only_where_waiting_has_a_price(tmp_path: Path) -> None:
    free = found_in(folder_of(tmp_path / "free"))
    assert free.at == pytest.approx(FLIP / 2, rel=0.01)
    assert free.flip == pytest.approx(FLIP, rel=0.02)
    assert free.alone_flip == pytest.approx(FLIP, rel=0.02)
    assert say_bursts(free).endswith(" for bursts is within 5% of the one for evenly spaced arrivals.")
    priced = found_in(folder_of(tmp_path / "priced", latency_hour=3600.0))
    assert priced.alone_flip == pytest.approx(40 / (0.025 + 0.024), rel=0.02)
    assert priced.flip is not None
    assert priced.alone_flip is not None
    assert priced.flip < 0.9 * priced.alone_flip
    share = priced.flip / priced.alone_flip
    moved = f". The break-even rate for bursts is about {share:.0%} of the one for evenly spaced arrivals."
    assert say_bursts(priced).endswith(moved)


def bursts_in(folder: Path) -> Bursts:
    """As summary.json has them."""
    return Bursts.model_validate(read_json(folder / "summary.json")["card"]["bursts"])


def test_it_is_told_below_the_flip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of(tmp_path)
    report_run(folder, ReportOptions())
    told = say_bursts(bursts_in(folder))
    assert told.startswith(
        "With bursty arrivals (simulated; the squared coefficient of variation of the gaps is 8) at 800 requests an"
        " hour,"
    )
    assert " longer on average under on-demand than under persistent; with evenly" in told
    before, _, after = capsys.readouterr().out.partition(told)
    assert after
    assert before.splitlines()[-1].startswith("Below 1,600 requests an hour (95 % interval 1,600 to 1,600)")
    report_run(folder, ReportOptions(rate=0.1))
    assert " at 360 requests an hour, callers wait " in say_bursts(bursts_in(folder))


def test_nothing_is_told_where_the_run_does_not_tell_it(tmp_path: Path) -> None:
    workload = {"open": {"rate": 1.0, "arrivals": "poisson", "popularity": "uniform", "requests": 20}}
    assert found_of(arrange(read_records(folder_of(tmp_path / "stated", workload=workload)))) is None
    trials = lines_in(folder_of(tmp_path / "run"))[0]["trials"]
    unknown = [trial | {"strategy": "of-a-plugin"} for trial in trials]
    assert found_of(arrange(read_records(folder_of(tmp_path / "unknown", trials=unknown)))) is None
    never_cold = costing({"persistent": [(500.0, 0.01)] * 5, "on-demand": [(400.0, 0.06)] * 5})
    assert found_of(arranged(never_cold)) is None
    alone = costing({"persistent": [(500.0, 0.01)] * 5})
    assert found_of(arranged(alone)) is None
