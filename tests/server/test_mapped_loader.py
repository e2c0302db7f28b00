from __future__ import annotations

import gc
import json
import logging
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from core.checkpoints import checkpoint
from core.checkpoints.dtypes import supported_dtype
from core.checkpoints.mapping import MappedTensors, Unmappable
from core.checkpoints.references import resolve
from core.contracts import Model
from core.errors import ModelReferenceError
from core.loaders import stock
from core.loaders.mapped import linear
from core.loaders.mapped.loader import MappedLoader
from core.loaders.mapped.template import Template
from core.loaders.transformers import TransformersLoader
from tests.helpers.support import in_threads
from tests.server.test_embedded import NEGATIVE, POSITIVE

SMALL = {"vocab_size": 100, "num_labels": 3, "pad_token_id": 0}
WIDTH = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "bert": WIDTH,
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48},
    "roberta": WIDTH,
    "xlm-roberta": WIDTH,
    "camembert": WIDTH,
    "electra": WIDTH | {"embedding_size": 16},
    "albert": WIDTH | {"embedding_size": 16},
    "deberta": WIDTH | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "deberta-v2": WIDTH | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 8},
    "modernbert": WIDTH | {"cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2},
    "mpnet": WIDTH,
    "roformer": WIDTH | {"embedding_size": 32},
    "convbert": WIDTH | {"embedding_size": 32},
    "squeezebert": WIDTH | {"embedding_size": 32, "q_groups": 1, "k_groups": 1, "v_groups": 1},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2},
    "bart": {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
             "decoder_attention_heads": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "eos_token_id": 2},
    "t5": {"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2, "eos_token_id": 2,
           "decoder_start_token_id": 0},
    "qwen2": WIDTH | {"num_key_value_heads": 2},
    "llama": WIDTH | {"num_key_value_heads": 2},
}  # fmt: skip
INPUT = {"input_ids": torch.tensor([[1, 5, 7, 9, 11, 2]]), "attention_mask": torch.ones(1, 6, dtype=torch.long)}


def small(model_type: str, folder: Path, seed: int = 0) -> Path:
    """A checkpoint of a small random model, as transformers saves it."""
    torch.manual_seed(seed)
    config = transformers.AutoConfig.for_model(model_type, **SMALL, **ARCHITECTURES[model_type])
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    for parameter in model.parameters():  # what is made as zeros or ones would hide a mix-up
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    return folder


def logits(module: Any) -> torch.Tensor:
    with torch.inference_mode():
        result: torch.Tensor = module(**INPUT).logits
    return result


def template_of(directory: Path) -> Template:
    module, unexpected = stock.load_module_and_report(directory, "float32")
    return Template(module, MappedTensors(checkpoint.weights(directory)), unexpected)


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_a_restored_module_is_the_stock_one_bit_for_bit(model_type: str, tmp_path: Path) -> None:
    one, two = small(model_type, tmp_path / "one", 1), small(model_type, tmp_path / "two", 2)
    template = template_of(one)
    for directory in (one, *([] if template.checkpoint_identity is not None else [two])):
        module = template.restore(MappedTensors(checkpoint.weights(directory)))
        expected = stock.load_module(directory, "float32")
        assert torch.equal(logits(module), logits(expected))
        names = dict(expected.named_parameters(remove_duplicate=False))
        restored = dict(module.named_parameters(remove_duplicate=False))
        assert all(torch.equal(restored[name], parameter) for name, parameter in names.items())
        assert not module.training
    assert not torch.equal(logits(stock.load_module(one, "float32")), logits(stock.load_module(two, "float32")))


def test_what_the_file_provides_takes_no_private_memory(tmp_path: Path) -> None:
    directory = small("bert", tmp_path / "bert")
    tensors = MappedTensors(checkpoint.weights(directory))
    storage = tensors["classifier.weight"].untyped_storage().data_ptr()
    module = template_of(directory).restore(tensors)
    assert {parameter.untyped_storage().data_ptr() for parameter in module.parameters()} == {storage}


