"""The rate for which a run's card is to answer: of the file, of the flag, and where it is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import runner
from core.bench.experiment import Overrides, load_experiment
from core.bench.resume import write_experiment
from core.bench.run import write_header
from core.errors import YamlError
from tests.helpers.priced import costing
from tests.helpers.support import read_json

TRIALS = {"persistent": [(500.0, 0.01)] * 5, "on-demand": [(400.0, 0.06)] * 5}
OPEN = {"open": {"rate": "10/s", "requests": 20}}
CLOSED = {"closed": {"clients": 2, "requests": 20}}


def experiment(folder: Path, **changes: Any) -> Path:
    values = {"name": "quick", "strategies": ["persistent"], "texts": ["good"]} | changes
    (folder / "quick.yaml").write_text(yaml.safe_dump(values))
    return folder / "quick.yaml"


def run_folder(folder: Path, **changes: Any) -> Path:
    """What a run leaves, but for its environment."""
    records = costing(TRIALS, **changes)
    (folder / "samples.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


@pytest.mark.parametrize(
    ("written", "per_second"), [("200/h", 200 / 3600), ("90/min", 1.5), ("20/s", 20.0), (0.5, 0.5)]
)
def test_it_is_written_as_rates_are(written: Any, per_second: float, tmp_path: Path) -> None:
    plan = load_experiment(experiment(tmp_path, rate=written))
    assert plan.experiment.rate == pytest.approx(per_second)
    write_header(plan, {}, {"embedded": ""}, tmp_path)
    [header] = (tmp_path / "samples.jsonl").read_text().splitlines()
    assert json.loads(header)["rate"] == pytest.approx(per_second)
    write_experiment(tmp_path, plan)
    assert load_experiment(tmp_path / "experiment.yaml").experiment.rate == pytest.approx(per_second)


def test_the_flag_overrides_the_file(tmp_path: Path) -> None:
    path = experiment(tmp_path, rate="200/h", workload=CLOSED)
    assert load_experiment(path, Overrides(rate=2.0)).experiment.rate == 2.0


def test_a_workload_with_a_rate_of_its_own_takes_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(YamlError, match="rate: cannot be used with a workload that has its own rate"):
        load_experiment(experiment(tmp_path, rate="200/h", workload=OPEN))
    said = "--rate: the workload of this experiment has its own rate, for which the card answers; leave the flag out."
    assert runner.main([str(experiment(tmp_path, workload=OPEN)), "--dry-run", "--rate", "200/h"]) == 2
    assert said in capsys.readouterr().err
    folder = run_folder(tmp_path, workload={"open": {"rate": 10.0, "requests": 20}})
    assert runner.main(["report", str(folder), "--rate", "200/h"]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("rate", ["200", "200/d", "0/h", "-1/s", "100001/s", "fast"])
def test_what_is_no_rate_is_a_sentence(rate: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.main([str(experiment(tmp_path)), f"--rate={rate}"]) == 2
    assert "--rate: must be a rate such as 20/s, 90/min or 1200/h" in capsys.readouterr().err


def test_it_goes_with_a_run_or_a_report(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("plan", "check", "convert"):
        assert runner.main([command, "it", "--rate", "200/h"]) == 2
        assert "there is no flag --rate" in capsys.readouterr().err


@pytest.mark.process
def test_a_report_answers_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run_folder(tmp_path, rate=1000 / 3600)
    for flags, cheapest, where in (
        ((), "on-demand", "1,000 requests an hour"),
        (("--rate", "4000/h"), "persistent", "4,000 requests an hour"),
    ):
        assert runner.main(["report", str(folder), *flags]) == 0
        sentence = f"Recommended: {cheapest}, at {where}; the runner-up is "
        assert sentence in capsys.readouterr().out
        for name in ("table.md", "report.html"):
            assert sentence in (folder / name).read_text()
        summary = read_json(folder / "summary.json")
        assert summary["card"]["recommended"] == cheapest
        rates, per_hour = summary["card"]["settings"][0]["rates"], float(where.split()[0].replace(",", ""))
        assert (rates["start"], rates["end"]) == pytest.approx((per_hour, per_hour))
    assert summary["rate"] == pytest.approx(4000 / 3600)
