"""What must not be imported: a server's start is a part of a cold start, and the runner must stay lean."""

from __future__ import annotations

import json

import pytest

from tests.support import run_python

SERVE = """
from core.models.references import resolve
import core.app
core.app.create_app()
from core.plugins import load_plugins
for loader in load_plugins().loaders.values():
    made = loader.cls()
    made.prepare(resolve('embedded'))
    made.load(resolve('embedded')).predict(['I love it.'])
"""
BUILD = "import core.app; core.app.create_app()"
RUN = "import runner; runner.main(['experiments/default.yaml', '--dry-run']); runner.main(['--plugins'])"
BANNED = {
    # The whole start of a server, up to the first answer under every loader.
    SERVE: {
        "transformers.pipelines", "transformers.trainer", "transformers.models.auto.image_processing_auto",
        "scipy", "pandas", "torchvision", "tabulate", "matplotlib", "core.bench", "core.decide", "core.report",
    },
    # An app that is built and not started: a wrong setting is told at once.
    BUILD: {"torch", "transformers", "scipy"},
    # The process that measures must not map the libraries whose pages it charges to a server.
    RUN: {
        "torch", "transformers", "fastapi", "uvicorn", "uvloop", "scipy.stats", "matplotlib", "jinja2",
        "core.app", "core.serving.service",
    },
}  # fmt: skip


@pytest.mark.parametrize("script", BANNED, ids=["serving", "building the app", "the runner"])
def test_imports_only_what_it_needs(script: str) -> None:
    done = run_python("-c", f"{script}\nimport json, sys\nprint('\\n' + json.dumps(sorted(sys.modules)))")
    assert done.returncode == 0, done.stderr
    assert not set(json.loads(done.stdout.splitlines()[-1])) & BANNED[script]


@pytest.mark.slow
def test_the_start_is_compared_with_an_app_around_pipeline() -> None:
    done = run_python("experiments/start_up.py", "--rounds", "1")
    rows = done.stdout.splitlines()[2:]
    loaders = ("onnxruntime", "transformers", "mapped", "subprocess")
    assert [row.split("  ")[0] for row in rows] == ["FastAPI and pipeline()", *loaders]
    assert all(float(row.split()[-1]) > 0 for row in rows)


def test_the_comparison_with_peers_says_how_it_is_used() -> None:
    done = run_python("experiments/peers.py", "--help")
    assert done.returncode == 0, done.stderr
    assert "--peer-python" in done.stdout
    wrong = run_python("experiments/peers.py", "--only", "nobody")
    assert wrong.returncode == 2
    assert "there is no nobody; there are: bare, " in wrong.stderr
