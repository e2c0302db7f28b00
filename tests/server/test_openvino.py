"""Checkpoints that OpenVINO has compiled answer as the stock loader does, and what happens where it cannot."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from core.loaders.onnxruntime.conversion import ensure_converted
from core.loaders.openvino.compile import compile_checkpoint
from core.loaders.openvino.compiled import Compiled, compiled_files
from core.loaders.openvino.loader import OpenVinoLoader
from core.loaders.transformers import TransformersLoader
from tests.helpers.architectures import build
from tests.helpers.support import convert, in_threads, run_python

TEXTS = ["a good film", "", "the worst thing I have ever seen, not worth the money " * 5, "a great cast"]
MISSING = """
import sys
from importlib.machinery import PathFinder

class Installed(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.startswith("openvino") else PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Installed
import core.app
core.app.create_app()
"""


def scores(model: Any, *texts: str) -> list[list[float]]:
    return [[score for _, score in prediction.scores] for prediction in model.predict(texts)]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own."""
    monkeypatch.setenv("RESIDENCY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("model_type", ["bert", "roberta", "gpt2"])
def test_answers_as_the_stock_loader_does(model_type: str, tmp_path: Path) -> None:
    directory = build(tmp_path / "model", model_type)
    convert(directory)
    compiled = Compiled(directory, ensure_converted(directory), "float32")
    compiled.make(compile_checkpoint)
    assert compiled_files(directory, "float32") == [compiled.blob]  # what a cold page cache does not hold
    model, stock = OpenVinoLoader().load(directory), TransformersLoader().load(directory)
    assert (model.loaded_by, model.dtype) == ("openvino", "float32")
    expected = scores(stock, *TEXTS)
    assert scores(model, *TEXTS) == [pytest.approx(each, abs=1e-4) for each in expected]
    assert [scores(model, text)[0] for text in TEXTS] == [pytest.approx(each, abs=1e-4) for each in expected]
    for found in in_threads(4, lambda _: scores(model, *TEXTS)):
        assert found == [pytest.approx(each, abs=1e-4) for each in expected]
    model.close()
    with pytest.raises(RuntimeError, match="closed"):
        model.predict(TEXTS)


def test_is_compiled_once(embedded_directory: Path, cache: Path) -> None:
    model = OpenVinoLoader().load(embedded_directory)
    assert [prediction.label for prediction in model.predict(["I love it."])] == ["POSITIVE"]
    [blob] = (cache / "onnx").glob("openvino-float32-*/blob")
    before = blob.stat().st_mtime_ns
    script = f"""
from pathlib import Path
from core.loaders.openvino.loader import OpenVinoLoader
print(OpenVinoLoader().load(Path({str(embedded_directory)!r})).predict(["I love it."])[0].label)
"""
    done = run_python("-c", script)
    assert done.stdout.strip() == "POSITIVE", done.stderr
    assert blob.stat().st_mtime_ns == before


def test_int8_is_another_model_that_mostly_agrees(embedded_directory: Path, cache: Path) -> None:
    texts = [f"{first} {second}" for first in ("I loved", "I hated", "We saw") for second in ("it.", "every minute.")]
    model = OpenVinoLoader(dtype="int8").load(embedded_directory)
    stock = TransformersLoader().load(embedded_directory)
    assert (model.loaded_by, model.dtype) == ("openvino", "int8")
    assert [each.label for each in model.predict(texts)] == [each.label for each in stock.predict(texts)]


def test_what_cannot_be_converted_is_loaded_by_the_next_loader(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = build(tmp_path / "model", "longformer")
    convert(directory)
    with caplog.at_level(logging.WARNING, "residency"):
        model: Any = OpenVinoLoader().load(directory)
    assert (model.loaded_by, model.dtype) == ("mapped", "float32")
    assert "uses 'mapped'" in caplog.text


def test_without_the_package_the_loader_is_refused_in_a_sentence(tmp_path: Path) -> None:
    variables = {"RESIDENCY_STRATEGIES": "[{strategy: persistent, loader: openvino}]"}
    script = f"{MISSING}\nfrom core.plugins import load_plugins\nload_plugins().loader('openvino').cls()"
    done = run_python("-c", script, variables=variables)
    assert "PluginError: the loader 'openvino' needs OpenVINO: pip install 'residency[openvino]'" in done.stderr
