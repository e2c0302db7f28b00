"""The load generator against real servers, and in a trial."""

from __future__ import annotations

import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import yaml

from core.bench import generator as load_generator
from core.bench.asking import Asking
from core.bench.experiment import load_experiment
from core.bench.first_answers import FirstAnswers
from core.bench.generator import Target, check_kept_up, drive
from core.bench.run import prepare, run_trials, write_header
from core.bench.server import ServerProcess, launch
from core.bench.traffic import Traffic
from core.bench.workload import Workload
from core.errors import TrialFailed
from core.report.progress import RunProgress
from core.results.folder import RecordWriter, read_records
from core.results.header import OpenSpec
from core.results.records import Failure, LoadGenerator, Sample, TrialEnd
from core.system.server_log import find_reason
from tests.helpers.support import FAKES, ROOT, SECONDS, checkpoint_in, start, wait_for

GOOD = Asking("", ["good"], (), {}, FirstAnswers(Path(os.devnull)))


@contextmanager
def trivial(*flags: str) -> Iterator[ServerProcess]:
    command = [sys.executable, str(ROOT / "tests" / "helpers" / "trivial_server.py"), *flags]
    with launch(command, os.environ) as server:
        wait_for(lambda: _listens(server))
        yield server


def _listens(server: ServerProcess) -> bool:
    server.check()
    address = urlsplit(server.url)
    with socket.socket() as probe:
        return probe.connect_ex((address.hostname, address.port)) == 0


def driven(server: ServerProcess, timeout: float = SECONDS, **workload: Any) -> tuple[list[Any], LoadGenerator]:
    samples: list[Sample] = []
    one = Traffic(Workload.model_validate(workload), ("a",), 1, seed=0)
    _, generator = drive(one, 0, Target(server.url, GOOD, timeout, server.check, "trial"), samples.append)
    return samples, generator


def test_a_stall_is_seen_by_all_who_would_have_asked_meanwhile() -> None:
    stall = 0.4
    with trivial("--stall-at", "60", "--stall", str(stall)) as server:
        samples, generator = driven(server, open={"rate": 100, "arrivals": "constant", "requests": 150})
    latencies = np.array([sample.ms for sample in samples]) / 1e3
    assert generator.sends == len(samples) == 150
    assert {sample.status for sample in samples} == {200}
    assert max(latencies) > 0.95 * stall
    assert np.quantile(latencies, 0.99) > 0.9 * stall
    assert np.sum(latencies > stall / 2) >= 15  # of the 40 that arrived in it, where a closed loop would see one
    first = min(samples, key=lambda sample: sample.at)
    assert (first.model, first.text, first.first) == ("a", 0, False)
    assert (first.label, first.timing) == ("POSITIVE", {"inference": 0.5})
    assert generator.seconds >= 1.49


def test_what_is_not_answered_is_a_sample_and_the_run_goes_on() -> None:
    with trivial("--cut-at", "2", "--hang-at", "4") as server:
        samples, _ = driven(server, timeout=0.5, open={"rate": 100, "arrivals": "constant", "requests": 8})
    failed = {round(sample.at * 100): sample.error for sample in samples if sample.status == 0}
    assert len(samples) == 8
    assert sorted(failed) == [1, 3]
    assert "the connection broke" in failed[1]
    assert failed[3] == "no answer within 0.5 s"


def test_a_dead_server_ends_it() -> None:
    with trivial("--die-at", "5") as server, pytest.raises(TrialFailed, match="the server ended with status 7"):
        driven(server, open={"rate": 100, "duration": 60.0})


def test_a_closed_loop_asks_as_often_as_it_is_answered() -> None:
    with trivial("--delay", "0.02") as server:
        samples, generator = driven(server, closed={"clients": 3, "requests": 31})
        assert generator.sends == len(samples) == 31
        assert generator.seconds >= 0.2  # eleven answers, one after the other
        assert {sample.lag_ms for sample in samples} == {0}
        ends = sorted((sample.at + sample.ms / 1e3, sample.at) for sample in samples)
        for end, began in ends:
            assert sum(at <= began < end for end, at in ends) <= 3
        samples, generator = driven(server, closed={"clients": 2, "duration": 0.3})
        assert max(sample.at for sample in samples) < 0.3 <= generator.seconds


