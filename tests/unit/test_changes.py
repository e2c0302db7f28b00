"""`--compare`: what changed between two runs, and when that is a regression."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from scipy import stats

from core.report.prose.sentences import say
from core.stats.changes import changes as changes_of
from core.stats.changes import shift
from tests.helpers.support import run_here
from tests.helpers.synthetic import Record, arranged, run_of, run_with, trial_of, trial_with

OLD = [1.0, 1.02, 0.98, 1.01, 0.99]
NEW = [1.01, 0.99, 1.0, 1.02, 0.98, 1.0]


class Said(NamedTuple):
    """What changed, in words."""

    sentences: list[str]
    regressed: bool


def changes(old: Sequence[Record], new: Sequence[Record], tolerance: float) -> Said:
    found = changes_of(arranged(old), arranged(new), tolerance)
    return Said([say(each) for each in found.findings], found.regressed)


def run_at(ms: float, rounds: Sequence[float] = OLD, label: str = "a") -> list[Record]:
    """Of a trial, beside a reference that takes 10 ms in every round."""
    return run_with({"reference": [[10.0] * 20] * len(rounds), label: [[ms * factor] * 20 for factor in rounds]})


def p50_of(old: list[Record], new: list[Record], tolerance: float = 0.05) -> tuple[str, bool]:
    changed = changes(old, new, tolerance)
    [sentence] = [sentence for sentence in changed.sentences if sentence.startswith("a, p50: ")]
    return sentence, changed.regressed


def test_the_interval_holds_the_shifts_that_mann_and_whitney_do_not_refute() -> None:
    rng = np.random.default_rng(20260101)
    old, new = rng.normal(0, 1, 7), rng.normal(1, 1, 9)
    low, high = shift(old.tolist(), new.tolist())
    for bound, side in ((low, -1), (high, 1)):
        refuted, kept = (
            stats.mannwhitneyu(new - bound - side * by, old, method="exact").pvalue for by in (1e-9, -1e-9)
        )
        assert refuted <= 0.05 < kept
    assert shift([1.0] * 5, [3.0] * 5) == (2, 2)


def test_a_regression_is_claimed_only_when_the_whole_interval_is_beyond_the_tolerance() -> None:
    sentence, regressed = p50_of(run_at(10), run_at(12, NEW))
    assert regressed
    assert sentence.startswith("a, p50: 10.0 → 12.0 ms, +20.0% (relative to reference, 95 % interval +")
    assert sentence.endswith("): a regression beyond 5.0%.")
    sentence, regressed = p50_of(run_at(10), run_at(10.6, NEW))
    assert not regressed
    assert sentence.endswith("): worse, but not certainly by more than 5.0%.")
    assert p50_of(run_at(10), run_at(10.6, NEW), 0.01)[1]
    assert p50_of(run_at(10), run_at(10, NEW))[0].endswith("): not separable.")
    assert p50_of(run_at(10), run_at(8, NEW))[0].endswith("): better.")


def test_a_slower_hour_is_no_regression() -> None:
    """All that the newer run measured took a quarter longer: its machine did, and nothing tells more of it."""
    slower = run_with({"reference": [[12.5] * 20] * 6, "a": [[12.5 * factor] * 20 for factor in NEW]})
    changed = changes(run_at(10), slower, 0.05)
    assert not changed.regressed
    assert changed.sentences[0] == (
        "reference, p50: 10.0 → 12.5 ms, +25.0%. No verdict: this trial is the baseline for the others, and the speed"
        " of the machine may have changed between the two runs. If only this trial became slower, the others appear"
        " faster."
    )
    assert p50_of(run_at(10), slower)[0].endswith("): not separable.")


def test_below_five_rounds_there_is_no_verdict() -> None:
    sentence, regressed = p50_of(run_at(10), run_at(30, NEW[:4]))
    assert not regressed
    assert sentence.endswith("+201.5%. No verdict: that needs 5 rounds in both runs, and the new one has 4.")
    assert "the old one has 3" in p50_of(run_at(10, OLD[:3]), run_at(30, NEW[:4]))[0]


def test_less_throughput_is_worse_and_less_private_memory_is_better() -> None:
    def run(seconds: float, private: float) -> list[Record]:
        memory = dict.fromkeys(("idle_pss", "idle_private", "peak_rss", "start_peak_rss"), private)
        records = [run_of(trial_of("reference"), trial_of("a"), rounds=5, workload={"closed": {"clients": 4}})]
        for n, factor in enumerate(OLD):
            records += trial_with("reference", [10.0] * 20, n)
            records += trial_with("a", [10.0] * 20, n, steady_s=seconds * factor, memory_mib=memory)
        return records

    changed = changes(run(2, 500), run(3, 400), 0.05)
    assert changed.regressed
    [throughput] = [each for each in changed.sentences if each.startswith("a, throughput")]
    assert throughput.startswith("a, throughput: 10.0 → 6.7 requests/s, -33.3% (relative to reference, ")
    assert throughput.endswith("a regression beyond 5.0%.")
    assert "a, private memory: 500 → 400 MiB, -20.0% (95 % interval -20.0% to -20.0%): better." in changed.sentences
    assert changed.sentences[-1].startswith("Each of these 4 verdicts stands by itself")
    assert not changes(run(3, 400), run(2, 400), 0.05).regressed


@pytest.mark.process
def test_p99_is_compared_where_every_round_has_it() -> None:
    long = run_with({"a": [[10.0] * 1000] * 5})
    assert any("a, p99: 10.0 → 10.0 ms" in sentence for sentence in changes(long, long, 0.05).sentences)
    assert not any("p99" in sentence for sentence in changes(long, run_at(10), 0.05).sentences)


def with_trial(records: list[Record], **changed: object) -> list[Record]:
    """The records, with the description of the trial "a" changed."""
    reference, trial = records[0]["trials"]
    return [records[0] | {"trials": [reference, trial | changed]}, *records[1:]]


def test_what_cannot_be_compared_is_told_by_name() -> None:
    old = run_at(10)
    for changed, why in (
        ({"models": {"m": {"reference": "embedded", "sha256": "1"}}}, "the checkpoints are not the same"),
        ({"workload": {"closed": {"clients": 2}}}, "the workload is not the same"),
        ({"texts": "other"}, "the texts are not the same"),
        ({"page_cache": "cold"}, "'page_cache' is not the same"),
    ):
        new = run_at(99)
        found = changes(old, [new[0] | changed, *new[1:]], 0.05)
        expected = [f"{label} cannot be compared: {why}." for label in ("reference", "a")]
        assert (found.sentences, found.regressed) == (expected, False)
    found = changes(old, with_trial(run_at(99), dtype="bfloat16"), 0.05)
    why = "the old run computed in float32, the new one in bfloat16"
    assert (f"a cannot be compared: {why}." in found.sentences, found.regressed) == (True, False)
    workloads: list[Record] = [{"trace": {"file": f"/{folder}/t.csv", "speed": 1.0}} for folder in "ab"]
    one, moved = ([old[0] | {"workload": workload}, *old[1:]] for workload in workloads)
    assert not any("cannot" in sentence for sentence in changes(one, moved, 0.05).sentences)
    assert changes(old, run_with({"b": [[10.0] * 20] * 5}), 0.05).sentences == [
        "reference is in the old run only.",
        "a is in the old run only.",
        "b is in the new run only.",
    ]
    assert "no round of it was finished in the new run" in changes(old, run_at(10)[:1], 0.05).sentences[0]


def test_another_loader_is_told_and_compared() -> None:
    old = run_at(10)
    found = changes(old, with_trial(run_at(99), loader="onnxruntime"), 0.05)
    assert "a was loaded by transformers in the old run, and by onnxruntime in the new one." in found.sentences
    assert found.regressed
    before = with_trial(old, loader="onnxruntime", loader_options={"pack": True})
    assert not any("loaded" in sentence for sentence in changes(before, before, 0.05).sentences)
    told = "a was loaded by onnxruntime (pack True) in the old run, and by transformers in the new one."
    assert told in changes(before, old, 0.05).sentences


def report(new: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return run_here("report", str(new), *flags)


@pytest.mark.process
def test_the_runner_exits_with_1_on_a_regression(tmp_path: Path) -> None:
    for name, records in (("old", run_at(10)), ("new", run_at(12, NEW))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "samples.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        (tmp_path / name / "environment.json").write_text(json.dumps({"processor": f"the {name} one", "cores": 2}))
    old, new = tmp_path / "old", tmp_path / "new"
    done = report(new, "--compare", str(old))
    assert done.returncode == 1
    assert "Against the older run:\nreference, p50: " in done.stdout
    assert "\na, p50: 10.0 → 12.0 ms, +20.0%" in done.stdout
    assert "\nSince that run processor became the new one (was the old one).\n" in done.stdout
    assert report(new, "--compare", str(old), "--tolerance", "30%").returncode == 0
    bad = report(new, "--compare", str(tmp_path))
    assert (bad.returncode, "The older run: " in bad.stderr, "contains no run" in bad.stderr) == (2, True, True)
    bad = report(new, "--compare", str(old), "--tolerance", "much")
    assert (bad.returncode, "must be a percentage such as 5%" in bad.stderr) == (2, True)
    for flags, status in (((), 1), (("--tolerance", "30%"), 0)):
        alone = run_here("compare", str(old), str(new), *flags)
        assert alone.returncode == status, alone.stderr
        assert alone.stdout.startswith("reference, p50: ")
        assert "a, p50: 10.0 → 12.0 ms, +20.0%" in alone.stdout
