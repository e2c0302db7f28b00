"""Every loader gives the vectors and the scores that sentence-transformers and transformers define."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from core.checkpoints.checkpoint import CONFIG
from core.errors import LoadFailed, ModelReferenceError
from core.loaders.mapped.loader import MappedLoader
from core.loaders.onnxruntime.facts import graph_key
from core.loaders.onnxruntime.loader import OnnxRuntimeLoader
from core.loaders.openvino.loader import OpenVinoLoader
from core.loaders.probe import probe
from core.loaders.subprocess.loader import SubprocessLoader
from core.loaders.transformers import TransformersLoader
from tests.helpers.label_loader import LabelLoader
from tests.helpers.pairs import NLI, POSITIONS, build_pairs
from tests.helpers.support import convert, host_of
from tests.helpers.wheels import copy_of, minilm

LOADERS = {
    "transformers": TransformersLoader,
    "mapped": MappedLoader,
    "onnxruntime": OnnxRuntimeLoader,
    "openvino": OpenVinoLoader,
    "subprocess": SubprocessLoader,
}
LONG = "word " * 400
TEXTS = ["A man is eating food.", "Someone eats a meal.", "The stock market fell sharply today.", "", LONG]
PAIRS = [
    ("A man eats.", "Someone has a meal."),
    ("A man eats.", ""),
    ("Who?", LONG),
    (LONG, "Who?"),
    (LONG, LONG),
    ("It rains.", "It is dry."),
]
NEAR = 1e-4  # numbers are rounded in another order
auto: Any = transformers


@pytest.fixture(params=LOADERS)
def loader(request: pytest.FixtureRequest) -> Any:
    return LOADERS[request.param]()


@cache
def stock(directory: Path, kind: str) -> tuple[Any, Any]:
    return (
        auto.AutoTokenizer.from_pretrained(directory),
        getattr(auto, kind).from_pretrained(directory, attn_implementation="eager").eval(),
    )


def embeddings(directory: Path, texts: Sequence[str], length: int) -> np.ndarray[Any, Any]:
    """What sentence-transformers computes: the mean of the last hidden states under the mask, with the length 1."""
    tokenizer, module = stock(directory, "AutoModel")
    tokens = tokenizer(list(texts), padding=True, truncation=True, max_length=length, return_tensors="pt")
    with torch.inference_mode():
        hidden = module(**tokens).last_hidden_state
    mask = tokens["attention_mask"].unsqueeze(-1).float()
    mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
    vectors: np.ndarray[Any, Any] = torch.nn.functional.normalize(mean, p=2, dim=1).numpy()
    return vectors


def logits(directory: Path, pairs: Sequence[tuple[str, str]]) -> torch.Tensor:
    tokenizer, module = stock(directory, "AutoModelForSequenceClassification")
    firsts, seconds = map(list, zip(*pairs, strict=True))
    tokens = tokenizer(
        firsts, seconds, padding=True, truncation="longest_first", max_length=POSITIONS, return_tensors="pt"
    )
    with torch.inference_mode():
        found: torch.Tensor = module(**tokens).logits
    return found


@pytest.fixture(scope="module")
def inference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint for natural language inference."""
    directory = build_pairs(
        tmp_path_factory.mktemp("inference") / "model", id2label=NLI, label2id={name: i for i, name in NLI.items()}
    )
    convert(directory)
    return directory


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_pairs(tmp_path_factory.mktemp("cross") / "model", num_labels=1, seed=1)


def test_a_text_gets_the_vector_that_sentence_transformers_defines(loader: Any) -> None:
    convert(minilm())
    model = loader.load(minilm())
    assert model.loaded_by == loader.name
    assert (model.task, dict(model.also)) == ("embed", {})
    vectors = model.predict(TEXTS)
    assert np.allclose(vectors, embeddings(minilm(), TEXTS, 256), atol=NEAR)
    assert np.allclose([model.predict([text])[0] for text in TEXTS], vectors, atol=NEAR)
    assert {vector.dtype for vector in vectors} == {np.dtype(np.float32)}
    text, paraphrase, other = vectors[:3]
    assert text @ paraphrase > 0.7
    assert text @ other < 0.1
    assert probe(model) == []
    model.close()


def test_a_pair_gets_the_probability_of_entailment(loader: Any, inference: Path) -> None:
    model = loader.load(inference)
    assert model.loaded_by == loader.name
    assert (model.task, list(model.also)) == ("classify", ["score"])
    stocks = logits(inference, PAIRS)
    expected = stocks[:, [0, 1]].softmax(1)[:, 1]
    assert model.also["score"](PAIRS) == pytest.approx(expected.tolist(), abs=NEAR)
    assert len({round(score, 3) for score in model.also["score"](PAIRS)}) > 3
    for items in (PAIRS, [*PAIRS, "one text"]):  # texts and pairs may be mixed
        for prediction, scores in zip(model.predict(items), stocks.softmax(1).tolist(), strict=False):
            assert dict(prediction.scores) == pytest.approx(dict(zip(NLI.values(), scores, strict=True)), abs=NEAR)
    assert probe(model) == []
    model.close()