@pytest.mark.parametrize(("kind", "remedy"), [("open", "a lower rate"), ("closed", "fewer clients")])
def test_a_generator_that_cannot_keep_up_says_so(kind: str, remedy: str) -> None:
    """What keeps it busy here is the one who takes its samples."""
    choice: dict[str, Any] = {"rate": 100} if kind == "open" else {"clients": 2}
    one = Traffic(Workload.model_validate({kind: choice | {"requests": 10}}), ("a",), 1, seed=0)

    def busy(sample: Sample) -> None:
        end = time.process_time() + 0.03
        while time.process_time() < end:
            pass

    with trivial() as server:
        _, generator = drive(one, 0, Target(server.url, GOOD, SECONDS, server.check, "trial"), busy)
    assert generator.late_share > 0.2
    assert generator.lag_p99_ms > 20
    assert generator.processor_s > 10 * 0.03
    with pytest.raises(TrialFailed, match=f"late .* Use {remedy}"):
        check_kept_up(one, generator)


# In a trial


def quick(folder: Path, workload: Any, **changes: Any) -> Path:
    values = {
        "name": "quick",
        "plugins": [FAKES],
        "models": {"a": str(folder / "a"), "b": str(folder / "b")},
        "strategies": [{"strategy": "on-demand", "loader": "fake"}],
        "texts": ["good", "bad"],
        "workload": workload,
        "repeats": 1,
    } | changes
    (folder / "quick.yaml").write_text("# Is it quick?\n" + yaml.safe_dump(values))
    return folder / "quick.yaml"


def test_a_trial_under_a_workload_leaves_its_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_generator, "LATE_SHARE", 1.0)  # tests run on busy machines
    for name in "ab":
        checkpoint_in(tmp_path / name)
    plan = load_experiment(quick(tmp_path, {"open": {"rate": "100/s", "requests": 40}}))
    checkpoints, digests = prepare(plan)
    write_header(plan, checkpoints, digests, tmp_path)
    with RecordWriter(tmp_path) as records, RunProgress(1, 1, 1) as progress:
        run_trials(plan, checkpoints, records, progress, read_records(tmp_path), lambda _: None)
    written = read_records(tmp_path)
    _, first, *others, trial = written.measured
    samples: list[Any] = [record for record in others if isinstance(record, Sample)]
    assert {record.kind for record in others} <= {"sample", "load"}
    assert written.header.workload is not None
    traffic = OpenSpec(rate=100.0, requests=40, arrivals="poisson", popularity="uniform")
    assert written.header.workload.open == traffic
    assert isinstance(first, Sample)
    assert first.first
    assert isinstance(trial, TrialEnd)
    assert trial.generator is not None
    assert trial.generator.sends == len(samples) == 40
    assert trial.steady_s == trial.generator.seconds >= max(sample.at for sample in samples)
    assert plan.traffic is not None
    expected = [(at, *request) for at, request in plan.traffic.arrivals(0)]
    asked = sorted((sample.at, sample.model, sample.text) for sample in samples)
    assert [tuple(each[1:]) for each in asked] == [each[1:] for each in expected]
    assert [each[0] for each in asked] == pytest.approx([each[0] for each in expected])
    assert all(sample.lag_ms >= 0 and sample.ms >= sample.lag_ms for sample in samples)


@pytest.mark.parametrize("failing", [True, False])
def test_requests_that_failed_are_told_before_a_late_generator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: bool
) -> None:
    monkeypatch.setattr(load_generator, "LATE_SHARE", -1.0)  # it never keeps up
    for name in "ab":
        checkpoint_in(tmp_path / name)
        if failing:
            (tmp_path / name / "broken").touch()
    plan = load_experiment(quick(tmp_path, {"open": {"rate": "100/s", "requests": 20}}))
    write_header(plan, *prepare(plan), tmp_path)
    with RecordWriter(tmp_path) as records, RunProgress(1, 1, 1) as progress:
        run_trials(plan, prepare(plan)[0], records, progress, read_records(tmp_path), lambda _: None)
    failure = read_records(tmp_path).measured[-1]
    assert isinstance(failure, Failure)
    reason = failure.reason
    if failing:
        assert re.match(r"21 of 21 requests failed.*: Loading model '.' failed: .*: OSError: .*disk error", reason), (
            reason
        )
        assert ". Besides, the load generator could not keep up: " in reason
    else:
        assert reason.startswith("the load generator could not keep up: ")


FAILED_START = """ERROR:    Traceback (most recent call last):
  File x
    y()
ValueError: no

ERROR:    Application startup failed. Exiting.
"""
CHAIN = """ERROR:    Failed
Traceback (most recent call last):
  File x
KeyError: 1

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File y
x.Other: in two
lines
INFO:     Shutting down
"""
GROUP = """  + Exception Group Traceback (most recent call last):
  |   File x
  | ExceptionGroup: one (1 sub-exception)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File y
    | OSError: gone
    +------------------------------------
"""