def test_a_template_knows_of_which_tensors_a_forward_needs_all(tmp_path: Path) -> None:
    directory = small("bert", tmp_path / "bert")
    tensors = load_file(directory / "model.safetensors")
    embeddings = {f"bert.embeddings.{n}_embeddings.weight" for n in ("word", "position", "token_type")}
    needed = set(tensors) - embeddings
    save_file(tensors | {"unused": torch.zeros(3)}, directory / "model.safetensors", metadata={"format": "pt"})
    assert template_of(directory).needed == needed


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    directory = small("t5", tmp_path / "t5")
    module = template_of(directory).restore(MappedTensors(checkpoint.weights(directory)))
    assert module.transformer.encoder.embed_tokens.weight is module.transformer.shared.weight


def renamed(directory: Path, old: str, new: str) -> Path:
    tensors = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    named = {name.replace(old, new): tensor for name, tensor in tensors.items()}
    save_file(named, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def test_tensors_that_transformers_renames_are_found_by_their_content(tmp_path: Path) -> None:
    """`gamma` and `beta` are what BERT's first checkpoints call a LayerNorm's weight and bias."""
    directories = []
    for seed in (1, 2):
        directory = renamed(small("bert", tmp_path / str(seed), seed), "LayerNorm.weight", "LayerNorm.gamma")
        directories.append(renamed(directory, "LayerNorm.bias", "LayerNorm.beta"))
    template = template_of(directories[0])
    assert template.checkpoint_identity is None
    for directory in directories:
        module = template.restore(MappedTensors(checkpoint.weights(directory)))
        assert torch.equal(logits(module), logits(stock.load_module(directory, "float32")))


def test_what_cannot_be_told_apart_stays_with_its_checkpoint(tmp_path: Path) -> None:
    """Renamed tensors with the same content: which is which only the stock path knows."""
    directory = small("bert", tmp_path / "bert")
    tensors = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    for name in tensors:
        if "LayerNorm.weight" in name:
            tensors[name] = torch.ones_like(tensors[name])
    named = {name.replace("LayerNorm.weight", "LayerNorm.gamma"): tensor for name, tensor in tensors.items()}
    save_file(named, directory / "model.safetensors", metadata={"format": "pt"})
    template = template_of(directory)
    assert template.checkpoint_identity is not None
    module = template.restore(MappedTensors(checkpoint.weights(directory)))
    assert torch.equal(logits(module), logits(stock.load_module(directory, "float32")))


@pytest.mark.parametrize("name", ["position_ids", "token_type_ids"])
def test_a_buffer_that_the_stock_path_does_not_read_is_not_read(tmp_path: Path, name: str) -> None:
    """Old checkpoints hold such buffers; one that is equal by chance must not make a hole of it."""
    directories = []
    for seed in (1, 2):
        directory = small("bert", tmp_path / str(seed), seed)
        buffer = getattr(stock.load_module(directory, "float32").bert.embeddings, name)
        tensors = load_file(directory / "model.safetensors")
        (directory / "model.safetensors").unlink()
        held = buffer.clone() if seed == 1 else buffer.flip(-1) + (name == "token_type_ids")
        tensors[f"bert.embeddings.{name}"] = held
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        directories.append(directory)
    template = template_of(directories[0])
    assert template.checkpoint_identity is None
    for directory in directories:
        module = template.restore(MappedTensors(checkpoint.weights(directory)))
        assert torch.equal(logits(module), logits(stock.load_module(directory, "float32")))


def test_a_new_tokenizer_is_used_whatever_the_dtype(
    copy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RESIDENCY_CACHE", str(tmp_path / "cache"))
    loader = MappedLoader(dtype="bfloat16")
    before = loader.load(copy).predict(["I love it."])[0]
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    pieces = tokenizer["model"]["vocab"]
    pieces["love"], pieces["hate"] = pieces["hate"], pieces["love"]
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert loader.load(copy).predict(["I love it."])[0].label != before.label
    if supported_dtype("bfloat16") == "bfloat16":
        for folder in (tmp_path / "cache").glob("bfloat16-*"):
            shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
    assert loader.load(copy).predict(["I hate it."])[0].label == before.label  # converted anew


def test_a_structure_that_cannot_be_copied_is_said_once(
    embedded_directory: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hook that is a local function, as some architectures have one, cannot be pickled."""
    loader = MappedLoader(linear="stock")
    original = stock.load_module_and_report

    def with_local_hook(directory: Path, *how: Any) -> Any:
        module, unexpected = original(directory, *how)
        module.register_forward_hook(lambda *_: None)
        return module, unexpected

    monkeypatch.setattr(stock, "load_module_and_report", with_local_hook)
    with caplog.at_level(logging.WARNING, "residency"):
        answers = [loader.load(embedded_directory).predict(["I love it."]) for _ in range(2)]
    assert answers[0] == answers[1] == TransformersLoader().load(embedded_directory).predict(["I love it."])
    assert (
        caplog.text.count("uses 'transformers' for BertForSequenceClassification: its structure cannot be copied") == 1
    )


def test_a_template_is_made_once_for_an_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    directories = [resolve("synthetic:minilm-l6"), resolve("synthetic:minilm-l6#2")]
    loader = MappedLoader(linear="stock")
    made: list[Path] = []
    original = stock.load_module_and_report

    def counted(directory: Path, *how: Any) -> Any:
        made.append(directory)
        return original(directory, *how)

    monkeypatch.setattr(stock, "load_module_and_report", counted)
    texts = ["I love it.", "Never again."]
    models = in_threads(8, lambda i: loader.load(directories[i % 2]).predict(texts))
    assert len(made) == 1
    expected = [TransformersLoader().load(directory).predict(texts) for directory in directories]
    assert models == [expected[i % 2] for i in range(8)]


@pytest.fixture(scope="module")
def reference(embedded_directory: Path) -> Model:
    return TransformersLoader().load(embedded_directory)


@pytest.mark.parametrize("options", [{}, {"pack": True}, {"linear": "stock"}, {"keep_tokenizer": False}])
def test_scores_are_the_stock_loaders(embedded_directory: Path, reference: Model, options: dict[str, Any]) -> None:
    texts = POSITIVE + NEGATIVE
    loader = MappedLoader(**options)
    expected = [reference.predict([text])[0] for text in texts]
    for _ in range(2):
        model = loader.load(embedded_directory)
        answers = [model.predict([text])[0] for text in texts]
        assert [label for label, _ in answers] == [label for label, _ in expected]
        scores = [score for _, score in expected]
        assert [score for _, score in answers] == (
            scores if options.get("linear") == "stock" else pytest.approx(scores, abs=1e-5)
        )
        assert model.nbytes == reference.nbytes
        assert set(model.phases) == {"resolve", "weights", "structure", "tokenizer"}


@pytest.mark.parametrize("options", [{"linear": "stock"}, {"dtype": "bfloat16"}])
def test_a_pack_without_effect_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="'pack' reorders float32 weights"):
        MappedLoader(pack=True, **options)


def test_bfloat16_is_converted_once_and_mapped(
    embedded_directory: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RESIDENCY_CACHE", str(tmp_path))
    loader = MappedLoader(dtype="bfloat16")
    if supported_dtype("bfloat16") == "float32":
        return  # the processor has no bfloat16, and said so
    assert loader.load(embedded_directory).nbytes * 2 == pytest.approx(
        TransformersLoader().size(embedded_directory), rel=1e-2
    )
    [converted] = [path for path in tmp_path.iterdir() if path.is_dir()]
    before = (converted / "model.safetensors").stat()
    assert loader.load(embedded_directory).predict(["I love it."])[0].label == "POSITIVE"
    assert (converted / "model.safetensors").stat() == before
    assert json.loads((converted / "config.json").read_text())["dtype"] == "bfloat16"
    assert TransformersLoader(dtype="bfloat16").load(embedded_directory).predict(["Awful."])[0].label == "NEGATIVE"


@pytest.fixture
def copy(embedded_directory: Path, tmp_path: Path) -> Path:
    shutil.copytree(embedded_directory, tmp_path / "copy")
    return tmp_path / "copy"


def spoil(weights: Path, kind: str) -> None:
    data = bytearray(weights.read_bytes())
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    names = sorted((name for name in header if name != "__metadata__"), key=lambda n: header[n]["data_offsets"])
    if kind == "truncated":
        data = data[:-1]
    elif kind == "empty":
        data = bytearray()
    elif kind == "appended":
        data += b"\0"
    elif kind == "oversized header":
        data[:8] = (1 << 40).to_bytes(8, "little")
    elif kind == "bit-flipped header":
        data[40] ^= 0x80
    else:
        if kind == "overlapping":
            header[names[1]]["data_offsets"] = header[names[0]]["data_offsets"]
            header[names[1]]["shape"] = header[names[0]]["shape"]
        elif kind == "wrong shape":
            header[names[0]]["shape"] = [1, *header[names[0]]["shape"], 2]
        elif kind == "unknown type":
            header[names[0]]["dtype"] = "F1"
        elif kind == "nested":
            header = [header]
        text = json.dumps(header).encode()
        data[: 8 + length] = len(text).to_bytes(8, "little") + text
    weights.write_bytes(data)


KINDS = ["truncated", "empty", "appended", "oversized header", "bit-flipped header", "overlapping", "wrong shape",
         "unknown type", "nested"]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_file_is_refused_in_a_sentence_before_it_is_mapped(
    copy: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = MappedLoader()
    loader.load(copy)
    spoil(copy / "model.safetensors", kind)
    monkeypatch.setattr(torch.UntypedStorage, "from_file", None)  # a mapping would fail in another way
    with pytest.raises(ModelReferenceError, match=r"is not a complete safetensors file: .*save the checkpoint again"):
        loader.load(copy)


def test_a_file_that_was_replaced_is_what_the_next_load_maps(copy: Path) -> None:
    loader = MappedLoader()
    first = loader.load(copy)
    before = first.predict(["I love it."])[0]
    tensors = load_file(copy / "model.safetensors")
    tensors["classifier.weight"] *= -1
    tensors["classifier.bias"] *= -1
    save_file(tensors, copy / "new", metadata={"format": "pt"})
    (copy / "new").rename(copy / "model.safetensors")
    assert loader.load(copy).predict(["I love it."])[0].label != before.label
    assert first.predict(["I love it."])[0] == before


def test_a_closed_model_leaves_no_cycles_behind(embedded_directory: Path) -> None:
    loader = MappedLoader()
    loader.load(embedded_directory).predict(["warm"])
    gc.collect()
    gc.disable()
    try:
        model = loader.load(embedded_directory)
        model.predict(["I love it."])
        model.close()
        del model
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_the_faster_backend_is_measured_and_gives_equal_answers() -> None:
    layer = torch.nn.Linear(64, 128)
    assert isinstance(linear.one_dnn_is_faster(torch.nn.Sequential(layer)), bool)
    assert type(layer) is torch.nn.Linear
    other = torch.nn.Linear(64, 128)
    other.load_state_dict(layer.state_dict())
    text = torch.randn(3, 20, 64)
    with torch.inference_mode():
        linear.use_one_dnn(other)
        assert type(other) is linear.OneDnnLinear
        torch.testing.assert_close(other(text), layer(text), atol=1e-5, rtol=0)
        linear.pack(other)
        torch.testing.assert_close(other(text), layer(text), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layers_see_few_numbers_of_rows(dtype: torch.dtype) -> None:
    """What oneDNN generates for a shape stays, so texts of mixed length must not make ever new ones."""
    assert len({linear.bucket(rows) for rows in range(1, 4097)}) == 80
    assert all(rows <= linear.bucket(rows) <= 1.125 * rows for rows in range(1, 4097))
    layer = torch.nn.Linear(32, 48, dtype=dtype)
    plain = deepcopy(layer)
    (linear.use_one_dnn if dtype == torch.float32 else linear.use_buckets)(layer)
    assert isinstance(layer, linear.BucketedLinear)
    with torch.inference_mode():
        for shape in ((17,), (1, 17), (3, 7, 11), (2, 10), (1,)):
            text = torch.randn(*shape, 32, dtype=dtype)
            torch.testing.assert_close(layer(text), plain(text), atol=1e-5 if dtype == torch.float32 else 0.02, rtol=0)


def test_most_tensors_converted_means_the_stock_path(tmp_path: Path) -> None:
    directory = small("bert", tmp_path / "bert")
    module, unexpected = stock.load_module_and_report(directory, "float32")
    for parameter in module.parameters():
        parameter.data += 1
    with pytest.raises(Unmappable, match="converted"):
        Template(module, MappedTensors(checkpoint.weights(directory)), unexpected)
