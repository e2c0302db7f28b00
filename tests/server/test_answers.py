"""Every loader answers as `transformers.pipeline("text-classification")` does on the same files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import processors

from core.contracts import Loader, Model
from core.errors import ModelReferenceError, NoTokens
from core.loaders.mapped.loader import MappedLoader
from core.loaders.onnxruntime.loader import OnnxRuntimeLoader
from core.loaders.probe import probe
from core.loaders.subprocess.loader import SubprocessLoader
from core.loaders.transformers import TransformersLoader
from tests.helpers.architectures import ARCHITECTURES, Architecture, build, make_tokenizer, wrapped
from tests.helpers.support import convert

SHORT = "a good film"
TEXTS = [SHORT, "the worst thing I have ever seen, not worth the money", "a great cast"]
LONG = "good film with a great cast " * 30
NEAR = 2e-3
Scores = dict[str, float]
CONVERTED = ("bert", "gpt2", "t5")  # of all architectures: a slow test
# Encoders with two kinds of position ids, a decoder, one of both, and what has no attention; the others are slow.
USUAL = ("bert", "deberta-v2", "distilbert", "fnet", "gpt2", "modernbert", "roberta", "t5")
NOT_EXPORTED = ("funnel", "longformer", "mbart", "xlnet")  # their modules decide by the values of tensors
LOADERS: list[Callable[[], Any]] = [
    TransformersLoader,
    MappedLoader,
    partial(SubprocessLoader, inner="mapped"),
    OnnxRuntimeLoader,
]


@pytest.fixture(scope="module")
def loaders() -> list[Loader]:
    return [cls() for cls in LOADERS]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    transformers.logging.set_verbosity_error()
    yield
    transformers.logging.set_verbosity_warning()


def pipeline(directory: Path) -> Callable[..., Scores]:
    """What the pipeline says of one text: every label with its score."""
    kind: Any = transformers.pipeline
    made = kind("text-classification", model=str(directory), dtype=torch.float32, top_k=None)

    def ask(text: str, **options: Any) -> Scores:
        told = made([text], **options)[0]
        return {str(each["label"]): each["score"] for each in told}

    return ask


def answers(model: Model, *texts: str) -> list[Scores]:
    also = getattr(model, "also", {})  # a model with one label scores pairs first
    return [dict(prediction.scores) for prediction in also.get("classify", model.predict)(texts)]


def near(expected: Scores) -> Any:
    return pytest.approx(expected, abs=NEAR)


def check(directory: Path, loaders: list[Loader], limit: int) -> None:
    """Alone, together, empty and too long, under every loader."""
    asked = pipeline(directory)
    expected = [asked(text) for text in TEXTS]
    cut = asked(LONG, truncation=True, max_length=limit)
    try:
        empty: Scores | None = asked("")
    except RuntimeError:  # too short for its architecture
        empty = None
    if any(loader.name == OnnxRuntimeLoader.name for loader in loaders):
        convert(directory)
    for loader in loaders:
        model = loader.load(directory)
        assert [answers(model, text)[0] for text in TEXTS] == [near(each) for each in expected], loader.name
        assert answers(model, *TEXTS) == [near(each) for each in expected], loader.name
        assert answers(model, LONG) == [near(cut)], loader.name
        assert answers(model, SHORT, LONG) == [near(expected[0]), near(cut)], loader.name
        if empty is not None:
            assert answers(model, "") == [near(empty)], loader.name
            assert answers(model, TEXTS[1], "") == [near(expected[1]), near(empty)], loader.name
        else:
            for texts in ([""], [TEXTS[1], ""]):
                with pytest.raises(NoTokens):
                    answers(model, *texts)
        assert probe(model) == []
        model.close()


@pytest.mark.parametrize(
    "architecture",
    [
        pytest.param(each, id=each.model_type, marks=[] if each.model_type in USUAL else [pytest.mark.slow])
        for each in ARCHITECTURES
    ],
)
def test_an_architecture_answers_as_the_pipeline_does(
    architecture: Architecture, tmp_path: Path, loaders: list[Loader]
) -> None:
    chosen = loaders if architecture.model_type in CONVERTED else loaders[:3]
    check(build(tmp_path / "model", architecture), chosen, architecture.limit)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda each: each.model_type)
def test_a_graph_answers_as_the_pipeline_does(
    architecture: Architecture, tmp_path: Path, loaders: list[Loader]
) -> None:
    """Of every architecture that can be exported; converting takes seconds for each."""
    directory = build(tmp_path / "model", architecture)
    check(directory, loaders[3:], architecture.limit)
    model = OnnxRuntimeLoader().load(directory)
    assert model.loaded_by == ("mapped" if architecture.model_type in NOT_EXPORTED else "onnxruntime")
    model.close()


def write_config(directory: Path, **changes: Any) -> Path:
    path = directory / "config.json"
    config = {key: value for key, value in (json.loads(path.read_text()) | changes).items() if value is not ...}
    path.write_text(json.dumps(config))
    return directory


HEADS: dict[str, dict[str, Any]] = {
    "one logit": {"num_labels": 1},
    "several labels at once": {"num_labels": 4, "problem_type": "multi_label_classification"},
    "one of several labels": {"num_labels": 4, "problem_type": "single_label_classification"},
    "regression": {"num_labels": 1, "problem_type": "regression"},
    "regression of several values": {"num_labels": 3, "problem_type": "regression"},
    "one label at once": {"num_labels": 1, "problem_type": "multi_label_classification"},
}


@pytest.mark.parametrize("head", HEADS)
def test_a_head_means_what_the_config_says(head: str, tmp_path: Path, loaders: list[Loader]) -> None:
    exported = loaders if head in ("one logit", "several labels at once") else loaders[:3]  # takes seconds each
    check(build(tmp_path / "model", "bert", **HEADS[head]), exported, 66)


LABELS: dict[str, tuple[Any, list[str]]] = {  # id2label, and the labels that callers see
    "numbers": ({"0": 0, "1": 1, "2": 2.5}, ["0", "1", "2.5"]),
    "truths": ({"0": True, "1": False, "2": "both"}, ["True", "False", "both"]),
    "null": ({"0": None, "1": "x", "2": None}, ["LABEL_0", "x", "LABEL_2"]),
    "of any script": ({"0": "négatif 😡", "1": "正面\n", "2": ""}, ["négatif 😡", "正面\n", ""]),
    "half a character": ({"0": "\ud83d", "1": "b", "2": "c"}, ["?", "b", "c"]),
    "in another order": ({"2": "c", "0": "a", "1": "b"}, ["a", "b", "c"]),
    "twice the same": ({"0": "same", "1": "same", "2": "other"}, ["same", "same", "other"]),
}


@pytest.mark.parametrize("labels", LABELS)
def test_labels_are_text(labels: str, tmp_path: Path, loaders: list[Loader]) -> None:
    named, expected = LABELS[labels]
    directory = write_config(build(tmp_path / "model", "bert"), id2label=named, label2id=...)
    for loader in loaders:
        model = loader.load(directory)
        [prediction] = model.predict([SHORT])
        model.close()
        assert [label for label, _ in prediction.scores] == expected
        assert prediction == max(prediction.scores, key=lambda pair: pair[1])
        json.dumps(prediction.label).encode()


def test_labels_that_are_not_named_are_numbered(tmp_path: Path, loaders: list[Loader]) -> None:
    directory = write_config(build(tmp_path / "model", "bert"), id2label=..., label2id=..., num_labels=3)
    check(directory, loaders, 66)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "fewer labels than logits": ({"id2label": {"0": "a", "1": "b"}}, "shapes of its weights|gives 3 logits"),
    "labels from 1 on": ({"id2label": {"1": "a", "2": "b", "3": "c"}}, "none for the index 0"),
    "a label's index twice": ({"id2label": {"0": "a", "00": "b", "1": "c"}}, "id2label names 3 labels"),
    "labels by words": ({"id2label": {"zero": "a", "1": "b", "2": "c"}}, "has the key 'zero'"),
    "a list of labels": ({"id2label": ["a", "b", "c"]}, "must map each index to a label"),
    "no label": ({"id2label": {}}, "must map each index to a label"),
    "a label that is a list": ({"id2label": {"0": ["a"], "1": "b", "2": "c"}}, "the label of index 0"),
    "one label of which to choose": (
        {"id2label": {"0": "a"}, "problem_type": "single_label_classification"},
        "needs two",
    ),
    "an unknown architecture": ({"model_type": "my_bert"}, "does not know the model_type 'my_bert'"),
    "no architecture": ({"model_type": ...}, "does not know the model_type None"),
    "no classifier": ({"model_type": "vit"}, "no text classifier of the model_type 'vit'"),
    "code of its own": (
        {"model_type": "mine", "auto_map": {"AutoConfig": "c.C", "AutoModelForSequenceClassification": "m.M"}},
        r"its own code \(trust_remote_code\), which is never run",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_served_is_refused_in_a_sentence(case: str, tmp_path: Path, loaders: list[Loader]) -> None:
    changes, sentence = REFUSED[case]
    directory = write_config(build(tmp_path / "model", "bert"), label2id=..., **changes)
    for loader in loaders:
        with pytest.raises(ModelReferenceError, match=sentence):
            loader.load(directory)


def test_a_config_that_is_no_json_is_refused(tmp_path: Path, loaders: list[Loader]) -> None:
    directory = build(tmp_path / "model", "bert")
    config = (directory / "config.json").read_bytes()
    for spoilt, sentence in ((config[:40], "not valid JSON"), (b"\xef\xbb\xbf" + config, "byte order mark")):
        (directory / "config.json").write_bytes(spoilt)
        for loader in loaders:
            with pytest.raises(ModelReferenceError, match=sentence):
                loader.load(directory)


def decoder(directory: Path, **config: Any) -> Path:
    """A GPT-2 whose tokenizer puts nothing around a text, and has no padding token."""
    build(directory, "gpt2", **config)
    tokenizer = make_tokenizer().backend_tokenizer
    tokenizer.post_processor = processors.ByteLevel()
    wrapped(tokenizer, pad_token=None, cls_token=None, sep_token=None, model_max_length=64).save_pretrained(directory)
    return directory


@pytest.mark.parametrize("model_type", ["gpt2", *(pytest.param(n, marks=pytest.mark.slow) for n in ("llama", "opt"))])
@pytest.mark.parametrize("in_config", [None, 1], ids=["none in the config", "one in the config"])
@pytest.mark.parametrize("in_tokenizer", [None, "<pad>", "</s>"])
def test_decoders_need_no_padding_token(
    model_type: str, in_config: int | None, in_tokenizer: str | None, tmp_path: Path, loaders: list[Loader]
) -> None:
    """Of the tokenizer and the config, either may lack it, or both; or they name different ones."""
    directory = build(tmp_path / "model", model_type, pad_token_id=in_config)
    make_tokenizer(pad_token=in_tokenizer).save_pretrained(directory)
    check(directory, loaders[:1], 66)


def test_padding_at_the_left_changes_no_answer(tmp_path: Path, loaders: list[Loader]) -> None:
    for model_type in ("gpt2", "bert", "llama"):
        directory = build(tmp_path / model_type, model_type)
        make_tokenizer(padding_side="left").save_pretrained(directory)
        check(directory, loaders[:2], 66)


def test_a_text_without_tokens_is_refused_alone_and_in_company(tmp_path: Path, loaders: list[Loader]) -> None:
    directory = decoder(tmp_path / "model", pad_token_id=None)
    convert(directory)
    for loader in loaders:
        model = loader.load(directory)
        for texts in ([""], [SHORT, ""], ["", ""]):
            with pytest.raises(NoTokens, match="has no tokens"):
                model.predict(texts)
        assert probe(model) == []
        model.close()


@pytest.mark.parametrize("limit", [None, -1, 10**30, 512, "none at all"])
def test_a_tokenizer_without_a_limit_leaves_it_to_the_model(
    limit: object, tmp_path: Path, loaders: list[Loader]
) -> None:
    directory = build(tmp_path / "model", "roberta")
    path = directory / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": limit}))
    expected = pipeline(directory)(LONG, truncation=True, max_length=64)
    for loader in loaders[:2]:
        assert answers(loader.load(directory), LONG) == [near(expected)]


def test_a_tokenizers_own_limit_is_kept(tmp_path: Path, loaders: list[Loader]) -> None:
    directory = build(tmp_path / "model", "bert")
    make_tokenizer(model_max_length=50).save_pretrained(directory)
    check(directory, loaders, 50)


def test_a_vocabulary_larger_than_the_embedding_is_told_before_a_request_meets_it(
    tmp_path: Path, loaders: list[Loader]
) -> None:
    directory = build(tmp_path / "model", "bert", vocab_size=280)
    for loader in loaders[:2]:
        with pytest.raises(ModelReferenceError, match="embeddings for 280"):
            probe(loader.load(directory))
    with pytest.raises(ModelReferenceError, match="embeddings for 280"):  # its child is asked when it is prepared
        loaders[2].load(directory)


def test_a_padding_token_without_an_embedding_is_no_fault(tmp_path: Path, loaders: list[Loader]) -> None:
    """A frequent mistake: added to the tokenizer, never to the model; no text brings it about."""
    directory = build(tmp_path / "model", "llama", pad_token_id=None)
    tokenizer = make_tokenizer(pad_token=None)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(directory)
    check(directory, loaders, 66)


def test_weights_that_are_no_numbers_are_told(tmp_path: Path, loaders: list[Loader]) -> None:
    directory = build(tmp_path / "model", "distilbert")
    classes: Any = transformers.AutoModelForSequenceClassification
    module = classes.from_pretrained(directory)
    with torch.no_grad():
        module.classifier.weight.fill_(float("nan"))
    module.save_pretrained(directory)
    for loader in loaders[:2]:
        with pytest.raises(ModelReferenceError, match=r"values that are not numbers \(classifier.weight\)"):
            probe(loader.load(directory))
    with pytest.raises(ModelReferenceError, match="not numbers"):  # its child is asked when it is prepared
        loaders[2].load(directory)


def test_a_weight_that_is_no_number_is_told_though_no_probe_meets_it(tmp_path: Path, loaders: list[Loader]) -> None:
    directory = build(tmp_path / "model", "bert")
    file = directory / "model.safetensors"
    tensors = load_file(file)
    tensors["bert.embeddings.word_embeddings.weight"][200] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})
    for loader in loaders[:2]:
        with pytest.raises(ModelReferenceError, match=r"not numbers \(bert.embeddings.word_embeddings.weight\)"):
            probe(loader.load(directory))
