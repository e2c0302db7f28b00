"""One list says which files belong to a checkpoint; all that reads, copies, digests or caches goes by it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from core.checkpoints import checkpoint
from core.checkpoints.dtypes import convert_dtype
from core.errors import ModelReferenceError
from core.loaders.mapped.loader import MappedLoader
from core.loaders.transformers import TransformersLoader
from tests.helpers.architectures import build
from tests.helpers.support import run_python

TEXT = "a good film"
TOKENIZERS = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "vocab.txt", "merges.txt", "bpe.codes", "vocab.bpe", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
    "spm.model", "source.spm", "prophetnet.tokenizer", "entity_vocab.json", "dict.txt", "tekken.json",
)  # fmt: skip
OTHERS = (
    "pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "model.onnx", "model.gguf", "adapter_model.safetensors",
    "consolidated.safetensors", "README.md", "LICENSE", ".gitattributes", "modeling_mine.py", "training_args.bin",
    "optimizer.pt", "trainer_state.json",
)  # fmt: skip


def scores(loader: Any, directory: Path) -> dict[str, float]:
    model = loader.load(directory)
    [prediction] = model.predict([TEXT])
    model.close()
    return dict(prediction.scores)


def near(expected: dict[str, float]) -> Any:
    return pytest.approx(expected, abs=1e-5)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return build(tmp_path / "model", "roberta")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "model-00001-of-00002.safetensors", *TOKENIZERS])
def test_belongs_to_a_checkpoint(name: str) -> None:
    assert checkpoint.is_part(name)


@pytest.mark.parametrize("name", OTHERS)
def test_lies_beside_a_checkpoint(name: str) -> None:
    assert not checkpoint.is_part(name)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_whatever_can_change_an_answer_changes_digest_and_identity(name: str, directory: Path) -> None:
    before = checkpoint.sha256(directory), checkpoint.identity(directory)
    file = directory / name
    file.write_bytes((file.read_bytes() if file.exists() else b"") + b" ")
    assert checkpoint.sha256(directory) != before[0]
    assert checkpoint.identity(directory) != before[1]
    assert checkpoint.cached_sha256(directory) == checkpoint.sha256(directory)


@pytest.mark.parametrize("name", OTHERS)
def test_what_changes_no_answer_changes_neither(name: str, directory: Path) -> None:
    before = checkpoint.sha256(directory), checkpoint.identity(directory)
    (directory / name).write_bytes(b"other")
    assert (checkpoint.sha256(directory), checkpoint.identity(directory)) == before


def test_a_conversion_copies_every_part(directory: Path) -> None:
    for name in TOKENIZERS:
        if not (directory / name).exists():
            (directory / name).write_text("{}")
    file = directory / "model.safetensors"
    save_file({name: tensor.half() for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})
    converted = convert_dtype(directory, "float32")
    assert converted != directory
    parts = [path.name for path in checkpoint.files(directory)]
    assert [path.name for path in checkpoint.files(converted)] == parts
    assert set(TOKENIZERS) < set(parts)


def test_a_file_of_same_size_and_time_is_another_one(directory: Path) -> None:
    file = directory / "tokenizer.json"
    before, status = checkpoint.identity(directory), file.stat()
    text = file.read_text()
    file.write_text(text.replace("good", "gold", 1) if "good" in text else text[::-1])
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert checkpoint.identity(directory) != before


def test_links_that_lead_nowhere_keep_nobody_from_loading(directory: Path) -> None:
    (directory / "special_tokens_map.json").unlink(missing_ok=True)
    (directory / "special_tokens_map.json").symlink_to("../nowhere")
    for loader in (TransformersLoader(), MappedLoader()):
        assert loader.load(directory).predict([TEXT])


@pytest.mark.parametrize("loader", [TransformersLoader, MappedLoader])
def test_a_tokenizer_that_changes_is_used_at_the_next_load(loader: type, directory: Path, tmp_path: Path) -> None:
    """Also where its files are links that are switched, as in the hub's cache."""
    other = build(tmp_path / "other", "roberta")
    content = json.loads((other / "tokenizer.json").read_text())
    content["model"]["merges"] = []
    (other / "tokenizer.json").write_text(json.dumps(content))
    made = loader()
    before = scores(made, directory)
    expected = scores(loader(), other)
    assert before != near(expected)
    (tmp_path / "link").symlink_to(other / "tokenizer.json")
    (tmp_path / "link").replace(directory / "tokenizer.json")
    assert scores(made, directory) == near(expected)


