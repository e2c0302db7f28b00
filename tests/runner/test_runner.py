"""The runner as its user runs it: real processes, real servers, files on disk."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from core.checkpoints import checkpoint
from core.report.prose.sentences import say
from core.results.folder import read_records
from core.results.plan import Plan
from tests.helpers.support import (
    FAKES,
    ROOT,
    SECONDS,
    checkpoint_in,
    gated,
    read_json,
    run_here,
    run_python,
    start,
    wait_for,
)

SUMMARY_KEYS = {
    "label", "strategy", "loader", "models", "rounds", "requests", "errors", "ready_s", "first_answer_s",
    "first_request_ms", "latency_ms", "throughput_rps", "memory_mib", "loads", "labels_agree",
}  # fmt: skip


def runner(*arguments: str, variables: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return run_python(str(ROOT / "runner.py"), *arguments, variables=variables)


def only_folder(output: Path, name: str) -> Path:
    [folder] = (output / name).glob("2*")
    return folder


def experiment(folder: Path, **changes: Any) -> str:
    """A quick experiment on the fake loader."""
    values = {
        "name": "quick",
        "plugins": [FAKES],
        "models": {"a": str(folder / "a")},
        "strategies": [{"strategy": "on-demand", "loader": "fake"}],
        "texts": ["good", "bad"],
        "repetitions": 2,
        "repeats": 1,
    } | changes
    path = folder / "quick.yaml"
    path.write_text("# Is it quick?\n" + yaml.safe_dump(values))
    return str(path)


@pytest.fixture(scope="module")
def default_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """experiments/default.yaml for real, with fewer requests: 5 servers, 5 × 30 requests."""
    output = tmp_path_factory.mktemp("results")
    # A cache of its own: what another test's server maps stays in the page cache, and no load would be from disk.
    cache = {"RESIDENCY_CACHE": str(tmp_path_factory.mktemp("cache"))}
    flags = ("--repetitions", "3", "--repeats", "1", "--output", str(output))
    done = runner("experiments/default.yaml", *flags, variables=cache)
    assert done.returncode == 0, done.stdout + done.stderr
    return only_folder(output, "default"), done


def test_default_measures_every_strategy(default_run: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = default_run
    summary = read_json(folder / "summary.json")
    assert (summary["schema"], summary["experiment"]) == (7, "default")
    trials = {trial["label"]: trial for trial in summary["trials"]}
    assert list(trials) == [
        *(f"{name}, onnxruntime" for name in ("persistent", "on-demand", "lru-cached (2)")),
        *(f"{name}, transformers" for name in ("persistent", "on-demand")),
    ]
    for trial in trials.values():
        assert set(trial) >= SUMMARY_KEYS
        assert (trial["requests"], trial["errors"], trial["rounds"], trial["labels_agree"]) == (30, 0, 1, True)
        assert trial["latency_ms"]["p50"] > 0
        assert trial["latency_ms"]["p95"] is None  # of 30 requests
        assert trial["first_answer_s"] > trial["ready_s"] > 0
        assert trial["memory_mib"]["peak_rss"] >= trial["memory_mib"]["idle_private"] > 10
        assert trial["used_loaders"] == [trial["label"].rpartition(", ")[2]]
    assert {pair["statistics"]["p50"]["verdict"] for pair in summary["comparisons"]} == {None}  # of one round
    assert [trials[label]["loads"] for label in trials] == [1, 31, 1, 1, 31]
    prices = summary["economics"]["prices"]
    assert (prices["memory_gib_hour"], prices["cpu_hour"], summary["cost"]) == (
        *(0.004445, 0.04048),
        prices | {"trifle": 1.0},
    )
    *_, kept, loaded = summary["economics"]["trials"]
    assert (kept["load"], loaded["load"]["page_cache"], loaded["load"]["lacking"]) == (None, "cold", None)
    assert loaded["load"]["further_ms"] > 0
    assert loaded["per_request"] > kept["per_request"] > 0  # of one round: no interval, and nothing is recommended
    assert (kept["per_request_ci95"], summary["card"]["recommended"], summary["card"]["settings"]) == (None, None, [])
    kept_ms, loaded_ms = (trials[each["label"]]["latency_ms"]["p50"] for each in (kept, loaded))
    assert loaded_ms > 1.5 * kept_ms


def test_default_writes_all_files_and_answers_in_words(
    default_run: tuple[Path, subprocess.CompletedProcess[str]], embedded_directory: Path
) -> None:
    folder, done = default_run
    files = {"experiment.yaml", "texts.jsonl", "environment.json", "samples.jsonl"}  # no server had anything to say
    files |= {"table.md", "summary.json", "report.html"}
    assert {path.name for path in folder.iterdir()} == files
    for sentence in (
        *("onnxruntime (float32): p50", "transformers (float32): p50", "loaded for every request ("),
        *("on-demand, onnxruntime against persistent, onnxruntime: p50", "not verdicts", "PSS between"),
        *("of a request with a load (on-demand, onnxruntime), the load takes", "tokenizer"),
        *("What to use", "A recommendation needs 5 rounds", "AWS Fargate"),
    ):
        assert sentence in done.stdout
        assert sentence in (folder / "table.md").read_text()
    resolved = yaml.safe_load((folder / "experiment.yaml").read_text())
    assert (resolved["name"], resolved["repeats"], resolved["texts"]) == ("default", 1, {"file": "texts.jsonl"})
    assert len((folder / "texts.jsonl").read_text().splitlines()) == 10
    environment = read_json(folder / "environment.json")
    assert environment["torch_threads"] >= 1
    assert environment["versions"]["torch"] == version("torch")
    assert environment["versions"]["onnxruntime"]
    assert read_records(folder).header.models["embedded"].sha256 == checkpoint.sha256(embedded_directory)


def test_report_rebuilds_table_and_summary_from_the_samples_alone(
    default_run: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    folder, done = default_run
    (tmp_path / "samples.jsonl").write_bytes((folder / "samples.jsonl").read_bytes())
    with (tmp_path / "samples.jsonl").open("a") as file:
        file.write('{"kind": "sample", "round": 2, "tri')  # torn by a kill
    again = run_here("report", str(tmp_path))
    assert again.returncode == 0
    assert again.stdout.partition("\nWritten to")[0] == done.stdout.partition("\nWritten to")[0]
    for name in ("table.md", "summary.json"):
        assert (tmp_path / name).read_text() == (folder / name).read_text()


def test_a_run_can_be_planned_from(default_run: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    workload = {"open": {"rate": "10/h", "requests": 100}}
    values = {"name": "ahead", "profile": str(default_run[0]), "workload": workload}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(values))
    done = run_here("plan", str(tmp_path / "plan.yaml"), "--output", str(tmp_path))
    assert done.returncode == 0, done.stderr
    plan = read_json(only_folder(tmp_path, "ahead") / "plan.json")
    assert [(each["model"], each["loader"]) for each in plan["theory"]] == [
        ("embedded", "onnxruntime"),
        ("embedded", "transformers"),
    ]
    assert 5 < plan["theory"][-1]["cold_start_ms"] < 5000
    by_label = {row["label"]: row for row in plan["settings"]}
    kept, loaded = (by_label[f"{strategy}, transformers"] for strategy in ("persistent", "on-demand"))
    assert (kept["cold_share"], loaded["cold_share"], loaded["loads"]) == (0, 1, 100)
    read = Plan.model_validate_json((only_folder(tmp_path, "ahead") / "plan.json").read_bytes())
    assert say(read.answer[0]) in done.stdout


def test_lists_plugins_with_their_options() -> None:
    done = run_here("plugins")
    assert done.returncode == 0
    for part in ("persistent (built in)", "memory_budget  ByteSize | None  default: None", "transformers (built in)"):
        assert part in done.stdout


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_experiment_can_be_planned(path: Path) -> None:
    done = run_here(str(path), "--dry-run")
    assert done.returncode == 0
    assert all(line.startswith("Running the code of plugin ") for line in done.stderr.splitlines())
    assert done.stdout.startswith(path.read_text().partition("\n")[0].removeprefix("# "))


def test_a_bad_experiment_is_2_and_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    bad, good = experiment(tmp_path / "bad", repetitions=-1), experiment(tmp_path)
    for arguments, sentence in (
        ((bad,), "quick.yaml:8:1: repetitions: must be at least 1, such as 10 (got -1)."),
        ((good, "--strategies", "none"), "has no 'none'"),
        ((good, "--model", "a"), "must be ID=REFERENCE"),
        ((good, "--repeats", "0"), "must be a whole number of at least 1"),
        ((str(tmp_path / "none.yaml"),), "cannot be read"),
        (("report", str(tmp_path)), "contains no run"),
        ((), "Usage: runner.py"),
        (("run",), "error: the argument FILE is missing."),
        (("--confirm",), "error: there is no flag --confirm"),
        (("plan", "plan.yaml", "--repeats", "3"), "error: there is no flag --repeats"),
        ((good, "--repeat", "3"), "error: there is no flag --repeat; did you mean --repeats or"),
        (("reprot", "results"), "error: there is no command 'reprot'; did you mean export or report?"),
        (("plan", good), "is an experiment, not a plan; run it with: python runner.py"),
        ((good, "--model", "a=/no/such/dir", "--output", str(tmp_path)), "no checkpoint directory"),
    ):
        done = run_here(*arguments)
        assert done.returncode == 2, done.stderr
        assert sentence in done.stderr
        assert "Traceback" not in done.stderr
    done = runner(bad)
    assert (done.returncode, done.stderr) == (2, run_here(bad).stderr)


def test_a_failing_trial_is_1_and_the_others_still_run(tmp_path: Path) -> None:
    checkpoint_in(tmp_path / "a")
    strategies = [
        {"strategy": "lru-cached", "loader": "fake", "options": {"memory_budget": 1}, "label": "too small"},
        {"strategy": "persistent", "loader": "fake", "label": "kept"},
    ]
    done = run_here(experiment(tmp_path, strategies=strategies), "--output", str(tmp_path / "out"))
    assert done.returncode == 1, done.stderr
    summary = read_json(only_folder(tmp_path / "out", "quick") / "summary.json")
    assert {trial["label"]: trial["requests"] for trial in summary["trials"]} == {"too small": 0, "kept": 4}
    [failure] = summary["failures"]
    assert "model 'a' takes 1000B, more than the memory_budget of 1B" in failure["reason"]
    assert "Warning: too small failed in round 1" in done.stdout


def test_failed_requests_are_counted_and_are_1(tmp_path: Path) -> None:
    (checkpoint_in(tmp_path / "a") / "broken").touch()
    done = run_here(experiment(tmp_path, repeats=2), "--output", str(tmp_path / "out"))
    assert done.returncode == 1
    folder = only_folder(tmp_path / "out", "quick")
    [trial] = read_json(folder / "summary.json")["trials"]
    assert (trial["requests"], trial["errors"]) == (8, 10)
    assert "answered 10 requests with an error: Loading model 'a' failed: " in done.stdout
    assert "disk error" in trial["log"]
    assert f"The server's log says: {trial['log']}. See server.log." in done.stdout
    log = (folder / "server.log").read_text()
    assert re.findall(r"^== .* ==$", log, re.M) == [f"== round {n}, on-demand, fake ==" for n in (1, 2)]
    assert trial["log"] in log
    wide = run_here("report", str(folder), "--wide")
    assert wide.returncode == 1
    for shown, header in ((done.stdout, "loads"), (wide.stdout, "errors")):
        [table, below] = shown.split("\n\n")[1:3]
        assert header in table
        assert below.startswith("Warning: on-demand, fake answered 10 requests with an error")  # in either


def test_all_columns_are_in_the_file_and_with_a_flag_on_the_terminal(
    default_run: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, done = default_run
    kept = (folder / "table.md").read_text()
    assert kept.index("idle PSS (MiB)") < kept.index("## All figures") < kept.index("peak RSS (MiB)")
    assert "RSS" not in done.stdout
    wide = run_here("report", str(folder), "--wide")
    assert (wide.returncode, "RSS" in wide.stdout) == (0, True)
    assert (folder / "table.md").read_text() == kept


BROKEN = """
import os, pluggy
from tests.helpers.fakes import FakeLoader, FakeModel

