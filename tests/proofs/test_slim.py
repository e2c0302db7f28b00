"""A server in an environment that has nothing but requirements/serve.txt: no torch, no transformers, no SciPy."""

from __future__ import annotations

import json
import re
import subprocess
import venv
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import httpx
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.helpers.architectures import build
from tests.helpers.support import ROOT, convert, run_python, uvicorn, wait_for

REQUIREMENTS = ROOT / "requirements" / "serve.txt"
TEXT = {"text": "I absolutely love this product."}
BLOCK = """
import sys
from importlib.machinery import PathFinder

BLOCKED = {blocked!r}

class Installed(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in BLOCKED else PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Installed
"""


def required() -> set[str]:
    """The distributions that the file brings, by name."""
    lines = [line.partition("#")[0].strip() for line in REQUIREMENTS.read_text().splitlines()]
    left = [Requirement(line) for line in lines if line]
    found: set[str] = set()
    while left:
        requirement = left.pop()
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        try:
            left += map(Requirement, requires(name) or [])
        except PackageNotFoundError:  # for another system
            continue
    return found


@pytest.fixture(scope="module")
def slim(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables under which Python finds no module of any other distribution."""
    allowed = required()
    blocked = {
        module
        for module, distributions in packages_distributions().items()
        if allowed.isdisjoint(map(canonicalize_name, distributions)) and "residency" not in distributions
    }
    assert blocked >= {"torch", "transformers", "scipy", "onnx", "aiohttp", "matplotlib", "tabulate", "httpx", "jinja2"}
    folder = tmp_path_factory.mktemp("slim")
    (folder / "sitecustomize.py").write_text(BLOCK.format(blocked=blocked))
    return {"PYTHONPATH": f"{folder}:{ROOT}"}


def ask(client: httpx.Client, route: str, model: str) -> str:
    answer = client.post(route, json=TEXT | {"model": model})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["predictions"][0]["label"])


def test_serves_what_needs_no_torch_and_says_how_to_convert_the_rest(slim: dict[str, str], tmp_path: Path) -> None:
    converted, other = build(tmp_path / "converted", "bert"), build(tmp_path / "other", "electra", hidden_size=48)
    convert(converted)
    settings = {
        "RESIDENCY_MODELS": json.dumps({"embedded": "embedded", "converted": str(converted), "other": str(other)}),
        "RESIDENCY_STRATEGIES": "persistent, on-demand, lru-cached, keep-alive",
    }
    with uvicorn(tmp_path / "log", variables=slim | settings) as client:
        for route in ("/predict", "/predict-on-demand", "/predict-lru-cached", "/predict-keep-alive"):
            assert ask(client, route, "embedded") == "POSITIVE"
            assert ask(client, route, "converted").startswith("LABEL_")
            refused = client.post(route, json=TEXT | {"model": "other"})
            assert refused.status_code == 503
            assert "python runner.py convert" in refused.json()["detail"]
        wait_for(lambda: bool(client.get("/readyz").json()["checked"]))
        assert {each["model"] for each in client.get("/readyz").json()["unavailable"]} == {"other"}
        loaders = {used["loader"] for each in client.get("/strategies").json()["strategies"] for used in each["used"]}
        assert loaders == {"onnxruntime"}


def test_a_loader_that_needs_torch_says_so(slim: dict[str, str]) -> None:
    done = run_python("-c", "import core.app; core.app.create_app()", variables=slim)
    assert done.returncode == 0, done.stderr
    script = "from core.loaders.mapped.loader import MappedLoader; MappedLoader()"
    done = run_python("-c", script, variables=slim)
    assert "No module named 'torch'" in done.stderr


@pytest.mark.slow
def test_checkpoints_are_converted_by_hand(tmp_path: Path) -> None:
    directory = build(tmp_path / "model", "bert")
    cache = {"RESIDENCY_CACHE": str(tmp_path / "cache")}
    (tmp_path / "nothing").mkdir()
    done = run_python("runner.py", "convert", str(tmp_path / "nothing"), str(directory), variables=cache)
    assert done.returncode == 1
    assert re.search(r"^error: .*nothing: .* has no config.json\.$", done.stderr, re.MULTILINE), done.stderr
    assert f"{directory}: its graph is {tmp_path / 'cache' / 'onnx' / 'graph-'}" in done.stdout


@pytest.mark.slow
def test_the_requirements_can_be_installed_and_serve(tmp_path: Path) -> None:
    """In a real environment, as a container has it."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "-q", "-r", REQUIREMENTS], check=True)
    with uvicorn(tmp_path / "log", variables={"PYTHONPATH": str(ROOT)}, python=python) as client:
        for route in ("/predict", "/predict-on-demand", "/predict-lru-cached", "/predict-keep-alive"):
            assert ask(client, route, "embedded") == "POSITIVE"
