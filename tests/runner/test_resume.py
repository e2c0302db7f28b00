"""A run that was killed goes on, and nothing that was measured is lost or counted twice."""

from __future__ import annotations

import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from core.bench.experiment import Overrides, load_experiment
from core.bench.resume import read_experiment
from core.bench.run import prepare, run_trials, write_header
from core.report.progress import RunProgress
from core.results.folder import SAMPLES, RecordWriter, new_folder, read_records
from core.results.records import Begin, Machine, Sample, Stop, TrialEnd
from core.stats.rounds import arrange
from tests.helpers.support import FAKES, SECONDS, checkpoint_in, read_json, run_here, wait_for
from tests.runner.test_runner import experiment, only_folder, runner, start_runner

STRATEGIES = [{"strategy": name, "loader": "fake", "label": name} for name in ("on-demand", "persistent")]


def without_timings(value: Any) -> Any:
    """A summary's structure, counts and labels; every figure with a fraction is a measurement."""
    if isinstance(value, dict):
        measured = {"started", "comparisons", "warnings", "card", "break_even"}  # what they say hangs on figures
        return {key: without_timings(part) for key, part in value.items() if key not in measured}
    if isinstance(value, list):
        return [without_timings(part) for part in value]
    return None if isinstance(value, float) else value


def kill_when(process: subprocess.Popen[str], folder: Path, size: int) -> bytes:
    """Kill it when so many bytes are there; what it had written."""
    wait_for(lambda: any(path.stat().st_size > size for path in folder.glob(f"*/*/{SAMPLES}")))
    process.kill()
    process.communicate(timeout=SECONDS)
    return (only_folder(folder, "quick") / SAMPLES).read_bytes()


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An experiment: two strategies, two rounds."""
    folder = tmp_path_factory.mktemp("quick")
    checkpoint_in(folder / "a")
    return experiment(folder, strategies=STRATEGIES, repeats=2, repetitions=50)


@pytest.fixture(scope="module")
def unbroken(quick: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of it."""
    out = tmp_path_factory.mktemp("out")
    done = runner(quick, "--output", str(out))
    assert done.returncode == 0, done.stderr
    return only_folder(out, "quick")