ON_RAY = """(ServeReplica:default:Nodes pid=7) Traceback (most recent call last):
(ServeReplica:default:Nodes pid=7)   File x
(ServeReplica:default:Nodes pid=7) ValueError: no
"""


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("Running the code of plugin x\nCRITICAL: It cannot start.\n", "It cannot start."),
        (FAILED_START, "ValueError: no"),
        (CHAIN, "x.Other: in two lines"),
        (GROUP, "OSError: gone"),
        ("Traceback (most recent call last):\n  x\nA: b\nERROR: It is over\n", "It is over"),
        ("Running the code of plugin x\nSegmentation fault\nINFO: freed\n", "Segmentation fault"),
        ("n1 | INFO:     one\nn2 | CRITICAL: It cannot start.\nn1 | INFO:     two\n", "It cannot start."),
        (ON_RAY, "ValueError: no"),
        ("", ""),
    ],
)
def test_a_log_says_why(log: str, reason: str) -> None:
    assert find_reason(log) == reason


WORKLOADS = {
    "closed": {"closed": {"clients": 3, "duration": "1h"}},
    "open": {"open": {"rate": "100/s", "duration": "1h"}},
}


@pytest.mark.parametrize(
    ("kind", "number", "ignored"),
    [
        pytest.param("closed", signal.SIGINT, (), marks=pytest.mark.slow),
        ("closed", signal.SIGTERM, (signal.SIGINT, signal.SIGHUP)),  # as under `nohup … &`
        pytest.param("open", signal.SIGTERM, (signal.SIGINT,), marks=pytest.mark.slow),
        ("open", signal.SIGHUP, ()),
    ],
)
def test_interrupted_under_a_workload_it_keeps_what_was_measured(
    tmp_path: Path, kind: str, number: int, ignored: tuple[int, ...]
) -> None:
    for name in "ab":
        checkpoint_in(tmp_path / name)
    path = quick(tmp_path, WORKLOADS[kind])
    arguments = (str(ROOT / "runner.py"), str(path), "--output", str(tmp_path / "out"))
    process = start(sys.executable, *arguments, ignored=ignored)
    wait_for(lambda: any(file.stat().st_size > 20_000 for file in tmp_path.glob("out/quick/2*/samples.jsonl")))
    process.send_signal(number)
    output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    [folder] = (tmp_path / "out" / "quick").glob("2*")
    assert len(read_records(folder).measured) > 50
    assert (folder / "summary.json").exists()


# On a quiet machine: `pytest -m slow tests/runner/test_generator.py`


@pytest.mark.slow
def test_at_200_requests_a_second_the_generator_is_on_time() -> None:
    with trivial() as server:
        samples, generator = driven(server, open={"rate": 200, "duration": 30.0})
    assert {sample.status for sample in samples} == {200}
    assert generator.lag_p99_ms < 2, generator
    assert generator.processor_s / generator.seconds < 0.5, generator


@pytest.mark.slow
@pytest.mark.parametrize("connections", [1, 4])
def test_latency_is_what_wrk_sees(connections: int) -> None:
    """Interleaved, five seconds each."""
    ours, wrks = [], []
    with trivial("--delay", "0.025") as server:
        for _ in range(3):
            samples, _ = driven(server, closed={"clients": connections, "duration": 5.0})
            ours.append(float(np.median([sample.ms for sample in samples])))
            wrks.append(wrk_p50(server.url, connections))
    assert statistics.median(ours) == pytest.approx(statistics.median(wrks), rel=0.05), (ours, wrks)


def wrk_p50(url: str, connections: int) -> float:
    """In milliseconds."""
    command = ["wrk", "-t1", f"-c{connections}", "-d5s", "--latency", url]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    [(value, unit)] = re.findall(r"^ +50% +([\d.]+)(us|ms|s)$", output, re.MULTILINE)
    return float(value) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]


@pytest.mark.slow
def test_a_stall_of_a_second_is_in_p99_and_max() -> None:
    with trivial("--stall-at", "500", "--stall", "1") as server:
        samples, _ = driven(server, open={"rate": 100, "duration": 20.0})
    latencies = [sample.ms for sample in samples]
    assert max(latencies) > 950
    assert np.quantile(latencies, 0.99) > 500  # a twentieth of the requests arrived in it
    assert np.median(latencies) < 50
