"""Checkpoints as graphs: converted once, checked, shared, packed, quantized; and what happens where that fails."""

from __future__ import annotations

import gc
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.numpy import load_file, save_file

from core.checkpoints import checkpoint
from core.checkpoints.arrays import MappedArrays
from core.errors import ModelReferenceError
from core.loaders.onnxruntime import conversion, facts
from core.loaders.onnxruntime.export import check_no_weights, compare, is_shortage
from core.loaders.onnxruntime.loader import OnnxRuntimeLoader
from core.loaders.onnxruntime.network import BoundNetwork, SwitchingNetwork
from core.loaders.onnxruntime.packed import Gain, Packed
from core.loaders.onnxruntime.session import new_session
from core.loaders.shared_cache import count_entries
from core.loaders.transformers import TransformersLoader
from tests.helpers.architectures import build
from tests.helpers.support import ROOT, convert, in_threads, run_python, wait_for

TEXTS = ["a good film", "the worst thing I have ever seen, not worth the money", "a great cast"]
POSITIVE = "A wonderful, moving and honest film."


def scores(model: Any, *texts: str) -> Any:
    return np.array([[score for _, score in prediction.scores] for prediction in model.predict(texts)])


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own."""
    monkeypatch.setenv("RESIDENCY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def converted_bert(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint, and the cache that holds what it is converted to."""
    folder = tmp_path_factory.mktemp("bert")
    directory = build(folder / "model", "bert")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESIDENCY_CACHE", str(folder / "cache"))
        convert(directory)
    return directory, folder / "cache"


@pytest.fixture
def bert(converted_bert: tuple[Path, Path], cache: Path) -> Path:
    """A checkpoint that is converted already in this test's cache."""
    directory, converted = converted_bert
    shutil.copytree(converted, cache)
    return directory


def other_weights(directory: Path, target: Path) -> Path:
    """A checkpoint of the same architecture, as another fine-tuning leaves it."""
    shutil.copytree(directory, target)
    file = target / checkpoint.WEIGHTS
    tensors = load_file(file)
    rng = np.random.default_rng(1)
    moved = {name: array + rng.normal(0, 0.05, array.shape).astype(array.dtype) for name, array in tensors.items()}
    save_file(moved, file, metadata={"format": "pt"})
    return target


def test_fine_tuned_models_share_graph_and_session(bert: Path, tmp_path: Path, cache: Path) -> None:
    made = count_entries()
    second = other_weights(bert, tmp_path / "second")
    assert conversion.find_converted(second) is not None  # with nothing exported
    loader, stock = OnnxRuntimeLoader(), TransformersLoader()
    models = [loader.load(directory) for directory in (bert, second)]
    for directory, model in zip((bert, second), models, strict=True):
        assert model.loaded_by == "onnxruntime"
        assert scores(model, *TEXTS) == pytest.approx(scores(stock.load(directory), *TEXTS), abs=1e-5)
    one, other = (scores(model, TEXTS[0]) for model in models)
    assert not np.allclose(one, other, atol=1e-3)
    for name in ("sessions", "tokenizers"):
        assert count_entries()[name].made - made.get(name, (0, 0, 0))[2] == 1
    # Nothing lies beside the user's checkpoints but what the architecture and the tokenizer need.
    assert sum(file.stat().st_size for file in (cache / "onnx").rglob("*") if file.is_file()) < 1e6


@pytest.mark.slow  # that one of several processes writes is tested for the cache itself, in test_references.py
def test_two_processes_that_convert_at_a_time_make_one_graph(tmp_path: Path, cache: Path) -> None:
    directory = build(tmp_path / "model", "distilbert")
    assert in_threads(2, lambda _: conversion.ensure_converted(directory)) == [conversion.find_converted(directory)] * 2
    assert [path.name.split("-")[0] for path in sorted((cache / "onnx").iterdir()) if not path.suffix] == [
        "graph",
        "tokenizer",
    ]


