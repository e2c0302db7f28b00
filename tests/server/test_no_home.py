"""A user without a home: neither HOME nor an entry in /etc/passwd, as under `docker run --user 12345`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from core.checkpoints.embedded import embedded_directory
from tests.helpers.support import ROOT, checkpoint_in, run_python, uvicorn

# In every Python process. What a system without the entry answers; to become such a user takes rights that not
# everybody who runs the tests has.
NOBODY = """
import os, pwd
os.environ.pop("HOME", None)
def getpwuid(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = getpwuid
"""


# What a server does with its models before it starts a strategy.
RESOLVE = """
from core.errors import ResidencyError
from core.checkpoints.references import resolve
from core.config.settings import settings_from_environment
try:
    for reference in settings_from_environment().models.values():
        print(resolve(reference))
except ResidencyError as error:
    print(error)
"""


@pytest.fixture
def nobody(tmp_path: Path) -> dict[str, str]:
    """Variables for whoever starts Python."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(NOBODY)
    none = dict.fromkeys(("RESIDENCY_CACHE", "XDG_CACHE_HOME", "HF_HOME"), "")
    return none | {"PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{ROOT}"}


def test_nobody_has_no_home(nobody: dict[str, str]) -> None:
    """Or the other tests would prove nothing."""
    done = run_python("-c", "from pathlib import Path; Path.home()", variables=nobody)
    assert "Could not determine home directory" in done.stderr


@pytest.mark.parametrize(
    ("variables", "remedy"),
    [
        ({}, "Set RESIDENCY_CACHE to"),
        ({"RESIDENCY_CACHE": "~/cache"}, "Set RESIDENCY_CACHE to"),
        ({"RESIDENCY_MODELS": "{a: synthetic:minilm-l6}"}, "Set RESIDENCY_CACHE to"),
        ({"RESIDENCY_MODELS": "{a: org/name}"}, "Set HF_HOME to a writable folder, and RESIDENCY_CACHE"),
        ({"RESIDENCY_MODELS": "{a: ~/model}"}, "'~/model' is not a usable path"),
        ({"RESIDENCY_CONFIG": "~/app.yaml"}, "'~/app.yaml' is not a usable path"),
    ],
)
def test_what_needs_a_home_is_a_sentence_with_the_remedy(
    nobody: dict[str, str], variables: dict[str, str], remedy: str
) -> None:
    done = run_python("-c", RESOLVE, variables=nobody | variables)
    assert remedy in done.stdout
    assert done.stderr == ""


def test_a_checkpoint_of_ones_own_needs_no_home(tmp_path: Path, nobody: dict[str, str]) -> None:
    mine = checkpoint_in(tmp_path / "mine")
    done = run_python("-c", RESOLVE, variables=nobody | {"RESIDENCY_MODELS": f"{{mine: {mine}}}"})
    assert (done.stdout, done.stderr) == (f"{mine}\n", "")


@pytest.mark.slow
def test_with_a_cache_the_server_works(tmp_path: Path, nobody: dict[str, str]) -> None:
    """Also in a child process."""
    chosen = "[{strategy: persistent, loader: transformers}, {strategy: on-demand, loader: subprocess}]"
    variables = {"RESIDENCY_CACHE": str(embedded_directory().parent), "RESIDENCY_STRATEGIES": chosen}
    with uvicorn(tmp_path / "log", variables=nobody | variables) as client:
        for route in ("/predict", "/predict-on-demand"):
            assert client.post(route, json={"text": "I love it."}).status_code == 200


def test_an_experiment_says_it_as_well(tmp_path: Path, nobody: dict[str, str]) -> None:
    command = ["runner.py", "experiments/default.yaml", "--output", str(tmp_path / "results")]
    done = run_python(*command, variables=nobody)
    assert done.returncode != 0
    assert "Set RESIDENCY_CACHE to" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
