from __future__ import annotations

import json
import os
import shutil
import socket
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from core.checkpoints import cache, checkpoint
from core.checkpoints.dtypes import BYTES, supported_dtype
from core.checkpoints.header import read_header
from core.checkpoints.references import resolve, resolve_reference
from core.errors import ModelReferenceError, ResidencyError
from core.loaders.transformers import TransformersLoader
from tests.helpers.support import run_python


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESIDENCY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def copy(embedded_directory: Path, tmp_path: Path) -> Path:
    shutil.copytree(embedded_directory, tmp_path / "copy")
    return tmp_path / "copy"


def test_embedded_is_materialised_once_in_float32(own_cache: Path) -> None:
    directory = resolve("embedded")
    assert directory.parent == own_cache
    before = (directory / "model.safetensors").stat()
    assert {entry.dtype for entry in read_header(directory / "model.safetensors").values()} == {"F32"}
    assert resolve("embedded") == directory
    assert (directory / "model.safetensors").stat() == before
    assert not list(own_cache.glob("*.partial"))


def test_a_synthetic_model_has_its_true_size_and_copies_differ(own_cache: Path) -> None:
    first, second = resolve("synthetic:minilm-l6"), resolve("synthetic:minilm-l6#2")
    assert first == resolve("synthetic:minilm-l6#1")
    loader = TransformersLoader()
    assert loader.size(first) == loader.size(second) == 22_713_986 * 4
    assert checkpoint.sha256(first) != checkpoint.sha256(second)
    model = loader.load(first)
    assert model.nbytes == pytest.approx(loader.size(first), rel=1e-3)
    assert model.predict(["Works offline."])[0].label in ("NEGATIVE", "POSITIVE")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count"), [("distilbert-base", 66_955_010), ("bert-base", 109_483_778), ("bert-large", 335_143_938)]
)
def test_every_synthetic_model_has_its_true_size(name: str, count: int) -> None:
    assert checkpoint.size(resolve(f"synthetic:{name}"), 1) == count


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("synthetic:gpt-9", "Known: minilm-l6, distilbert-base"),
        ("synthetic:minilm-l6#0", "1 to 9999"),
        ("synthetic:minilm-l6#x", "1 to 9999"),
        ("nonsense", "not a model reference.*embedded, synthetic:minilm-l6"),
        ("n" * 300, "not a usable path"),
        ("/a\0b", "not a usable path"),
        ("~nobody-of-this-name/x", "not a usable path"),
        ("/no/such/folder", "no checkpoint directory /no/such/folder"),
        ("./here", "no checkpoint directory"),
        ("a/b/c", "not a model reference"),
    ],
)
def test_a_wrong_reference_says_what_there_is(reference: str, sentence: str) -> None:
    with pytest.raises(ResidencyError, match=sentence):
        resolve(reference)


def test_a_local_directory(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve(str(copy)) == copy
    monkeypatch.chdir(copy.parent)
    assert resolve("./copy") == resolve("copy") == copy
    assert resolve_reference("copy", copy.parent) == str(copy)
    assert resolve_reference("org/name@main", copy.parent) == "org/name@main"


def _index_only(folder: Path, text: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / checkpoint.INDEX).write_text(text)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "Only safetensors"),
        (lambda folder: _index_only(folder, "[]"), "not an index"),
        (lambda folder: _index_only(folder, '{"weight_map": {"a": 5}}'), "not an index"),
        (lambda folder: _index_only(folder, '{"weight_map": {"a": "b.safetensors"}}'), "not an index"),
        (lambda folder: _index_only(folder, '{"metadata": {}, "weight_map": {}}'), "not an index"),
        (
            lambda folder: _index_only(folder, '{"metadata": {}, "weight_map": {"a": "../b.safetensors"}}'),
            "not an index",
        ),
        (lambda folder: _index_only(folder, '{"metadata": {}, "weight_map": {"a": "gone.safetensors"}}'), "gone"),
    ],
)
def test_an_incomplete_directory_says_what_it_lacks(copy: Path, spoil: object, sentence: str) -> None:
    assert callable(spoil)
    spoil(copy)
    with pytest.raises(ModelReferenceError, match=sentence):
        resolve(str(copy))


