"""What other tools read of a run."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

import runner
from tests.helpers.priced import costing, loading
from tests.helpers.support import run_python
from tests.proofs.test_docs import block
from tests.unit.test_card import SLOW, TWO


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    records = loading(costing(TWO, SLOW), "on-demand")
    lost = [r for r in records if not (r["kind"] == "trial" and r["round"] == 1 and r["trial"] == "persistent")]
    (tmp_path / "samples.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in lost))
    return tmp_path


def test_a_run_is_exported(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.main(["export", str(folder)]) == 0
    out = folder / "export"
    names = {path.name for path in out.iterdir()}
    assert names == {
        "requests.csv", "table.tex",
        *(f"{name}.{suffix}" for name in ("latency", "waterfall", "cost") for suffix in ("svg", "pdf")),
    }  # fmt: skip
    assert {Path(line).name for line in capsys.readouterr().out.splitlines()} == names
    with (out / "requests.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 21 * 9  # the round that persistent did not finish is left out
    cold = [row for row in rows if row["trial"] == "on-demand" and row["first"] == "False"]
    assert {(row["cold"], float(row["ms"]), row["status"]) for row in cold} == {("True", 48.0, "200")}
    assert "\\toprule" in (out / "table.tex").read_text()
    assert (out / "cost.pdf").read_bytes().startswith(b"%PDF")
    svg = (out / "cost.svg").read_text()
    assert "on-demand" in svg  # the legend
    assert "var(--" not in svg


def test_the_documented_lines_read_it(folder: Path, tmp_path: Path) -> None:
    assert runner.main(["export", str(folder), "--output", str(tmp_path / "results/default/latest/export")]) == 0
    done = run_python("-c", block("python", "import pandas"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {line.split()[0]: float(line.split()[1]) for line in done.stdout.splitlines()[1:3]} == {
        "on-demand": 48.0,
        "persistent": 10.0,
    }


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.main(["export", str(tmp_path)]) == 2
    assert "contains no run" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
