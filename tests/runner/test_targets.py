"""`--exit-on-slo`: the exit status says whether the targets are met, for whoever reads no report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import runner
from core.report.prose.sentences import say
from core.results.folder import LATEST, new_folder
from core.results.summary import Summary
from core.stats.slo import unmet
from tests.helpers.support import FAKES, checkpoint_in
from tests.helpers.synthetic import run_with, summarised

QUICK, SLOW = [10.0] * 30, [10.0] * 25 + [500.0] * 5


def summary(slo: dict[str, float], **trials: Any) -> Summary:
    return summarised(run_with(trials, slo=slo))


def test_a_target_is_met_or_missed_by_name() -> None:
    found = summary({"p50": 0.2, "p90": 0.2}, quick=[QUICK * 4] * 5, slow=[SLOW * 4] * 5)
    assert [say(each) for each in unmet(found)] == ["slow misses p90 ≤ 200 ms: 83.33% of the requests are within it."]


def test_too_few_rounds_judge_nothing_but_a_clear_miss() -> None:
    found = summary({"p99": 0.2, "p50": 0.2}, quick=[QUICK * 40] * 4, slow=[[500.0] * 12])
    assert [say(each) for each in unmet(found)] == [
        "quick has too few rounds to judge p99 ≤ 200 ms: 5 are needed, it has 4.",
        "quick has too few rounds to judge p50 ≤ 200 ms: 5 are needed, it has 4.",
        "slow misses p99 ≤ 200 ms: 0.00% of the requests are within it.",
        "slow misses p50 ≤ 200 ms: 0.00% of the requests are within it.",
    ]


def test_what_the_requests_leave_open_is_not_met() -> None:
    [sentence] = map(say, unmet(summary({"p80": 0.2}, slow=[SLOW * 2] * 5)))
    assert sentence.startswith("slow may miss p80 ≤ 200 ms: 83.33% of the requests are within it (95 % interval ")
    assert sentence.endswith("; more rounds would decide it.")


def test_a_trial_without_a_finished_round_is_not_met() -> None:
    records = run_with({"quick": [QUICK]}, slo={"p50": 0.2})
    found = summarised([record for record in records if record["kind"] != "trial"])
    assert [say(each) for each in unmet(found)] == [
        "quick has no requests in a finished round, so p50 ≤ 200 ms cannot be judged."
    ]


def run_folder(output: Path, slo: dict[str, float] | None, **trials: Any) -> Path:
    folder = new_folder(output, "e")
    lines = (json.dumps(record) + "\n" for record in run_with(trials, slo=slo))
    (folder / "samples.jsonl").write_text("".join(lines))
    return folder


def test_a_report_exits_by_its_targets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slow = run_folder(tmp_path / "slow", {"p90": 0.2}, slow=[SLOW * 4])
    assert runner.main(["report", str(slow)]) == 0
    assert runner.main(["report", str(slow.parent / LATEST), "--exit-on-slo"]) == 1
    assert "Targets not met (--exit-on-slo exits with 1):\nslow misses p90 ≤ 200 ms" in capsys.readouterr().out
    assert (slow / "summary.json").exists()
    quick = run_folder(tmp_path / "quick", {"p90": 0.2}, quick=[QUICK * 4] * 5)
    assert runner.main(["report", str(quick), "--exit-on-slo"]) == 0
    assert "All targets are met." in capsys.readouterr().out


def test_without_targets_it_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    none = run_folder(tmp_path, None, quick=[QUICK])
    for arguments in (["report", str(none)], ["resume", str(none)], ["experiments/default.yaml"]):
        assert runner.main([*arguments, "--exit-on-slo", "--output", str(tmp_path / "out")][: len(arguments) + 1]) == 2
        assert "--exit-on-slo: the experiment has no 'slo'; add targets" in capsys.readouterr().err


def test_a_run_exits_by_its_targets_and_so_does_going_on_with_it(tmp_path: Path) -> None:
    checkpoint_in(tmp_path / "a")
    values = {
        "name": "quick",
        "plugins": [FAKES],
        "models": {"a": str(tmp_path / "a")},
        "strategies": [{"strategy": "on-demand", "loader": "fake"}],
        "texts": ["good"],
        "repetitions": 25,
        "repeats": 1,
        "slo": {"p50": "0.001ms"},
    }
    (tmp_path / "quick.yaml").write_text(yaml.safe_dump(values))
    assert runner.main([str(tmp_path / "quick.yaml"), "--output", str(tmp_path / "out"), "--exit-on-slo"]) == 1
    latest = str(tmp_path / "out" / "quick" / LATEST)
    assert runner.main(["resume", latest, "--exit-on-slo"]) == 1
    assert runner.main(["resume", latest]) == 0