def test_a_conversion_that_is_killed_leaves_nothing_and_is_done_again(tmp_path: Path, cache: Path) -> None:
    directory = build(tmp_path / "model", "bert")
    command = [sys.executable, "-m", "core.loaders.onnxruntime.export", str(directory)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    wait_for(lambda: any((cache / "onnx").glob("*.partial")))
    process.kill()
    process.wait()
    convert(directory)
    assert conversion.find_converted(directory) is not None
    assert not list((cache / "onnx").glob("*.partial"))


@pytest.mark.parametrize("kind", ["tokenizer", pytest.param("graph", marks=pytest.mark.slow)])
def test_facts_that_are_broken_are_made_anew(kind: str, bert: Path, cache: Path) -> None:
    [broken] = (cache / "onnx").glob(f"{kind}-*/facts.json")
    broken.write_text('{"inputs": [')
    assert conversion.find_converted(bert) is None
    convert(bert)
    assert conversion.find_converted(bert) is not None


@pytest.mark.parametrize("folder", ["", "onnx"])
def test_a_cache_that_others_can_write_to_is_not_used(
    folder: str, bert: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (cache / folder).chmod(0o777)
    with caplog.at_level(logging.WARNING, "residency"):
        model: Any = OnnxRuntimeLoader().load(bert)
    assert model.loaded_by == "mapped"
    [told] = [record.getMessage() for record in caplog.records if "'onnxruntime'" in record.getMessage()]
    assert "others can write to the cache" in told
    assert "chmod 700" in told


def test_a_graph_that_answers_otherwise_is_refused() -> None:
    logits = [np.array([[0.1, -0.2]], np.float32), np.array([[2.0, -1.0]], np.float32)]
    compare(logits, [each + np.float32(1e-5) for each in logits])
    for wrong in ([logits[0], logits[1] + 0.02], [logits[0] * np.nan, logits[1]], [logits[0][:, :1], logits[1]]):
        with pytest.raises(ModelReferenceError, match="gives other answers"):
            compare(logits, wrong)


def test_a_graph_that_holds_a_weight_is_refused() -> None:
    """It would be shared with checkpoints that have another one."""
    module = torch.nn.Linear(3, 2)
    weight, other = module.weight.detach().numpy(), np.zeros((2, 3), np.float32)
    for array, refused in ((other, False), (weight, True)):
        initializer = onnx.numpy_helper.from_array(array, "a name that the exporter gave it")
        model = onnx.helper.make_model(onnx.helper.make_graph([], "graph", [], [], [initializer]))
        with pytest.raises(ModelReferenceError, match="holds the weight weight") if refused else nullcontext():
            check_no_weights(model, module)


@pytest.mark.slow
def test_what_cannot_be_converted_is_told_once_and_tried_once(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = build(tmp_path / "model", "longformer")
    convert(directory)
    loader = OnnxRuntimeLoader()
    with caplog.at_level(logging.INFO, "residency"):
        for _ in range(3):
            model: Any = loader.load(directory)
            assert (model.loaded_by, model.dtype) == ("mapped", "float32")
            model.close()
    assert [record.levelname for record in caplog.records if "'onnxruntime'" in record.getMessage()] == ["WARNING"]
    assert not [record for record in caplog.records if record.getMessage().startswith("Converting")]


@pytest.mark.slow
def test_weights_that_are_converted_while_loading_are_kept_for_each_checkpoint(tmp_path: Path, cache: Path) -> None:
    first = build(tmp_path / "first", "esm")
    second = build(tmp_path / "second", "esm", seed=1)
    loader, stock = OnnxRuntimeLoader(pack=False), TransformersLoader()
    for directory in (first, second):
        convert(directory)
        model = loader.load(directory)
        assert model.loaded_by == "onnxruntime"
        assert scores(model, *TEXTS) == pytest.approx(scores(stock.load(directory), *TEXTS), abs=1e-5)
    assert len(list((cache / "onnx").glob("weights-*[!k]"))) == 2


def test_packed_weights_give_the_same_answers(bert: Path) -> None:
    expected = scores(OnnxRuntimeLoader(pack=False).load(bert), *TEXTS)
    model = OnnxRuntimeLoader(pack=True).load(bert)
    assert scores(model, *TEXTS) == pytest.approx(expected, abs=1e-5)
    packed = Packed(bert, conversion.ensure_converted(bert), "float32")
    assert packed.exists
    assert min(packed.gain().__dict__.values()) > 0


@pytest.mark.parametrize("is_faster", [True, False])
def test_a_model_that_stays_is_packed_if_that_pays(is_faster: bool, bert: Path) -> None:
    packed = Packed(bert, conversion.ensure_converted(bert), "float32")
    packed.make()
    gain = {"load_seconds": 3.0, "bound_seconds": 2.0, "packed_seconds": 1.0 if is_faster else 2.0}
    (packed.directory / facts.FACTS).write_text(json.dumps(gain))
    gc.collect()  # what exports in other tests leave behind maps the checkpoint
    assert not is_mapped(bert)
    loader = OnnxRuntimeLoader()
    model = loader.load(bert)
    expected = scores(model, *TEXTS)
    assert not is_mapped(packed.directory)
    for _ in range(3):  # the third pays for the load
        assert scores(model, *TEXTS) == pytest.approx(expected, abs=1e-5)
    if is_faster:
        wait_for(lambda: is_mapped(packed.directory))
    assert scores(model, *TEXTS) == pytest.approx(expected, abs=1e-5)
    assert is_mapped(packed.directory) == is_faster
    model.close()
    assert not is_mapped(packed.directory)
    assert not is_mapped(bert)


def is_mapped(folder: Path) -> bool:
    return str(folder) in Path("/proc/self/maps").read_text()


def test_a_model_may_be_closed_while_it_is_packed(bert: Path) -> None:
    found = conversion.ensure_converted(bert)
    graph = found.graph.directory / facts.GRAPH
    closed: list[str] = []

    class Network(BoundNetwork):
        def close(self) -> None:
            closed.append("network")
            super().close()

    def make() -> Network:
        switching.close()
        return Network(new_session(graph), MappedArrays(found.weights), found.graph.facts)

    first = Network(new_session(graph), MappedArrays(found.weights), found.graph.facts)
    switching = SwitchingNetwork(first, lambda forwards: forwards == 1, make)
    rows = np.ones((1, 5), np.int64)
    switching.forward(dict.fromkeys(first.inputs, rows))
    wait_for(lambda: len(closed) == 2)
    with pytest.raises(RuntimeError, match="closed"):
        switching.forward(dict.fromkeys(first.inputs, rows))


def test_packing_is_due_when_waiting_has_cost_as_much() -> None:
    gain = Gain(load_seconds=0.03, bound_seconds=0.004, packed_seconds=0.003)
    assert [gain.is_due(forwards) for forwards in (1, 29, 31)] == [False, False, True]
    assert not Gain(0.03, 0.003, 0.004).is_due(10**6)


def test_int8_is_another_model_that_mostly_agrees(embedded_directory: Path, cache: Path) -> None:
    texts = [f"{first} {second}" for first in ("I loved", "I hated", "We saw") for second in ("it.", "every minute.")]
    whole, quantized = OnnxRuntimeLoader(pack=False), OnnxRuntimeLoader(dtype="int8")
    expected, model = whole.load(embedded_directory).predict(texts), quantized.load(embedded_directory)
    assert (model.dtype, model.loaded_by) == ("int8", "onnxruntime")
    assert [each.label for each in model.predict(texts)] == [each.label for each in expected]
    assert quantized.size(embedded_directory) * 4 == whole.size(embedded_directory)
    assert model.nbytes == quantized.size(embedded_directory)


def test_int8_without_packed_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="'dtype: int8' always packs weights"):
        OnnxRuntimeLoader(dtype="int8", pack=False)


MEMORY = """
import re, sys
from pathlib import Path
from core.checkpoints.references import resolve
from core.loaders.onnxruntime.loader import OnnxRuntimeLoader

def private():
    rollup = Path("/proc/self/smaps_rollup").read_text()
    return int(re.search(r"Pss_Anon:\\s+(\\d+)", rollup)[1]) / 1024

directory = resolve("embedded")
loader = OnnxRuntimeLoader(pack=False)
def load():
    model = loader.load(directory)
    model.predict(["I love it."])
    return model

models = [load()]
before = private()
models += [load() for _ in range(20)]
kept = private() - before
for model in models: model.close()
del models, model
start = private()
for _ in range(50): load().close()
print(kept / 20, (private() - start) / 50)
"""


def test_kept_models_take_no_private_memory_and_give_all_of_it_back() -> None:
    done = run_python("-c", MEMORY)
    assert done.returncode == 0, done.stderr
    kept, leaked = map(float, done.stdout.split())  # MiB for each model, and for each load
    assert kept <= 1
    assert leaked <= 0.2


def test_a_truncated_file_is_refused_before_it_is_mapped(tmp_path: Path, embedded_directory: Path) -> None:
    directory = tmp_path / "model"
    shutil.copytree(embedded_directory, directory)
    with (directory / checkpoint.WEIGHTS).open("r+b") as file:
        file.truncate(1_000_000)
    with pytest.raises(ModelReferenceError, match="not a complete safetensors file"):
        OnnxRuntimeLoader().load(directory)


def test_many_threads_get_the_same_answers(embedded_directory: Path) -> None:
    model = OnnxRuntimeLoader().load(embedded_directory)
    expected = scores(model, POSITIVE, *TEXTS)
    for found in in_threads(8, lambda _: scores(model, POSITIVE, *TEXTS)):
        assert found == pytest.approx(expected, abs=1e-6)
    model.close()


@pytest.mark.slow
def test_what_ships_is_what_the_embedded_checkpoint_is_converted_to(
    embedded_directory: Path, tmp_path: Path, cache: Path
) -> None:
    """Whoever changes the classifier, or what is kept of a graph, has to ship it anew."""
    command = ("-m", "core.loaders.onnxruntime.export", str(embedded_directory), str(tmp_path / "made"))
    done = run_python(*command, variables={"RESIDENCY_CACHE": str(cache)})
    assert json.loads(done.stdout) == {"error": ""}, done.stderr
    for kind in ("graph", "tokenizer"):
        for name in (facts.KEY, facts.FACTS):
            made, ships = ((root / kind / name).read_text() for root in (tmp_path / "made", facts.SHIPPED))
            if name == facts.FACTS:
                made, ships = (json.dumps(json.loads(text) | {"made_by": ""}) for text in (made, ships))
            assert made == ships, f"ship it anew: python -m {command[1]} {embedded_directory} {facts.SHIPPED}"


@pytest.mark.parametrize("allocate", [torch.empty, np.empty], ids=["PyTorch", "NumPy"])
def test_a_lack_of_memory_is_not_a_reason_that_lasts(allocate: Callable[[int], Any]) -> None:
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        allocate(1 << 55)
    outer = ValueError("the exporter failed")
    outer.__cause__ = caught.value
    assert is_shortage(outer)
    assert not is_shortage(ValueError("a tensor decides what is computed"))


@pytest.mark.slow
def test_one_broken_checkpoint_keeps_no_other_of_its_kind_from_being_converted(cache: Path, tmp_path: Path) -> None:
    """Of the same architecture and shapes: its labels are too few, or a weight is no number."""
    sound = build(tmp_path / "sound", "bert")
    few, spoilt = (shutil.copytree(sound, tmp_path / name) for name in ("few", "spoilt"))
    config = json.loads((few / "config.json").read_text()) | {"id2label": {"0": "a", "1": "b"}}
    config.pop("label2id")
    (few / "config.json").write_text(json.dumps(config))
    weights = load_file(spoilt / "model.safetensors")
    weights["classifier.weight"][0, 0] = np.nan
    save_file(weights, spoilt / "model.safetensors", metadata={"format": "pt"})
    for broken in (few, spoilt):
        for _ in range(2):  # the reason is remembered, of that one
            convert(broken)
            with pytest.raises(ModelReferenceError):
                OnnxRuntimeLoader(pack=False).load(broken).check()
    convert(sound)
    assert OnnxRuntimeLoader(pack=False).load(sound).loaded_by == "onnxruntime"


LARGE_BATCH = """
import os, sys
from core.system import memory
from core.system.heap import use_one_heap
use_one_heap()
from core.loaders.onnxruntime.loader import OnnxRuntimeLoader
from core.checkpoints.references import resolve
model = OnnxRuntimeLoader(pack=sys.argv[1] == "packed").load(resolve("embedded"))
held = []
for texts in (["good film"], ["a great cast " * 60] * 32):
    for _ in range(3):
        model.predict(texts)
    held.append(memory.pss_and_private(os.getpid())[1])
print(held[1] - held[0])
"""


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["mapped", "packed"])
def test_a_large_batch_leaves_no_memory_behind(weights: str) -> None:
    """The engine's would be some 60 MiB, which a server would keep for good."""
    done = run_python("-c", LARGE_BATCH, weights)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 10


@pytest.mark.slow
def test_a_full_disk_is_not_a_reason_that_lasts(bert: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [tokenizer] = (folder for folder in (cache / "onnx").glob("tokenizer-*") if folder.is_dir())
    shutil.rmtree(tokenizer)
    with monkeypatch.context() as patch:
        patch.setattr("core.checkpoints.cache.HEADROOM", 1 << 60)
        convert(bert)
        assert conversion.find_converted(bert) is None
    convert(bert)
    assert conversion.find_converted(bert) is not None
