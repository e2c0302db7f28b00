"""What loaders write once into the cache is there before the first trial begins."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from core.bench.experiment import load_experiment
from core.bench.run import prepare
from core.bench.trial import Trial
from tests.helpers.support import checkpoint_in
from tests.runner.test_runner import experiment

CONVERTS = """
import json, os, pathlib, pluggy

class Converts:
    "Writes down what it is asked to convert."
    name = "converts"
    def __init__(self, *, dtype: str = "float32"):
        self.dtype = dtype
    def size(self, checkpoint):
        return 1
    def load(self, checkpoint):
        raise AssertionError("nothing is to be loaded")
    def convert(self, checkpoint):
        with (pathlib.Path(__file__).with_name("converted")).open("a") as file:
            print(json.dumps([checkpoint.name, self.dtype, os.getpid()]), file=file)
        if checkpoint.name == "a":
            raise OSError("the disk is full")

@pluggy.HookimplMarker("residency")
def register_loaders():
    return [Converts]
"""


def test_each_loader_converts_each_checkpoint_once_in_a_process_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "converts.py").write_text(CONVERTS)
    small = {"name": "converts", "dtype": "int4"}  # which nobody else knows
    changes = {
        "plugins": ["converts.py"],
        "models": {name: str(checkpoint_in(tmp_path / name)) for name in "ab"},
        "strategies": [
            *({"strategy": name, "loader": "converts"} for name in ("persistent", "on-demand")),
            {"strategy": "on-demand", "loader": small, "label": "small"},
        ],
    }
    checkpoints, _ = prepare(load_experiment(Path(experiment(tmp_path, **changes))))
    lines = [json.loads(line) for line in (tmp_path / "converted").read_text().splitlines()]
    asked = [[name, dtype] for dtype in ("float32", "int4") for name in "ab"]
    assert [line[:2] for line in lines] == asked  # although `a` cannot be converted
    assert os.getpid() not in {pid for *_, pid in lines}
    assert [directory.name for directory in checkpoints.values()] == ["a", "b"]


def test_packed_weights_are_there_before_the_first_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And 'page_cache: cold' drops them."""
    monkeypatch.setenv("RESIDENCY_CACHE", str(tmp_path / "cache"))
    small = {"strategy": "on-demand", "loader": {"name": "onnxruntime", "dtype": "int8"}}
    path = experiment(tmp_path, plugins=[], models={"a": "embedded"}, strategies=["on-demand", small])
    plan = load_experiment(Path(path))
    checkpoints, _ = prepare(plan)
    for spec in plan.trials:
        files = list(Trial(plan, spec, checkpoints, 0).files("a"))
        assert any(f"packed-{spec.dtype}-" in str(file) for file in files)
        assert all(file.is_file() for file in files)
