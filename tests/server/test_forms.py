"""Checkpoints in every form in which people publish them answer as the pipeline does, whoever loads them."""

from __future__ import annotations

import io
import json
import logging
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
import transformers
from safetensors.torch import load_file, save_file

from core.checkpoints.dtypes import supported_dtype
from core.contracts import Loader
from core.loaders.mapped.loader import MappedLoader
from core.loaders.onnxruntime.loader import OnnxRuntimeLoader
from core.loaders.subprocess.loader import SubprocessLoader
from core.loaders.transformers import TransformersLoader
from tests.helpers.architectures import CORPUS, build
from tests.server.test_answers import check

WEIGHTS = "model.safetensors"
Form = Callable[[Path], Path | None]


@pytest.fixture(scope="module")
def loaders() -> list[Loader]:
    mapped = partial(SubprocessLoader, inner="mapped")
    kinds: list[Callable[[], Any]] = [TransformersLoader, MappedLoader, mapped, OnnxRuntimeLoader]
    return [kind() for kind in kinds]


def rewrite(directory: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    save_file(change(load_file(directory / WEIGHTS)), directory / WEIGHTS, metadata={"format": "pt"})


def half(directory: Path) -> None:
    rewrite(directory, lambda tensors: {name: tensor.half() for name, tensor in tensors.items()})
    config = json.loads((directory / "config.json").read_text())
    config["torch_dtype"] = "float16"  # as older versions name it
    config.pop("dtype", None)
    (directory / "config.json").write_text(json.dumps(config))


def bfloat16(directory: Path) -> None:
    rewrite(directory, lambda tensors: {name: tensor.bfloat16() for name, tensor in tensors.items()})


def sharded(directory: Path) -> None:
    classes: Any = transformers.AutoModelForSequenceClassification
    module = classes.from_pretrained(directory)
    (directory / WEIGHTS).unlink()
    module.save_pretrained(directory, max_shard_size="50KB")
    assert not (directory / WEIGHTS).exists()


def unaligned(directory: Path) -> None:
    """A header that is no multiple of eight bytes long, which the format allows."""
    content = (directory / WEIGHTS).read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length].rstrip()
    header += b" " * ((1 - len(header)) % 4)
    (directory / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])


def with_tensor(dtype: torch.dtype) -> Form:
    def add(directory: Path) -> None:
        rewrite(directory, lambda tensors: tensors | {"unused": torch.zeros(8).to(dtype)})

    return add


def older_names(directory: Path) -> None:
    names = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}

    def rename(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        renamed = dict(tensors)
        for name in tensors:
            for new, old in names.items():
                if name.endswith(new):
                    renamed[name.removesuffix(new) + old] = renamed.pop(name)
        return renamed | {"bert.embeddings.position_ids": torch.arange(66)[None]}

    rewrite(directory, rename)


def linked(directory: Path) -> Path:
    """As in the hub's cache: each file of a snapshot is a link to a blob."""
    blobs, snapshot = directory.parent / "blobs", directory.parent / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    directory.rename(blobs)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    return snapshot


def dead_link(directory: Path) -> None:
    (directory / "chat_template.jinja").symlink_to("../nowhere")


def odd_name(directory: Path) -> Path:
    return directory.rename(directory.with_name("mödèl of 100% 'ours'"))


def bert_vocabulary(directory: Path) -> None:
    """No tokenizer.json: a list of words."""
    (directory / "tokenizer.json").unlink()
    words = sorted({word for text in CORPUS for word in text.lower().replace(".", "").split()})
    letters = [c for letter in "abcdefghijklmnopqrstuvwxyz.," for c in (letter, f"##{letter}")]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (directory / "vocab.txt").write_text("\n".join([*special, *words, *letters]))
    (directory / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))


def phobert(directory: Path) -> None:
    """vocab.txt and bpe.codes, as PhoBERT and BERTweet have them."""
    (directory / "tokenizer.json").unlink()
    words = sorted({word for text in CORPUS for word in text.replace(".", "").split()})
    pieces = sorted({c + "@@" for word in words for c in word} | {c for word in words for c in word})
    (directory / "vocab.txt").write_text("".join(f"{piece} 1\n" for piece in [*words, *pieces]))
    (directory / "bpe.codes").write_text("l o 5\nlo v 4\nlov e</w> 3\n")
    settings = {"tokenizer_class": "PhobertTokenizer", "model_max_length": 64}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))


