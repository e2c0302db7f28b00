"""Experiments whose models are engines: requests in place of texts, and when their answers arrive."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from pydantic import JsonValue

from core.bench.asking import Asking
from core.bench.client import connect
from core.bench.experiment import load_experiment
from core.bench.first_answers import FirstAnswers
from core.bench.generator import Target, drive
from core.bench.requests import Message
from core.bench.server import launch
from core.bench.traffic import Traffic
from core.bench.workload import Workload
from core.errors import YamlError
from core.results.folder import SAMPLES, read_records
from core.results.records import Sample, TrialEnd
from core.results.summary import Summary
from tests.helpers.support import ROOT, SECONDS, read_json, run_here, wait_for
from tests.runner.test_runner import only_folder

ENGINE = ROOT / "tests" / "helpers" / "fake_engine.py"
COMMAND = f"{sys.executable} {ENGINE} --port ${{port}}"
STRATEGIES = ["persistent", "on-demand"]
Done = tuple[Path, subprocess.CompletedProcess[str]]


def experiment(folder: Path, **changes: Any) -> str:
    """One fake chat model, which answers every prompt with the same five tokens."""
    values = {
        "name": "asked",
        "models": {"chat": {"run": f"{COMMAND} --size 64 --fork", "aliases": ["gpt:4"], "parallel": 2}},
        "strategies": STRATEGIES,
        "requests": {"chat": ["Hello.", "And you?"], "max_tokens": 5},
        "repetitions": 2,
        "repeats": 1,
    } | changes
    path = folder / "asked.yaml"
    path.write_text("# Is it asked?\n" + yaml.safe_dump({key: value for key, value in values.items() if value}))
    return str(path)


def run(folder: Path, **changes: Any) -> Done:
    done = run_here(experiment(folder, **changes), "--output", str(folder / "out"))
    return only_folder(folder / "out", "asked"), done


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A run that keeps the server, and starts it for each request."""
    folder, done = run(tmp_path_factory.mktemp("asked"))
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done


def samples_of(folder: Path) -> list[Sample]:
    return [record for record in read_records(folder).measured if isinstance(record, Sample)]


def test_streams_are_timed_part_by_part(asked: Done) -> None:
    samples = samples_of(asked[0])
    assert [sum(sample.trial == name for sample in samples) for name in STRATEGIES] == [5, 5]
    for sample in samples:
        assert (sample.status, sample.apart) == (200, 0)
        assert sample.cold is (sample.trial == "on-demand")
        assert (sample.timing["load"] > 1) is sample.cold
        assert sample.arrival is not None
        assert sample.arrival.tokens == 5
        assert 0 < sample.arrival.first_byte_ms <= sample.ms
        assert sample.ms - 50 < sum(sample.timing[part] for part in ("queue", "load", "inference")) <= sample.ms


def test_the_first_answers_are_kept_and_no_others(asked: Done) -> None:
    lines = (asked[0] / "answers.jsonl").read_text().splitlines()
    assert len(lines) == 2
    assert all('"answer": "t0 t1 t2 t3 t4 "' in line for line in lines)


