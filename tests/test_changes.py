"""`--compare`: what changed between two runs, and when that is a regression."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from core.decide.changes import changes, welch
from tests.support import ROOT, run_python
from tests.synthetic import Record, run_of, run_with, trial_of, trial_with

OLD = [1.0, 1.02, 0.98, 1.01, 0.99]
NEW = [1.01, 0.99, 1.0, 1.02, 0.98, 1.0]


def run_at(ms: float, rounds: Sequence[float] = OLD, label: str = "a") -> list[Record]:
    return run_with({label: [[ms * factor] * 20 for factor in rounds]})


def p50_of(old: list[Record], new: list[Record], tolerance: float = 0.05) -> tuple[str, bool]:
    changed = changes(old, new, tolerance)
    [sentence] = [sentence for sentence in changed.sentences if ", p50: " in sentence]
    return sentence, changed.regressed


def test_the_interval_is_welchs_on_logarithms() -> None:
    old, new = np.log(OLD), np.log(NEW) + 0.1
    expected = stats.ttest_ind(new, old, equal_var=False).confidence_interval(0.95)
    assert welch(old, new) == pytest.approx((expected.low, expected.high))
    assert welch([1.0, 1.0], [3.0, 3.0]) == (2, 2)


def test_a_regression_is_claimed_only_when_the_whole_interval_is_beyond_the_tolerance() -> None:
    sentence, regressed = p50_of(run_at(10), run_at(12, NEW))
    assert regressed
    assert sentence.startswith("a, p50: 10.0 → 12.0 ms, +20.0% (95 % interval +")
    assert sentence.endswith("): a regression beyond 5.0%.")
    sentence, regressed = p50_of(run_at(10), run_at(10.6, NEW))
    assert not regressed
    assert sentence.endswith("): worse, but not certainly by more than 5.0%.")
    assert p50_of(run_at(10), run_at(10.6, NEW), 0.01)[1]
    assert p50_of(run_at(10), run_at(10, NEW))[0].endswith("): not separable.")
    assert p50_of(run_at(10), run_at(8, NEW))[0].endswith("): better.")


def test_below_five_rounds_there_is_no_verdict() -> None:
    sentence, regressed = p50_of(run_at(10), run_at(30, NEW[:4]))
    assert not regressed
    assert sentence.endswith("+201.5%. No verdict: that needs 5 rounds in both runs, and the new one has 4.")
    assert "the old one has 3" in p50_of(run_at(10, OLD[:3]), run_at(30, NEW[:4]))[0]


def test_less_throughput_is_worse_and_less_memory_is_better() -> None:
    def run(seconds: float, pss: float) -> list[Record]:
        memory = dict.fromkeys(("idle_pss", "idle_private", "peak_rss"), pss)
        rounds = [trial_with("a", [10.0] * 20, n, steady_s=seconds * f, memory_mib=memory) for n, f in enumerate(OLD)]
        return [run_of(trial_of("a"), rounds=5), *(record for each in rounds for record in each)]

    changed = changes(run(2, 500), run(3, 400), 0.05)
    assert changed.regressed
    _, throughput, memory = changed.sentences
    assert throughput.startswith("a, throughput: 10.0 → 6.7 requests/s, -33.3%")
    assert throughput.endswith("a regression beyond 5.0%.")
    assert memory == "a, idle PSS: 500 → 400 MiB, -20.0% (95 % interval -20.0% to -20.0%): better."
    assert not changes(run(3, 400), run(2, 400), 0.05).regressed


def test_p99_is_compared_where_every_round_has_it() -> None:
    long = run_with({"a": [[10.0] * 1000] * 5})
    assert any("a, p99: 10.0 → 10.0 ms" in sentence for sentence in changes(long, long, 0.05).sentences)
    assert not any("p99" in sentence for sentence in changes(long, run_at(10), 0.05).sentences)


def test_what_cannot_be_compared_is_told_by_name() -> None:
    old = run_at(10)

    def new(**changed: object) -> list[Record]:
        records = run_at(99)
        return [records[0] | changed, *records[1:]]

    for changed, why in (
        ({"trials": [trial_of("a", "bfloat16")]}, "the old run computed in float32, the new one in bfloat16"),
        ({"models": {"m": {"reference": "embedded", "sha256": "1"}}}, "the checkpoints are not the same"),
        ({"workload": {"closed": {"clients": 2}}}, "the workload is not the same"),
        ({"texts": "other"}, "the texts are not the same"),
        ({"page_cache": "cold"}, "'page_cache' is not the same"),
    ):
        found = changes(old, new(**changed), 0.05)
        assert (found.sentences, found.regressed) == ([f"a cannot be compared: {why}."], False)
    one, moved = (new(workload={"trace": {"file": f"/{folder}/t.csv", "speed": 1.0}}) for folder in "ab")
    assert "cannot" not in changes(one, moved, 0.05).sentences[0]
    found = changes(old, new(trials=[trial_of("a") | {"loader": "onnxruntime"}]), 0.05)
    assert found.sentences[0] == "a was loaded by transformers in the old run, and by onnxruntime in the new one."
    assert found.regressed  # it is compared all the same
    packed = {"loader": "onnxruntime", "loader_options": {"pack": True}}
    before = [run_at(10)[0] | {"trials": [trial_of("a") | packed]}, *run_at(10)[1:]]
    assert changes(before, before, 0.05).sentences[0].startswith("a, p50: ")
    assert changes(before, old, 0.05).sentences[0] == (
        "a was loaded by onnxruntime (pack True) in the old run, and by transformers in the new one."
    )
    assert changes(old, run_at(10, label="b"), 0.05).sentences == [
        "a is in the old run only.",
        "b is in the new run only.",
    ]
    assert "no round of it was finished in the new run" in changes(old, run_at(10)[:1], 0.05).sentences[0]


def report(new: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return run_python(str(ROOT / "runner.py"), "--report", str(new), *flags)


def test_the_runner_exits_with_1_on_a_regression(tmp_path: Path) -> None:
    for name, records in (("old", run_at(10)), ("new", run_at(12, NEW))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "samples.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        (tmp_path / name / "environment.json").write_text(json.dumps({"processor": f"the {name} one", "cores": 2}))
    old, new = tmp_path / "old", tmp_path / "new"
    done = report(new, "--compare", str(old))
    assert done.returncode == 1
    assert "Against the older run:\na, p50: 10.0 → 12.0 ms, +20.0%" in done.stdout
    assert "\nSince that run processor became the new one (was the old one).\n" in done.stdout
    assert report(new, "--compare", str(old), "--tolerance", "30%").returncode == 0
    bad = report(new, "--compare", str(tmp_path))
    assert (bad.returncode, "--compare: " in bad.stderr, "holds no run" in bad.stderr) == (2, True, True)
    bad = report(new, "--compare", str(old), "--tolerance", "much")
    assert (bad.returncode, "must be a percentage such as 5%" in bad.stderr) == (2, True)