@pytest.fixture
def finished(unbroken: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may spoil."""
    return Path(shutil.copytree(unbroken, tmp_path / "finished"))


def test_a_killed_run_goes_on_where_it_was(quick: str, unbroken: Path, tmp_path: Path) -> None:
    kept = kill_when(start_runner(quick, "--output", str(tmp_path)), tmp_path, 30_000)  # in the second of four trials
    folder = only_folder(tmp_path, "quick")
    done = runner("resume", str(folder))
    assert done.returncode == 0, done.stderr
    after = (folder / SAMPLES).read_bytes()
    whole = kept[: kept.rfind(b"\n") + 1]
    assert after.startswith(whole)
    records = read_records(folder).measured
    begun = [(record.round, record.trial) for record in records if isinstance(record, Begin)]
    ended = [(record.round, record.trial) for record in records if isinstance(record, TrialEnd)]
    assert len(begun) == 5  # the one that was killed twice
    assert sorted(ended) == sorted(set(begun))
    assert without_timings(read_json(folder / "summary.json")) == without_timings(read_json(unbroken / "summary.json"))


def test_what_is_complete_is_not_run_again(finished: Path) -> None:
    samples = (finished / SAMPLES).read_bytes()
    done = run_here("resume", str(finished))
    assert done.returncode == 0, done.stderr
    assert (finished / SAMPLES).read_bytes() == samples


def test_its_card_answers_for_another_rate(finished: Path) -> None:
    before = (finished / SAMPLES).read_bytes()
    done = run_here("resume", str(finished), "--rate", "90/min")
    assert done.returncode == 0, done.stderr
    assert read_json(finished / "summary.json")["rate"] == 1.5
    assert (finished / SAMPLES).read_bytes() == before


def test_a_torn_line_is_cut_before_anything_is_appended(finished: Path) -> None:
    samples = (finished / SAMPLES).read_bytes()
    (finished / SAMPLES).write_bytes(samples + b'{"kind": "sample", "tri')
    with RecordWriter(finished) as records:
        records.append(Stop(round=1, reason="enough"))
    assert (finished / SAMPLES).read_bytes().startswith(samples)
    assert read_records(finished).measured[-1] == Stop(round=1, reason="enough")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limit is set from outside the process")
def test_a_full_disk_stops_the_run_and_what_was_kept_is_whole(quick: str, unbroken: Path, tmp_path: Path) -> None:
    process = start_runner(quick, "--output", str(tmp_path))
    wait_for(lambda: any(path.stat().st_size > 30_000 for path in tmp_path.glob(f"*/*/{SAMPLES}")))
    folder = only_folder(tmp_path, "quick")
    room = (folder / SAMPLES).stat().st_size + 1000  # for some more lines, and a part of one
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (room, room))
    said, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert "cannot be written: File too large." in said
    assert f"python runner.py resume {folder}" in said
    assert "Traceback" not in said
    kept = (folder / SAMPLES).read_bytes()
    assert 1 + len(read_records(folder).measured) == kept.count(b"\n")
    done = runner("resume", str(folder))
    assert done.returncode == 0, done.stderr
    assert (folder / SAMPLES).read_bytes().startswith(kept[: kept.rfind(b"\n") + 1])
    assert without_timings(read_json(folder / "summary.json")) == without_timings(read_json(unbroken / "summary.json"))


def test_a_second_runner_is_refused(finished: Path) -> None:
    with RecordWriter(finished):
        done = run_here("resume", str(finished))
    assert (done.returncode, "Another runner is writing" in done.stderr) == (2, True), done.stderr


def test_another_experiment_or_checkpoint_is_refused(finished: Path, tmp_path: Path) -> None:
    original = (finished / "experiment.yaml").read_text()
    (finished / "experiment.yaml").write_text(original.replace("repeats: 2", "repeats: 3"))
    done = run_here("resume", str(finished))
    assert (done.returncode, "experiment.yaml or texts.jsonl was changed" in done.stderr) == (2, True), done.stderr
    (finished / "experiment.yaml").unlink()
    assert "experiment.yaml cannot be read" in run_here("resume", str(finished)).stderr
    (finished / "experiment.yaml").write_text(original)
    samples = (finished / SAMPLES).read_text()
    sha = read_records(finished).header.models["a"].sha256
    (finished / SAMPLES).write_text(samples.replace(sha, "0" * 64))
    done = run_here("resume", str(finished))
    assert (done.returncode, "checkpoint of model 'a'" in done.stderr) == (2, True), done.stderr
    assert "contains no run" in run_here("resume", str(tmp_path)).stderr


@pytest.mark.slow
def test_the_resolved_experiment_is_one_itself(finished: Path, tmp_path: Path) -> None:
    done = run_here(str(finished / "experiment.yaml"), "--dry-run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Is it quick?")


FAILS_ONCE = """
import pathlib, pluggy

class FailsOnce:
    "Cannot start while the file is there."
    name = "fails-once"
    def __init__(self, *, file: str):
        self.file = pathlib.Path(file)
    def start(self, models):
        if self.file.exists():
            raise ValueError("the file is there")
        return ()
    def keep(self, model, now):
        return 0

@pluggy.HookimplMarker("residency")
def register_strategies():
    return [FailsOnce]
"""


def kinds(folder: Path, label: str) -> list[str]:
    records = [record for record in read_records(folder).measured if not isinstance(record, Stop | Machine)]
    return [each.kind for each in records if each.trial == label and each.kind not in ("sample", "load")]


@pytest.mark.slow
def test_a_trial_that_failed_is_measured_again(tmp_path: Path) -> None:
    """The failure stays in the file, and what counts is the latest outcome, be it another failure."""
    checkpoint_in(tmp_path / "a")
    (tmp_path / "once.py").write_text(FAILS_ONCE)
    (tmp_path / "broken").touch()
    strategies = [
        {"strategy": "fails-once", "loader": "fake", "label": "once", "options": {"file": str(tmp_path / "broken")}},
        {"strategy": "on-demand", "loader": "fake", "label": "sound"},
    ]
    path = experiment(tmp_path, strategies=strategies, plugins=[FAKES, "once.py"])
    assert run_here(path, "--output", str(tmp_path / "out")).returncode == 1
    latest, folder = tmp_path / "out" / "quick" / "latest", only_folder(tmp_path / "out", "quick")
    again = run_here("resume", str(latest))
    assert (again.returncode, again.stdout.count("once failed in round 1")) == (1, 1)
    assert kinds(folder, "once") == ["begin", "failure"] * 2
    (tmp_path / "broken").unlink()
    done = run_here("resume", str(latest))
    assert done.returncode == 0, done.stderr
    assert kinds(folder, "once") == [*["begin", "failure"] * 2, "begin", "trial"]
    assert kinds(folder, "sound") == ["begin", "trial"]  # and what was measured is not measured again
    summary = read_json(folder / "summary.json")
    assert ([trial["rounds"] for trial in summary["trials"]], summary["failures"]) == ([1, 1], [])
    assert run_here("report", str(latest)).returncode == 0
    assert f"Written to {folder};" in done.stdout  # not to the link, which may move on


@pytest.mark.slow
def test_what_failed_in_a_run_that_stopped_is_measured_up_to_there(tmp_path: Path) -> None:
    checkpoint_in(tmp_path / "a")
    plan = load_experiment(Path(experiment(tmp_path, strategies=STRATEGIES, repeats=5)))
    checkpoints, digests = prepare(plan)
    write_header(plan, checkpoints, digests, tmp_path)
    asked: list[int] = []

    def enough(number: int) -> str | None:
        asked.append(number)
        return "It is precise." if number == 1 else None

    def measure() -> None:
        with RecordWriter(tmp_path) as records, RunProgress(1, 1, 1) as progress:
            run_trials(plan, checkpoints, records, progress, read_records(tmp_path), enough)

    measure()
    assert asked == [0, 1]
    whole = (tmp_path / SAMPLES).read_text()
    failed = json.dumps({"kind": "failure", "round": 0, "trial": "on-demand", "reason": "it broke"})
    ended = '"kind": "trial", "round": 0, "trial": "on-demand"'
    assert ended in whole
    (tmp_path / SAMPLES).write_text("\n".join(failed if ended in line else line for line in whole.split("\n")))
    measure()
    run = arrange(read_records(tmp_path))
    assert (asked, run.rounds_due, run.complete(), run.failures) == ([0, 1], 2, [0, 1], [])


def test_a_trial_keeps_its_label_when_those_with_other_loaders_were_left_out(tmp_path: Path) -> None:
    checkpoint_in(tmp_path / "a")
    path = Path(experiment(tmp_path, strategies=["persistent", {"strategy": "on-demand", "loader": "mapped"}]))
    plan = load_experiment(path, Overrides(strategies=["persistent"]))
    write_header(plan, *prepare(plan), tmp_path)
    resumed = read_experiment(tmp_path, read_records(tmp_path).header)
    assert resumed.trials == plan.trials
    assert [trial.label for trial in resumed.trials] == ["persistent, onnxruntime"]


def test_a_trial_keeps_its_loader_when_another_one_has_become_the_default(tmp_path: Path) -> None:
    """As in the folder of a run from when it was `transformers`, which the experiment there does not say."""
    checkpoint_in(tmp_path / "a")
    plan = load_experiment(Path(experiment(tmp_path, strategies=["persistent"])))
    write_header(plan, *prepare(plan), tmp_path)
    header = read_records(tmp_path).header
    specs = [spec.model_copy(update={"loader": "transformers"}) for spec in header.trials]
    [trial] = read_experiment(tmp_path, header.model_copy(update={"trials": specs})).trials
    assert (trial.label, trial.choice.loader.name) == ("persistent", "transformers")
    assert load_experiment(tmp_path / "experiment.yaml").trials[0].choice.loader.name == "onnxruntime"


def test_latest_is_the_newest_and_replaces_nothing_else(tmp_path: Path) -> None:
    first = new_folder(tmp_path, "e")
    assert (tmp_path / "e" / "latest").readlink() == Path(first.name)  # relative, so that all can be moved
    second = new_folder(tmp_path, "e")
    assert (tmp_path / "e" / "latest").resolve() == second.resolve() != first.resolve()
    assert sorted(path.name for path in (tmp_path / "e").iterdir()) == [first.name, second.name, "latest"]
    (tmp_path / "own" / "latest").mkdir(parents=True)
    new_folder(tmp_path, "own")
    assert not (tmp_path / "own" / "latest").is_symlink()


def test_without_links_there_is_no_latest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    assert [new_folder(tmp_path, "e")] == list((tmp_path / "e").iterdir())


def attempts(folder: Path, *, ended: bool) -> dict[tuple[int, str], list[list[int]]]:
    """The texts of each attempt's samples by (round, trial), of those that came to their end or of all."""
    found: defaultdict[tuple[int, str], list[list[int]]] = defaultdict(list)
    finished: defaultdict[tuple[int, str], list[list[int]]] = defaultdict(list)
    for record in read_records(folder).measured:
        if isinstance(record, Begin):
            found[record.round, record.trial].append([])
        elif isinstance(record, Sample):
            found[record.round, record.trial][-1].append(record.text)
        elif isinstance(record, TrialEnd):
            finished[record.round, record.trial].append(found[record.round, record.trial][-1])
    return finished if ended else found


def ended_or_late(process: subprocess.Popen[str], end: float) -> bool:
    return process.poll() is not None or time.monotonic() > end


@pytest.mark.slow
def test_fifty_kills_lose_and_repeat_nothing(tmp_path: Path) -> None:
    """Killed at random and resumed: what was written stays, each sample is there once, the summary is the same."""
    rng = random.Random(7)
    checkpoint_in(tmp_path / "a")
    path = experiment(tmp_path, strategies=STRATEGIES, repeats=6, repetitions=400)
    whole = tmp_path / "whole"
    assert runner(path, "--output", str(whole)).returncode == 0
    out = tmp_path / "out"
    arguments: list[str] = [path, "--output", str(out)]
    kept, kills = b"", 0
    while kills < 50:
        process = start_runner(*arguments)
        end = time.monotonic() + rng.uniform(0.3, 9.0)
        wait_for(partial(ended_or_late, process, end))
        if process.poll() is not None:  # it came to its end before we did: begin another
            assert process.returncode == 0, process.communicate()[0]
            shutil.rmtree(out)
            arguments, kept = [path, "--output", str(out)], b""
            process.communicate()
            continue
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=SECONDS)
        kills += 1
        folders = [folder for folder in out.glob("quick/2*") if (folder / SAMPLES).exists()]
        now = (folders[0] / SAMPLES).read_bytes() if folders else b""
        assert now.startswith(kept)  # what an earlier one wrote is there, and where it was
        kept = now[: now.rfind(b"\n") + 1]
        if kept:
            arguments = ["resume", str(folders[0])]
        elif out.exists():
            shutil.rmtree(out)  # it did not come to its first record: there is nothing to go on with
    done = runner(*arguments)
    assert done.returncode == 0, done.stderr
    folder = only_folder(out, "quick")
    final = (folder / SAMPLES).read_bytes()
    assert final.startswith(kept)
    for place, those in attempts(only_folder(whole, "quick"), ended=True).items():
        [as_planned] = those
        assert attempts(folder, ended=True)[place] == [as_planned]
        assert all(each == as_planned[: len(each)] for each in attempts(folder, ended=False)[place])
    summaries = [read_json(each / "summary.json") for each in (folder, only_folder(whole, "quick"))]
    assert without_timings(summaries[0]) == without_timings(summaries[1])