def test_table_page_and_export_show_when_answers_arrive(asked: Done) -> None:
    folder, done = asked
    summary = Summary.model_validate_json((folder / "summary.json").read_bytes())
    kept, started = (trial.arrival for trial in summary.trials)
    assert kept is not None
    assert started is not None
    assert kept.warm_first_byte_ms is not None
    assert started.cold_first_byte_ms is not None
    assert (kept.cold_first_byte_ms, started.warm_first_byte_ms) == (None, None)
    assert "tokens/s" in done.stdout
    assert "warm first byte (ms)" in (folder / "table.md").read_text()
    assert "cold first byte (ms)" in (folder / "report.html").read_text()
    assert run_here("export", str(folder)).returncode == 0
    with (folder / "export" / "requests.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["tokens"] for row in rows} == {"5"}
    assert all(float(row["first_byte_ms"]) > 0 for row in rows)


def test_the_memory_of_a_trial_includes_its_servers(asked: Done) -> None:
    ends = {end.trial: end for end in read_records(asked[0]).measured if isinstance(end, TrialEnd)}
    kept, started = (ends[name].memory_mib for name in STRATEGIES)
    assert kept.idle_pss is not None
    assert started.idle_pss is not None
    assert 60 < kept.idle_pss - started.idle_pss < 120
    assert started.peak_rss is not None
    assert started.peak_rss > started.idle_pss + 40  # a peak of a moment may be missed
    assert ends["persistent"].used[0].nbytes > 64 << 20


def test_the_header_says_how_a_server_is_started(asked: Done) -> None:
    assert read_records(asked[0]).header.models["chat"].setting == {
        "run": f"{COMMAND} --size 64 --fork",
        "aliases": ["gpt:4"],
        "parallel": 2,
    }


def test_a_run_that_starts_programs_is_resumed_by_a_flag_only(asked: Done, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(asked[0], tmp_path / "again"))
    lines = (folder / SAMPLES).read_bytes().splitlines(keepends=True)
    ends = [number for number, line in enumerate(lines) if b'"kind": "trial"' in line]
    (folder / SAMPLES).write_bytes(b"".join(lines[: ends[0] + 1]))  # the second trial is missing
    before = (folder / SAMPLES).read_bytes()
    done = run_here("resume", str(folder))
    assert done.returncode == 2
    assert "starts programs: 'chat' (run: " in done.stderr
    assert "--start-engines" in done.stderr
    assert (folder / SAMPLES).read_bytes() == before
    done = run_here("resume", str(folder), "--start-engines")
    assert done.returncode == 0, done.stderr
    assert len(read_records(folder).finished_trials) == 2


@pytest.mark.parametrize("workload", [{"open": {"rate": 20, "requests": 8}}, {"closed": {"clients": 2, "requests": 8}}])
def test_both_loops_time_the_parts_of_streams(tmp_path: Path, workload: dict[str, Any]) -> None:
    samples: list[Sample] = []
    body: dict[str, JsonValue] = {"stream": True, "tokens": 4, "delay": 0.03}
    asking = Asking("", (), (Message("/v1/chat/completions", body, agree=True),), {}, FirstAnswers(tmp_path))
    with launch([sys.executable, str(ENGINE)], os.environ) as server, connect(server.url, SECONDS) as client:
        wait_for(lambda: answers(client))
        target = Target(server.url, asking, SECONDS, server.check, "trial")
        traffic = Traffic(Workload.model_validate(workload), ("a",), 1, seed=0)
        drive(traffic, 0, target, samples.append)
    assert len(samples) == 8
    for sample in samples:
        assert sample.arrival is not None
        assert sample.arrival.gap_ms is not None
        assert 0 <= sample.arrival.gap_ms <= (sample.arrival.longest_gap_ms or 0) < sample.ms
        assert (sample.arrival.tokens, sample.apart) == (4, 0)
        assert sample.arrival.tokens_per_s is not None


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/health").is_success
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A run whose answers name their process, which is another one each time, and whose server dies in a stream."""
    echo = {"path": "/v1/completions", "body": {"input": "x"}}
    cut_off = {"path": "/v1/chat/completions", "body": {"stream": True, "die": 2}}
    requests = [echo, {**echo, "body": {"input": "y"}, "agree": False}, cut_off]
    return run(tmp_path_factory.mktemp("troubled"), requests=requests, strategies=["on-demand"], repetitions=1)


def test_answers_that_differ_are_told_unless_only_their_status_counts(troubled: Done) -> None:
    folder, done = troubled
    assert done.returncode == 1
    assert "the answers differ: to text or request 1 for 'chat', on-demand gives another answer" in done.stdout
    assert not read_json(folder / "summary.json")["trials"][0]["labels_agree"]
    assert len((folder / "answers.jsonl").read_text().splitlines()) == 1  # of that request


@pytest.mark.slow
def test_a_server_that_dies_fails_its_request_and_not_the_trial(troubled: Done) -> None:
    by_text = {sample.text: sample for sample in samples_of(troubled[0])}
    assert [by_text[text].status for text in range(3)] == [200, 200, 0]
    assert "the connection broke" in str(by_text[2].error)
    assert "with an error: the connection broke" in troubled[1].stdout


def test_a_plan_takes_the_times_that_were_measured(asked: Done, tmp_path: Path) -> None:
    values = {"name": "ahead", "profile": str(asked[0]), "workload": {"open": {"rate": "10/h", "requests": 100}}}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(values))
    done = run_here("plan", str(tmp_path / "plan.yaml"), "--output", str(tmp_path))
    assert done.returncode == 0, done.stderr
    plan = read_json(only_folder(tmp_path, "ahead") / "plan.json")
    assert plan["theory"][0]["cold_start_ms"] > 10
    assert "(chat 2), each in a time that was measured" in done.stdout


@pytest.mark.slow
def test_a_real_chat_model_pays_to_be_kept_from_some_rate_on(tmp_path: Path) -> None:
    path = str(ROOT / "experiments" / "chat.yaml")
    done = run_here(path, "--repeats", "1", "--repetitions", "1", "--output", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    samples = samples_of(only_folder(tmp_path, "chat"))
    assert {sample.apart for sample in samples} == {0}
    assert all(sample.arrival and sample.arrival.tokens for sample in samples)
    assert all("load" in sample.timing for sample in samples)
    assert "requests an hour, and on-demand costs less below that rate" in done.stdout


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"requests": None}, "texts: is required, unless there are 'requests'."),
        ({"texts": ["a"]}, "requests: cannot be used with 'texts'; leave one of them out."),
        ({"requests": None, "texts": ["a"]}, "models.chat: is an engine, to which texts mean nothing"),
        ({"requests": "hello"}, r"requests: must be a list of {path, body}, or {chat: \[prompts\]}"),
        ({"requests": [{"path": "v1", "body": {}}]}, "path"),
    ],
)
def test_what_cannot_be_asked_is_a_sentence(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(YamlError, match=sentence):
        load_experiment(Path(experiment(tmp_path, **changes)))


def test_a_dry_run_starts_nothing_and_names_the_command(tmp_path: Path) -> None:
    marker = tmp_path / "started"
    model = {"run": f"{sys.executable} -c 'open({str(marker)!r}, chr(119))' ${{port}}"}
    done = run_here(experiment(tmp_path, models={"chat": model}), "--dry-run")
    assert done.returncode == 0, done.stderr
    assert f"model chat: run: {model['run']}, an engine" in done.stdout
    assert not marker.exists()
