"""`--dry-run` says what a run would do, and fails where the run would, without writing, loading or downloading."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

import runner
from core.bench.describe import long_run_warning
from core.bench.experiment import load_experiment
from tests.helpers.support import FAKES, ROOT, checkpoint_in, run_python


def experiment(folder: Path, **changes: Any) -> str:
    values = {"name": "x", "strategies": ["persistent", "on-demand"], "texts": ["a"]} | changes
    (folder / "x.yaml").write_text("# Is it?\n" + yaml.safe_dump(values))
    return str(folder / "x.yaml")


def test_it_says_where_each_model_comes_from_and_writes_none(tmp_path: Path) -> None:
    checkpoint_in(tmp_path / "local")
    models = {"here": "./local", "own": "embedded", "made": "synthetic:bert-large"}
    cache = {"RESIDENCY_CACHE": str(tmp_path / "cache")}
    script = (
        f"import sys, runner; status = runner.main([{experiment(tmp_path, models=models)!r}, '--dry-run'])\n"
        "sys.exit(status or (9 if 'torch' in sys.modules else 0))"
    )
    done = run_python("-c", script, variables=cache | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert f"model here: {tmp_path / 'local'}, on this machine" in done.stdout
    assert "model made: synthetic:bert-large, written to the cache by the first run, 1278 MiB" in done.stdout
    assert "model own: embedded, in this repository" in done.stdout
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("/no/such/place", "Model 'a': There is no checkpoint directory /no/such/place."),
        ("./empty", "Model 'a': "),
        ("synthetic:nothing", "There is no 'synthetic:nothing'."),
        ("nonsense", "'nonsense' is not a model reference"),
    ],
)
def test_a_model_that_is_not_there_fails_now(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str, sentence: str
) -> None:
    (tmp_path / "empty").mkdir()
    path = experiment(tmp_path, models={"a": "embedded"})
    assert runner.main([path, "--model", f"a={model}", "--dry-run"]) == 2
    assert sentence in capsys.readouterr().err


@contextmanager
def hub(status: int, error: str = "") -> Iterator[str]:
    """A hub that answers every question about a model so."""

    class Answers(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.end_headers()

        def do_GET(self) -> None:
            body = json.dumps({"id": "org/name", "modelId": "org/name", "siblings": []}).encode()
            self.send_response(status)
            self.send_header("X-Error-Code", error)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("answer", "status", "sentence"),
    [
        ((200, ""), 0, "model a: org/name, downloaded from the hub by the first run"),
        ((404, "RepoNotFound"), 2, "The hub has no 'org/name'; check the spelling"),
        ((403, "GatedRepo"), 2, "The hub gives access to 'org/name' to approved users only"),
    ],
)
def test_a_hub_is_asked(tmp_path: Path, answer: tuple[int, str], status: int, sentence: str) -> None:
    path = experiment(tmp_path, models={"a": "org/name"})
    with hub(*answer) as address:
        variables = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "0"}
        done = run_python(str(ROOT / "runner.py"), path, "--dry-run", variables=variables)
    assert (done.returncode, sentence in done.stdout + done.stderr) == (status, True), done.stdout + done.stderr


@pytest.mark.slow
def test_a_hub_that_does_not_answer_is_a_sentence(tmp_path: Path) -> None:
    path = experiment(tmp_path, models={"a": "org/name"})
    variables = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    done = run_python(str(ROOT / "runner.py"), path, "--dry-run", variables=variables)
    assert (done.returncode, "there is no copy on this machine" in done.stderr) == (2, True), done.stderr


def test_a_model_that_the_experiment_does_not_have_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = experiment(tmp_path, models={"first": "embedded", "second": "embedded"})
    assert runner.main([path, "--model", "frist=embedded", "--dry-run"]) == 2
    assert "--model: this experiment has no model 'frist'. It has: first, second." in capsys.readouterr().err


def test_a_long_run_is_told_and_so_is_the_shorter_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = experiment(tmp_path, workload={"open": {"rate": "1/min", "duration": "2h"}}, repeats=5)
    assert runner.main([path, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "in 2 h each: about 1200 requests, 20 h of traffic." in said
    assert "This run takes about 20 h: 10 trials with 2 h of traffic each. To save time, " in said
    assert "with the command 'plan'" in said
    plan = load_experiment(Path(path))
    assert long_run_warning(plan, 1)  # as where a run goes on
    assert long_run_warning(plan, 0) is None
    assert long_run_warning(load_experiment(Path(experiment(tmp_path))), 1000) is None  # nobody knows how long


def test_it_is_told_before_the_run_begins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The server cannot start, so that the hours are not spent."""
    changes = {
        "plugins": [FAKES],
        "models": {"a": str(checkpoint_in(tmp_path / "a"))},
        "strategies": [{"strategy": "lru-cached", "loader": "fake", "options": {"memory_budget": 1}}],
        "workload": {"open": {"rate": "1/min", "duration": "90min"}},
        "repeats": 1,
    }
    path = experiment(tmp_path, **changes)
    assert runner.main([path, "--output", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert said.index("This run takes about 1 h 30 min") < said.index("cannot start")


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert (runner.main(["--version"]), capsys.readouterr().out) == (0, "residency 0.1.0\n")