class ContractBroken:
    "Fails where it is told to."
    name = "broken"
    def __init__(self, *, at: str):
        self.at = at
    def start(self, models):
        if self.at == "start":
            raise RuntimeError("cannot begin")
        return ()
    def requested(self, model_id, now):
        if self.at == "exit":
            os._exit(3)

class BrokenModel(FakeModel):
    def predict(self, texts):
        if texts[0] in ("good", "bad"):
            raise ZeroDivisionError("there is nothing\\nto divide by")
        return super().predict(texts)

class BrokenLoader(FakeLoader):
    "Its models fail at those who ask."
    name = "broken"
    def load(self, checkpoint):
        return BrokenModel(self, checkpoint)

@pluggy.HookimplMarker("residency")
def register_strategies():
    return [ContractBroken]

@pluggy.HookimplMarker("residency")
def register_loaders():
    return [BrokenLoader]
"""


def test_why_a_plugin_failed_is_told_and_kept(tmp_path: Path) -> None:
    checkpoint_in(tmp_path / "a")
    (tmp_path / "broken.py").write_text(BROKEN)
    strategies = [
        {"strategy": "broken", "loader": "broken", "options": {"at": at}, "label": at}
        for at in ("start", "request", "exit")
    ]
    path = experiment(tmp_path, plugins=[FAKES, "broken.py"], strategies=strategies)
    done = run_here(path, "--output", str(tmp_path / "out"))
    assert done.returncode == 1, done.stderr
    for told in (
        "start failed in round 1: the server ended with status 1: Strategy 'broken' cannot start: cannot begin",
        "The server's log says: ZeroDivisionError: there is nothing to divide by. See server.log.",
        "exit failed in round 1: the server ended with status 3: ",
    ):
        assert told in done.stdout
    log = (only_folder(tmp_path / "out", "quick") / "server.log").read_text()
    assert sorted(re.findall(r"^== (.*) ==$", log, re.M)) == [f"round 1, {at}" for at in ("exit", "request", "start")]
    assert "CRITICAL: Strategy 'broken' cannot start: cannot begin" in log
    assert "ZeroDivisionError: there is nothing\nto divide by" in log


@pytest.mark.slow
def test_a_hanging_load_fails_its_trial_only(tmp_path: Path) -> None:
    hanging = checkpoint_in(tmp_path / "a")
    with gated(hanging):
        # A start has this long, too: less, and a busy machine has no server to hang.
        done = runner(experiment(tmp_path, timeout=15.0), "--output", str(tmp_path / "out"))
    assert done.returncode == 1, done.stderr
    assert "no answer within 15 s" in done.stdout


@pytest.mark.parametrize(
    "number", [signal.SIGINT, *(pytest.param(n, marks=pytest.mark.slow) for n in (signal.SIGTERM, signal.SIGHUP))]
)
def test_interrupted_it_keeps_what_was_measured_and_leaves_no_server(tmp_path: Path, number: int) -> None:
    checkpoint_in(tmp_path / "a")
    process = start_runner(experiment(tmp_path, repetitions=50_000), "--output", str(tmp_path))
    samples = tmp_path / "quick"
    wait_for(lambda: any(path.stat().st_size > 20_000 for path in samples.glob("*/samples.jsonl")))
    servers = servers_of(process)
    process.send_signal(number)
    output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert "1 of 1 rounds of on-demand, fake did not run to the end" in output
    folder = only_folder(tmp_path, "quick")
    assert (folder / "summary.json").exists()
    assert len(read_records(folder).measured) > 50
    assert len(servers) == 1
    assert not servers[0].is_running()
    assert runner("report", str(folder)).returncode == 1  # it is still not finished


def test_in_the_background_sigterm_ends_it_and_a_hangup_does_not(tmp_path: Path) -> None:
    """As under `nohup … &`: with SIGINT and SIGHUP ignored, what was measured is still kept and reported."""
    checkpoint_in(tmp_path / "a")
    path = experiment(tmp_path, repetitions=50_000)
    process = start_runner(path, "--output", str(tmp_path), ignored=(signal.SIGINT, signal.SIGHUP))
    wait_for(lambda: written(tmp_path) > 5_000)
    before = written(tmp_path)
    process.send_signal(signal.SIGHUP)
    wait_for(lambda: written(tmp_path) > before + 20_000)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, output
    assert "Interrupted." in output
    assert (only_folder(tmp_path, "quick") / "summary.json").exists()


def written(output: Path) -> int:
    """Bytes of samples so far."""
    return sum(path.stat().st_size for path in output.glob("quick/2*/samples.jsonl"))


def test_interrupted_while_a_server_ends_it_leaves_none(tmp_path: Path) -> None:
    checkpoint_in(tmp_path / "a")
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    strategies = [{"strategy": "persistent", "loader": {"name": "stubborn", "told": str(tmp_path / "told")}}]
    changes = {"plugins": [FAKES, str(tmp_path / "stubborn.py")], "strategies": strategies}
    process = start_runner(experiment(tmp_path, **changes), "--output", str(tmp_path / "out"))
    wait_for(lambda: (tmp_path / "told").exists())
    servers = servers_of(process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert len(servers) == 1
    assert not servers[0].is_running()


def test_killed_it_takes_its_server_along(tmp_path: Path) -> None:
    checkpoint_in(tmp_path / "a")
    process = start_runner(experiment(tmp_path, repetitions=50_000), "--output", str(tmp_path / "out"))
    wait_for(lambda: any(path.stat().st_size > 5_000 for path in (tmp_path / "out").glob("*/*/samples.jsonl")))
    [server] = servers_of(process)
    process.kill()
    process.communicate(timeout=SECONDS)
    wait_for(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE)
    folder = only_folder(tmp_path / "out", "quick")
    assert len(read_records(folder).measured) > 10
    assert runner("report", str(folder)).returncode == 1


STUBBORN = """
import pathlib, threading, pluggy
from tests.helpers.fakes import FakeLoader, FakeModel

