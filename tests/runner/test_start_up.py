"""What must not be imported: a server's start is a part of a cold start, and the runner must stay lean."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from tests.helpers.support import run_python

SERVE = """
from core.checkpoints.references import resolve
import core.app
core.app.create_app()
from core.plugins import load_plugins
for loader in load_plugins().loaders.values():
    made = loader.cls()
    made.prepare(resolve('embedded'))
    made.load(resolve('embedded')).predict(['I love it.'])
"""
RUNNING = """
import threading, urllib.error, urllib.request, uvicorn
server = uvicorn.Server(uvicorn.Config("core.app:app", port=0, log_level="critical"))
thread = threading.Thread(target=server.run)
thread.start()
def ask(path, body=None):
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}{path}"
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    return urllib.request.urlopen(request).status
def is_ready():
    try:
        return server.started and ask("/readyz") == 200
    except urllib.error.HTTPError:
        return False
while not is_ready():
    pass
for route in ("/predict", "/predict-on-demand", "/predict-lru-cached", "/predict-keep-alive"):
    assert ask(route, b'{"text": "I love it."}') == 200
assert ask("/metrics") == ask("/residency") == ask("/") == 200
server.should_exit = True  # a loop that runs while the interpreter ends can crash it
thread.join()
"""
BUILD = "import core.app; core.app.create_app()"
RUN = "import runner; runner.main(['experiments/default.yaml', '--dry-run']); runner.main(['plugins'])"
LACKING = """
from experiments.peers.competitors import Competitor, missing_requirement
from core.config.choices import LoaderChoice
print(json.dumps(missing_requirement(Competitor(print, loader=LoaderChoice(name='nobody')))))
"""
RATIOS = """
from experiments.peers.compare import Figures, ratios
def rounds(count, rate, alone):  # each slower than the one before
    return {n: Figures(rate / 2**n, None, None, alone * 2**n, None, None) for n in range(count)}
print(json.dumps(ratios({
    'residency onnxruntime': rounds(3, rate=12, alone=2),
    'fastapi onnxruntime': rounds(3, rate=6, alone=1),
    'litserve onnxruntime 2 workers': rounds(2, rate=4, alone=16),
    'litserve onnxruntime 1 worker': rounds(3, rate=3, alone=8),
})))
"""
ANALYSIS = [f"core.{name}" for name in ("advice", "bench", "costs", "planning", "report", "results", "stats")]
BANNED = {
    # The whole start of a server, up to the first answer under every loader.
    SERVE: {
        "transformers.pipelines", "transformers.trainer", "transformers.models.auto.image_processing_auto",
        "scipy", "pandas", "torchvision", "tabulate", "matplotlib", *ANALYSIS,
    },
    # A running server that was asked for everything, with the default loader.
    RUNNING: {
        "torch", "transformers", "onnx", "scipy", "pandas", "tabulate", "matplotlib", "aiohttp", "jinja2", "rich",
        *ANALYSIS,
    },
    # An app that is built and not started: a wrong setting is told at once.
    BUILD: {"torch", "transformers", "scipy"},
    # The process that measures must not map the libraries whose pages it charges to a server.
    RUN: {
        "torch", "transformers", "fastapi", "uvicorn", "uvloop", "scipy.stats", "matplotlib", "jinja2",
        "core.app", "core.serving.service",
    },
}  # fmt: skip


@pytest.mark.parametrize("script", BANNED, ids=["serving", "running", "building the app", "the runner"])
def test_imports_only_what_it_needs(script: str) -> None:
    done = run_python("-c", f"{script}\nimport json, sys\nprint('\\n' + json.dumps(sorted(sys.modules)))")
    assert done.returncode == 0, done.stderr
    assert not set(json.loads(done.stdout.splitlines()[-1])) & BANNED[script]


def in_experiments(script: str) -> Any:
    """What a script that imports the experiments' own modules prints as JSON."""
    done = run_python("-c", f"import json{script}")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_the_start_is_compared_with_an_app_around_pipeline() -> None:
    done = run_python("-m", "experiments.peers.start_up", "--rounds", "1")
    rows = done.stdout.splitlines()[2:]
    loaders = ("onnxruntime", "transformers", "mapped", "subprocess")
    assert [row.split("  ")[0] for row in rows] == ["FastAPI and pipeline()", *loaders]
    assert all(float(row.split()[-1]) > 0 for row in rows)


def test_the_comparison_with_peers_says_how_it_is_used() -> None:
    done = run_python("-m", "experiments.peers", "--help")
    assert done.returncode == 0, done.stderr
    assert "--peer-python" in done.stdout
    wrong = run_python("-m", "experiments.peers", "--only", "nobody")
    assert wrong.returncode == 2
    assert "there is no nobody; there are: bare, " in wrong.stderr


def test_a_peer_that_cannot_run_here_is_left_out_in_a_sentence() -> None:
    chosen = ("--only", "litserve onnxruntime 1 worker", "--peer-python", "nowhere")
    done = run_python("-m", "experiments.peers", *chosen)
    assert done.returncode == 1
    left_out, nothing = done.stderr.splitlines()[-2:]
    assert left_out.startswith("litserve onnxruntime 1 worker is left out: there is no interpreter nowhere: ")
    assert nothing == "Nothing is left to measure."


def test_a_row_whose_loader_is_not_registered_is_left_out_in_a_sentence() -> None:
    assert in_experiments(LACKING).startswith("There is no loader 'nobody'. Known: ")


def test_ratios_are_taken_within_rounds_and_against_the_better_configuration() -> None:
    assert in_experiments(RATIOS) == [
        ["residency onnxruntime / fastapi onnxruntime", 2.0, 2.0],
        ["residency onnxruntime / litserve onnxruntime", 3.0, 0.25],
    ]


@pytest.mark.slow
def test_a_peer_on_an_engine_of_its_own_is_measured_and_compared_with_its_bare_forward() -> None:
    if not shutil.which("wrk"):
        pytest.skip("the servers are asked by wrk: apt install wrk")
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    names = ["bare onnxruntime", "bare onnxruntime int8", "fastapi onnxruntime", "fastapi onnxruntime int8"]
    done = run_python("-m", "experiments.peers", "--rounds", "1", "--seconds", "2", "--only", ",".join(names))
    assert done.returncode == 0, done.stderr
    rows = done.stdout.splitlines()[3:]
    assert [row.split("  ")[0] for row in rows] == names
    for row in rows[2:]:
        *_, first_answer, pss, ratio, _ = row.split()
        assert min(float(first_answer), float(pss), float(ratio)) > 0