def test_weights_of_a_link_that_is_switched_are_loaded_next(tmp_path: Path) -> None:
    one, two = (build(tmp_path / str(seed), "bert", seed=seed) for seed in (1, 2))
    link = tmp_path / "current"
    link.symlink_to(one)
    for loader in (TransformersLoader(), MappedLoader()):
        assert scores(loader, link) == near(scores(loader, one)) != near(scores(loader, two))
        (tmp_path / "next").symlink_to(two)
        (tmp_path / "next").replace(link)
        assert scores(loader, link) == near(scores(loader, two))
        (tmp_path / "next").symlink_to(one)
        (tmp_path / "next").replace(link)


def test_an_adapter_is_refused_by_every_loader_in_any_order(directory: Path, tmp_path: Path) -> None:
    beside = build(tmp_path / "beside", "roberta")
    (beside / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "x"}')
    save_file(load_file(directory / "model.safetensors"), beside / "adapter_model.safetensors")
    for loader in (TransformersLoader(), MappedLoader()):
        loader.load(directory)
        with pytest.raises(ModelReferenceError, match=r"adapter .* beside the weights.* Merge it"):
            loader.load(beside)
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelReferenceError, match=r"adapter .* and no model"):
        checkpoint.check(alone)


@contextmanager
def hub(repository: Path) -> Iterator[tuple[str, list[str]]]:
    """A hub with one repository, org/name, on loopback: its address, and the files that were fetched from it."""
    fetched: list[str] = []
    commit = "0123456789abcdef0123456789abcdef01234567"
    names = [str(path.relative_to(repository)) for path in sorted(repository.rglob("*")) if path.is_file()]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path.startswith("/api/models/org/name"):
                told = {"id": "org/name", "sha": commit, "siblings": [{"rfilename": name} for name in names]}
                if "/tree/" in path:
                    told = [{"type": "file", "path": n, "size": 1, "oid": n} for n in names]  # type: ignore[assignment]
                self._answer(json.dumps(told).encode(), {"Content-Type": "application/json"})
            elif "/resolve/" in path:
                name = path.partition("/resolve/")[2].partition("/")[2]
                if self.command == "GET":
                    fetched.append(name)
                self._answer((repository / name).read_bytes(), {"X-Repo-Commit": commit, "ETag": f'"{name}"'})
            else:
                self._answer(b"", {})

        def _answer(self, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(200)
            for key, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", fetched
    finally:
        server.shutdown()
        server.server_close()


def test_of_a_repository_of_the_hub_only_what_belongs_is_fetched(directory: Path, tmp_path: Path) -> None:
    for name in ("bpe.codes", "pytorch_model.bin", "README.md", "onnx/model.safetensors", "1_Other/config.json"):
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text("{}")
    modules = [{"type": "x.Transformer", "path": ""}, {"type": "x.Pooling", "path": "1_Pooling"}]
    (directory / "modules.json").write_text(json.dumps(modules))
    (directory / "1_Pooling").mkdir()
    (directory / "1_Pooling" / "config.json").write_text("{}")
    script = "import sys; from core.checkpoints.references import resolve; print(resolve(sys.argv[1]))"
    with hub(directory) as (address, fetched):
        variables = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "0"}
        done = run_python("-c", script, "org/name", variables=variables | {"HF_HUB_DISABLE_XET": "1"})
    assert done.returncode == 0, done.stderr
    parts = [path.name for path in directory.iterdir() if path.is_file() and checkpoint.is_part(path.name)]
    assert sorted(set(fetched)) == sorted([*parts, "1_Pooling/config.json"])
    assert "bpe.codes" in fetched
    found = Path(done.stdout.strip())
    assert found.parent.name == "snapshots"
    assert checkpoint.sha256(found) == checkpoint.sha256(directory)