class StubbornModel(FakeModel):
    def close(self):
        self._loader.told.touch()
        threading.Event().wait()

class Stubborn(FakeLoader):
    "Its models never end."
    name = "stubborn"
    def __init__(self, *, told: str):
        super().__init__()
        self.told = pathlib.Path(told)
    def load(self, checkpoint):
        return StubbornModel(self, checkpoint)

@pluggy.HookimplMarker("residency")
def register_loaders():
    return [Stubborn]
"""


def servers_of(runner: subprocess.Popen[str]) -> list[psutil.Process]:
    return [child for child in psutil.Process(runner.pid).children() if "core.app:app" in child.cmdline()]


def start_runner(*arguments: str, ignored: Collection[int] = ()) -> subprocess.Popen[str]:
    return start(sys.executable, str(ROOT / "runner.py"), *arguments, ignored=ignored)


ENDED = json.dumps(
    {"kind": "trial", "round": 0, "trial": "persistent", "ready_s": 1, "first_answer_s": 1, "steady_s": 1, "loads": 1}
    | {
        "least_keep": None,
        "resident": [],
        "memory_mib": dict.fromkeys(("idle_pss", "idle_private", "peak_rss", "start_peak_rss"), 1),
    }
)


def test_a_damaged_folder_is_a_sentence(tmp_path: Path, default_run: tuple[Path, object]) -> None:
    lines = (default_run[0] / "samples.jsonl").read_text().splitlines()
    for text, sentence in (
        ('{"kind": "run", "schema": 6}\n', "samples.jsonl:1: this run record lacks 'experiment'"),
        (lines[0] + '\n{"kind": "sample"}\n', "samples.jsonl:2: this sample record lacks 'first'"),
        (lines[0] + "\n[]\n", "samples.jsonl:2: is not a record"),
        (lines[0] + '\n{"kind": "other"}\n', "samples.jsonl:2: is not a record"),
        (lines[1] + "\n", "the first line does not describe a run"),
        (lines[0].replace('"schema": 6', '"schema": 9') + "\n", "written by another version"),
        (lines[0] + "\n" + lines[2].replace('"ms": ', '"ms": "x", "y": ') + "\n" + ENDED, "a record in another format"),
        ("", "the first line does not describe a run"),
    ):
        (tmp_path / "samples.jsonl").write_text(text)
        done = run_here("report", str(tmp_path))
        assert (done.returncode, sentence in done.stderr) == (2, True), done.stderr


def test_a_full_disk_stops_the_run_with_a_sentence(tmp_path: Path) -> None:
    checkpoint_in(tmp_path / "a")
    path = experiment(tmp_path, repetitions=200)
    command = f"ulimit -f 8; exec {sys.executable} {ROOT / 'runner.py'} {path} --output {tmp_path}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=SECONDS)
    assert done.returncode == 1
    assert "samples.jsonl cannot be written: File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(read_records(only_folder(tmp_path, "quick")).measured) > 10


def test_hostile_yaml_is_refused_as_soon_as_good_yaml_is_read(tmp_path: Path) -> None:
    """Within three times the time of a new process with a good file, most of which is its imports."""
    started = time.perf_counter()
    assert runner("experiments/default.yaml", "--dry-run").returncode == 0
    good = time.perf_counter() - started
    for text in ("texts: [" + "1," * 400_000 + "]", "name: " + "[" * 500_000, "repetitions: " + "9" * 500_000):
        (tmp_path / "x.yaml").write_text(text)
        started = time.perf_counter()
        assert run_here(str(tmp_path / "x.yaml"), "--dry-run").returncode == 2
        assert time.perf_counter() - started < 2 * good


LEAKY = """
import pluggy