def test_the_pipeline_for_zero_shot_gives_the_same_probabilities(inference: Path) -> None:
    tokenizer, module = stock(inference, "AutoModelForSequenceClassification")
    pipeline = auto.pipeline("zero-shot-classification", model=module, tokenizer=tokenizer, device="cpu")
    candidates = ["food", "money", "the weather"]
    found = pipeline("A man eats.", candidates, hypothesis_template="It is about {}.", multi_label=True)
    expected = dict(zip(found["labels"], found["scores"], strict=True))
    model = MappedLoader().load(inference)
    scores = model.also["score"]([("A man eats.", f"It is about {name}.") for name in candidates])
    assert dict(zip(candidates, scores, strict=True)) == pytest.approx(expected, abs=NEAR)
    model.close()


@pytest.mark.parametrize("name", ["transformers", "mapped"])
def test_a_cross_encoder_scores_pairs_and_still_classifies(name: str, cross_encoder: Path) -> None:
    model = LOADERS[name]().load(cross_encoder)
    assert model.loaded_by == name
    assert (model.task, list(model.also)) == ("score", ["classify"])
    expected = logits(cross_encoder, PAIRS).sigmoid()[:, 0].tolist()
    assert model.predict(PAIRS) == pytest.approx(expected, abs=NEAR)
    assert [prediction.score for prediction in model.also["classify"](PAIRS)] == pytest.approx(expected, abs=NEAR)
    model.close()


def test_the_config_may_say_that_scores_are_the_logits(cross_encoder: Path, tmp_path: Path) -> None:
    directory = copy_of(cross_encoder, tmp_path / "raw")
    config = json.loads((directory / CONFIG).read_text())
    config["sentence_transformers"] = {"activation_fn": "torch.nn.modules.linear.Identity"}
    (directory / CONFIG).write_text(json.dumps(config))
    model = MappedLoader().load(directory)
    assert model.predict(PAIRS) == pytest.approx(logits(cross_encoder, PAIRS)[:, 0].tolist(), abs=NEAR)
    model.close()
    assert graph_key(directory) == graph_key(cross_encoder)


def test_a_folder_with_another_pooling_gives_another_vector_over_the_same_graph(tmp_path: Path) -> None:
    directory = copy_of(minilm(), tmp_path / "cls")
    (directory / "1_Pooling" / CONFIG).write_text(json.dumps({"pooling_mode": "cls"}))
    (directory / "modules.json").write_text(json.dumps(json.loads((directory / "modules.json").read_text())[:2]))
    assert graph_key(directory) == graph_key(minilm())
    tokenizer, module = stock(minilm(), "AutoModel")
    with torch.inference_mode():
        expected = module(**tokenizer([TEXTS[0]], return_tensors="pt")).last_hidden_state[0, 0].numpy()
    model = MappedLoader().load(directory)
    assert np.allclose(model.predict(TEXTS[:2])[0], expected, atol=NEAR)
    model.close()


def test_a_prompt_stands_before_each_text_and_may_not_count(tmp_path: Path) -> None:
    directory, prompt = copy_of(minilm(), tmp_path / "prompt"), "represent this: "
    settings = {"prompts": {"document": prompt}, "default_prompt_name": "document"}
    (directory / "config_sentence_transformers.json").write_text(json.dumps(settings))
    model = MappedLoader().load(directory)
    assert np.allclose(
        model.predict(TEXTS[:2]), embeddings(minilm(), [prompt + text for text in TEXTS[:2]], 256), atol=NEAR
    )
    model.close()
    (directory / "1_Pooling" / CONFIG).write_text(json.dumps({"pooling_mode": "mean", "include_prompt": False}))
    tokenizer, module = stock(minilm(), "AutoModel")
    with torch.inference_mode():
        hidden = module(**tokenizer([prompt + TEXTS[0]], return_tensors="pt")).last_hidden_state[0]
    mean = hidden[1 + len(tokenizer(prompt, add_special_tokens=False)["input_ids"]) :].mean(0)
    model = MappedLoader().load(directory)
    assert np.allclose(model.predict(TEXTS[:1])[0], torch.nn.functional.normalize(mean, dim=0).numpy(), atol=NEAR)
    model.close()


def test_an_encoder_without_files_of_sentence_transformers_has_the_mean(tmp_path: Path) -> None:
    directory = copy_of(minilm(), tmp_path / "bare")
    (directory / "modules.json").unlink()
    model = MappedLoader().load(directory)
    [vector] = model.predict(TEXTS[:1])
    assert not 0.9 < np.linalg.norm(vector) < 1.1
    assert np.allclose(vector / np.linalg.norm(vector), embeddings(minilm(), TEXTS[:1], 512)[0], atol=NEAR)
    model.close()


def test_a_layer_that_is_not_computed_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    directory = copy_of(minilm(), tmp_path / "dense")
    modules = json.loads((directory / "modules.json").read_text())
    modules.append({"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"})
    (directory / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelReferenceError, match=r"modules\.json names Dense"):
        MappedLoader().load(directory)


def test_a_host_tells_the_tasks_of_its_models(inference: Path, cross_encoder: Path, tmp_path: Path) -> None:
    host = host_of(LabelLoader(), inference, copy_of(cross_encoder, tmp_path / "cross"), tmp_path / "missing")
    assert host.tasks("model") == ("classify", "score")
    assert host.tasks("cross") == ("score", "classify")
    with pytest.raises(LoadFailed, match="missing"):
        host.tasks("missing")


def test_a_loader_may_tell_the_tasks_itself(cross_encoder: Path) -> None:
    class Own(LabelLoader):
        def tasks(self, checkpoint: Path) -> list[str]:
            return ["classify"]

    assert host_of(Own(), cross_encoder).tasks("model") == ("classify",)