def test_weights_in_two_files_count_as_one(copy: Path) -> None:
    whole = checkpoint.size(copy, 4)
    tensors = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    names = sorted(tensors)
    places = {name: f"part-{i % 2}.safetensors" for i, name in enumerate(names)}
    for part in set(places.values()):
        save_file({n: tensors[n] for n in names if places[n] == part}, copy / part, metadata={"format": "pt"})
    (copy / checkpoint.INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    assert checkpoint.size(resolve(str(copy)), 4) == whole
    assert TransformersLoader().load(copy).predict(["I love it."])[0].label == "POSITIVE"


def test_a_truncated_file_is_refused_before_it_is_loaded(copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    with pytest.raises(ModelReferenceError, match="not a complete safetensors file"):
        TransformersLoader().size(copy)


def test_a_checkpoint_without_a_tokenizer_says_what_is_missing(copy: Path) -> None:
    (copy / "tokenizer.json").unlink()
    with pytest.raises(ModelReferenceError, match=r"no .*tokenizer\.json"):
        TransformersLoader().load(copy)


def test_a_checkpoint_without_a_head_is_no_classifier(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    save_file({k: v for k, v in tensors.items() if "classifier" not in k}, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelReferenceError, match="not a trained sequence classifier"):
        TransformersLoader().load(copy)


def test_size_counts_floats_in_the_loaders_dtype(embedded_directory: Path) -> None:
    width = BYTES[supported_dtype("bfloat16")]  # float32's, on a processor that does not compute in bfloat16
    whole = TransformersLoader().size(embedded_directory)
    assert TransformersLoader(dtype="bfloat16").size(embedded_directory) * 4 == whole * width
    half = TransformersLoader(dtype="bfloat16").load(embedded_directory)
    assert half.dtype == supported_dtype("bfloat16")
    assert half.nbytes == pytest.approx(TransformersLoader(dtype="bfloat16").size(embedded_directory), rel=1e-2)
    assert half.predict(["I love it."])[0].label == "POSITIVE"


def test_an_unreachable_hub_is_given_up_with_the_offline_choices(own_cache: Path, tmp_path: Path) -> None:
    """A server that takes connections and never answers is the slowest way not to be reached."""
    script = "import sys; from core.checkpoints.references import resolve; resolve(sys.argv[1])"
    reference = "distilbert/distilbert-base-uncased-finetuned-sst-2-english"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for port in (silent.getsockname()[1], 9):
            address = f"http://127.0.0.1:{port}"
            started = time.monotonic()
            hub = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "0"}
            done = run_python("-c", script, reference, variables=hub)
            assert time.monotonic() - started < 60  # seconds are promised, minutes would be a hang
            last = done.stderr.strip().splitlines()[-1]
            assert f"cannot be reached for '{reference}'" in last
            assert "Available offline: embedded, synthetic:minilm-l6" in last


def test_the_cache_refuses_what_does_not_fit(own_cache: Path) -> None:
    with pytest.raises(ModelReferenceError, match=r"MiB are free\. Free some space, or set RESIDENCY_CACHE"):
        cache.write_once("giant", 1 << 60, lambda directory: None)


def test_an_unwritable_cache_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RESIDENCY_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelReferenceError, match="Set RESIDENCY_CACHE to a writable folder"):
        resolve("embedded")


def test_a_killed_writer_leaves_nothing_that_counts(own_cache: Path) -> None:
    partial = own_cache / "thing.partial"
    partial.mkdir(parents=True)
    (partial / "torn").touch()

    def write(directory: Path) -> None:
        assert not list(directory.iterdir())
        (directory / "whole").touch()

    assert [path.name for path in cache.write_once("thing", 0, write).iterdir()] == ["whole"]

    def fail(directory: Path) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cache.write_once("other", 0, fail)
    assert sorted(path.name for path in own_cache.iterdir() if not path.name.endswith(".lock")) == ["thing"]


def _write_with_pid(_: int) -> str:
    def write(directory: Path) -> None:
        (directory / "pid").write_text(str(os.getpid()))

    directory = cache.write_once("shared", 0, write)
    return (directory / "pid").read_text()


@pytest.mark.slow
def test_many_processes_write_it_once(own_cache: Path) -> None:
    with ProcessPoolExecutor(4, get_context("spawn")) as pool:
        writers = set(pool.map(_write_with_pid, range(16)))
    assert len(writers) == 1


def test_the_digest_is_of_the_contents(copy: Path, embedded_directory: Path) -> None:
    digest = checkpoint.sha256(embedded_directory)
    assert checkpoint.sha256(copy) == digest
    (copy / "README.md").touch()
    assert checkpoint.sha256(copy) == digest
    (copy / "config.json").write_text("{}")
    assert checkpoint.sha256(copy) != digest
    with safe_open(embedded_directory / "model.safetensors", framework="numpy") as tensors:
        assert tensors.metadata() == {"format": "pt"}