class Leaky:
    "Keeps a mebibyte of each load."
    name = "leaky"
    shared = False
    def __init__(self):
        self.kept = []
    def loaded(self, model, reason, now):
        self.kept.append(b"x" * (1 << 20))

@pluggy.HookimplMarker("residency")
def register_strategies():
    return [Leaky]
"""


@pytest.mark.slow
def test_a_leak_is_caught_and_its_absence_is_told(tmp_path: Path) -> None:
    checkpoint_in(tmp_path / "a")
    (tmp_path / "leaky.py").write_text(LEAKY)
    strategies = [{"strategy": name, "loader": "fake", "label": name} for name in ("leaky", "on-demand")]
    plugins = [FAKES, str(tmp_path / "leaky.py")]
    path = experiment(tmp_path, strategies=strategies, plugins=plugins, memory_after_each=True, repetitions=6)
    done = run_here(path, "--output", str(tmp_path / "out"), "--waterfall")
    assert done.returncode == 0, done.stderr
    leaky, sound = read_json(only_folder(tmp_path / "out", "quick") / "summary.json")["trials"]
    assert leaky["memory_return"]["slope_mib_per_cycle"] == pytest.approx(1, abs=0.3)
    assert (leaky["memory_return"]["leaks"], sound["memory_return"]["leaks"]) == (True, False)
    assert "Warning: leaky does not give its memory back" in done.stdout
    assert "on-demand: median of the requests that waited for a load" in done.stdout


@pytest.mark.slow
def test_a_second_run_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    checkpoint_in(tmp_path / "a")
    for _ in range(2):
        path = experiment(tmp_path, batching="off", slo={"p99": "1h"})
        assert run_here(path, "--output", str(tmp_path / "out")).returncode == 0
    first, second = sorted((tmp_path / "out" / "quick").glob("2*"))
    assert (first.parent / "latest").resolve() == second
    summary = read_json(first / "summary.json")
    assert (summary["batching"], summary["slo"], summary["precision"]) == ("off", {"p99": 3600}, None)
    [target] = summary["trials"][0]["slo"]
    assert (target["share_within"], target["verdict"], target["further_rounds"]) == (1, None, 4)
    records = [json.loads(line) for line in (first / "samples.jsonl").read_text().splitlines()]
    kinds = [record["kind"] for record in records]
    assert [kind for kind in kinds if kind != "load"] == ["run", "begin", *["sample"] * 5, "trial"]
    # A temporary folder may be on a file system that keeps its files in the page cache.
    assert kinds.count("load") == 6 or "stayed in the page cache" in records[-1]["loads_lacking"]


@pytest.mark.slow
def test_a_flag_that_became_a_command_still_works(
    default_run: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "samples.jsonl").write_bytes((default_run[0] / "samples.jsonl").read_bytes())
    new = run_here("report", str(tmp_path), "--wide")
    for arguments in (("--report", str(tmp_path), "--wide"), ("--wide", f"--report={tmp_path}")):
        assert run_here(*arguments).stdout == new.stdout
    assert run_here("--plugins").stdout == run_here("plugins").stdout


def test_each_command_says_how_it_is_used() -> None:
    listed = run_here("--help").stdout
    for command in ("run", "resume", "report", "compare", "plan", "plugins", "check", "convert", "serve"):
        assert f"\n  {command} " in listed
        done = run_here(command, "--help")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"Usage: runner.py {command} ")