def spm_only(directory: Path) -> None:
    """A sentencepiece model and nothing else, as DeBERTa-v3 is published."""
    (directory / "tokenizer.json").unlink()
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 20), model_writer=model, vocab_size=80, hard_vocab_limit=False,
        pad_id=0, unk_id=1, bos_id=2, eos_id=3, user_defined_symbols=["[CLS]", "[SEP]", "[MASK]"],
        minloglevel=2,
    )  # fmt: skip
    (directory / "spm.model").write_bytes(model.getvalue())
    settings = {"tokenizer_class": "DebertaV2Tokenizer", "vocab_type": "spm"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))


FORMS: dict[str, tuple[str, int, Form]] = {
    "half precision": ("bert", 66, half),
    "bfloat16": ("bert", 66, bfloat16),
    "in several files": ("bert", 66, sharded),
    "an unaligned header": ("bert", 66, unaligned),
    "with an U16": ("bert", 66, with_tensor(torch.uint16)),
    "with an U32": ("bert", 66, with_tensor(torch.uint32)),
    "with an U64": ("bert", 66, with_tensor(torch.uint64)),
    "with an F8_E4M3": ("bert", 66, with_tensor(torch.float8_e4m3fn)),
    "with an F8_E5M2": ("bert", 66, with_tensor(torch.float8_e5m2)),
    "with a C64": ("bert", 66, with_tensor(torch.complex64)),
    "older names": ("bert", 66, older_names),
    "links": ("bert", 66, linked),
    "a dead link": ("bert", 66, dead_link),
    "an odd name": ("bert", 66, odd_name),
    "a list of words": ("bert", 66, bert_vocabulary),
    "bpe.codes": ("roberta", 64, phobert),
    "sentencepiece": ("deberta-v2", 66, spm_only),
}


OF_ANOTHER_SIZE = ("with an U32", "with an U64", "with an F8_E5M2", "with a C64")  # like those before them


@pytest.mark.parametrize(
    "form", [pytest.param(form, marks=[pytest.mark.slow] if form in OF_ANOTHER_SIZE else []) for form in FORMS]
)
def test_a_form_answers_as_the_pipeline_does(form: str, tmp_path: Path, loaders: list[Loader]) -> None:
    model_type, limit, change = FORMS[form]
    directory = build(tmp_path / "model", model_type)
    check(change(directory) or directory, loaders, limit)


def test_what_cannot_be_mapped_is_loaded_the_stock_way_with_one_warning(
    tmp_path: Path, loaders: list[Loader], caplog: pytest.LogCaptureFixture
) -> None:
    directory = build(tmp_path / "model", "bert")
    unaligned(directory)
    for loader in loaders[1:]:
        with caplog.at_level(logging.WARNING, "residency"):
            for _ in range(3):
                model: Any = loader.load(directory)
                assert (model.loaded_by, model.dtype) == ("transformers", "float32")
                model.close()
    [warning] = {record.getMessage() for record in caplog.records if "uses 'transformers' for" in record.getMessage()}
    assert "is not aligned" in warning


def test_says_which_loader_and_dtype_it_used(tmp_path: Path, loaders: list[Loader]) -> None:
    directory = build(tmp_path / "model", "bert")
    for loader in loaders:
        model: Any = loader.load(directory)
        assert (model.loaded_by, model.dtype) == (loader.name, "float32")
        model.close()
    for kind in (TransformersLoader, MappedLoader):
        narrow = kind(dtype="bfloat16").load(directory)
        assert narrow.dtype == supported_dtype("bfloat16")


def test_a_cache_that_cannot_be_written_costs_time_but_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    directory = build(tmp_path / "model", "bert")
    expected = TransformersLoader().load(directory).predict(["a good film"])[0]
    half(directory)
    (tmp_path / "file").touch()
    monkeypatch.setenv("RESIDENCY_CACHE", str(tmp_path / "file"))
    for kind in (TransformersLoader, MappedLoader):
        with caplog.at_level(logging.WARNING, "residency"):
            [prediction] = kind().load(directory).predict(["a good film"])
        assert prediction.label == expected.label
        assert prediction.score == pytest.approx(expected.score, abs=2e-3)
    assert "is converted to float32 at each load" in caplog.text


def test_a_copy_of_another_name_is_no_other_checkpoint(tmp_path: Path) -> None:
    """What is made of a checkpoint is found again when its folder was moved."""
    directory = build(tmp_path / "model", "bert")
    loader = MappedLoader()
    before = loader.load(directory).predict(["a good film"])
    shutil.move(directory, tmp_path / "moved")
    assert loader.load(tmp_path / "moved").predict(["a good film"]) == before
