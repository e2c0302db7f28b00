"""A checkpoint's files tell its tasks, and what the numbers of its network mean."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from core.checkpoints import checkpoint
from core.contracts import Prediction
from core.errors import ModelReferenceError, NoFiniteScore, PluginError
from core.plugins import load_plugins
from core.tasks.classify import CLASSIFY
from core.tasks.embed import EMBED
from core.tasks.pooling import Pooling, module_configs, read_pooling
from core.tasks.score import SCORE, parse_scoring
from core.tasks.table import BUILT_IN, TASKS, tasks_of
from core.tasks.task import Task

CLASSIFIER = {"architectures": ["BertForSequenceClassification"]}
MODULES = [
    {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]


def labels(*names: str) -> dict[str, Any]:
    return {**CLASSIFIER, "id2label": {str(index): name for index, name in enumerate(names)}}


def folder_of(folder: Path, modules: object = MODULES, **files: object) -> Path:
    """A folder of sentence-transformers. A `_` in the name of a file stands for a `/`, once."""
    (folder / "1_Pooling").mkdir(parents=True)
    for name, contents in {"modules": modules, "1_Pooling/config": {}, **files}.items():
        (folder / f"{name}.json").write_text(json.dumps(contents))
    return folder


@pytest.mark.parametrize(
    ("config", "tasks"),
    [
        (CLASSIFIER, ("classify",)),
        ({}, ("classify",)),
        ({"architectures": None}, ("classify",)),
        (labels("LABEL_0"), ("score", "classify")),
        ({"id2label": {"0": "LABEL_0"}}, ("score", "classify")),
        (labels("contradiction", "entailment", "neutral"), ("classify", "score")),
        (labels("ENTAILMENT", "NEUTRAL", "CONTRADICTION"), ("classify", "score")),
        (labels("entailment", "not_entailment"), ("classify", "score")),
        (labels("Not-Entailment", "Entailment"), ("classify", "score")),
        (labels("entailment", "neutral"), ("classify",)),  # against what?
        (labels("entailment law", "contradiction"), ("classify",)),
        (labels("entailment", "contradiction", "sarcasm"), ("classify",)),
        ({**CLASSIFIER, "id2label": []}, ("classify",)),  # loading it tells the mistake
        ({**labels("LABEL_0"), "sentence_transformers": {"activation_fn": "torch.nn.Tanh"}}, ("classify",)),
        ({"architectures": ["BertModel"]}, ("embed",)),
        ({"architectures": ["GPT2LMHeadModel"]}, ("classify",)),
        ({"architectures": ["BertForMaskedLM"]}, ("classify",)),
    ],
)
def test_config_json_tells_the_tasks(config: dict[str, Any], tasks: tuple[str, ...], tmp_path: Path) -> None:
    assert tasks_of(config, tmp_path) == tasks


@pytest.mark.parametrize(
    ("head", "tasks"),
    [("BertForMaskedLM", ("embed",)), ("Qwen3ForCausalLM", ("embed",)), ("XForSequenceClassification", ("classify",))],
)
def test_a_folder_of_sentence_transformers_embeds(head: str, tasks: tuple[str, ...], tmp_path: Path) -> None:
    assert tasks_of({"architectures": [head]}, folder_of(tmp_path)) == tasks


def scored(config: dict[str, Any], *logits: float) -> float:
    scoring = parse_scoring(config, Path("config.json"))
    assert scoring is not None
    [score] = scoring.results(np.array([logits], dtype=np.float32))
    return score


@pytest.mark.parametrize(
    ("config", "logits", "score"),
    [
        (labels("LABEL_0"), (0.0,), 0.5),
        (labels("LABEL_0"), (3.0,), 1 / (1 + math.exp(-3))),
        ({**labels("A"), "sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}, (3.0,), 3.0),
        ({**labels("A"), "sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, (-3.0,), -3.0),
        (
            {
                **labels("A"),
                "problem_type": "regression",
                "sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"},
            },
            (0.0,),
            0.5,
        ),
        ({**labels("A"), "problem_type": "regression"}, (3.0,), 3.0),
        (labels("contradiction", "entailment", "neutral"), (1.0, 2.0, 9.0), 1 / (1 + math.exp(-1))),
        (labels("entailment", "neutral", "contradiction"), (2.0, 9.0, 1.0), 1 / (1 + math.exp(-1))),
        (labels("neutral", "contradiction", "entailment"), (9.0, 1.0, 2.0), 1 / (1 + math.exp(-1))),
        (labels("entailment", "not_entailment"), (1.0, 2.0), 1 / (1 + math.exp(1))),
    ],
)
def test_logits_become_a_score(config: dict[str, Any], logits: tuple[float, ...], score: float) -> None:
    assert scored(config, *logits) == pytest.approx(score, rel=1e-5)


def test_a_score_that_is_no_number_is_refused() -> None:
    with pytest.raises(NoFiniteScore):
        scored(labels("LABEL_0"), math.nan)


Pool = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]
# What each mode makes of the vectors of one text, which has no padding.
BY_DEFINITION: dict[str, Pool] = {
    "cls": lambda rows: rows[0],
    "max": lambda rows: rows.max(axis=0),
    "mean": lambda rows: rows.mean(axis=0),
    "mean_sqrt_len_tokens": lambda rows: rows.sum(axis=0) / math.sqrt(len(rows)),
    "weightedmean": lambda rows: np.average(rows, axis=0, weights=np.arange(1, len(rows) + 1)),
    "lasttoken": lambda rows: rows[-1],
}


@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    modes=st.lists(st.sampled_from(list(BY_DEFINITION)), min_size=1, max_size=3),
    left=st.booleans(),
    normalizes=st.booleans(),
    seed=st.integers(0, 99),
)
def test_pools_each_text_as_if_it_were_alone_and_had_no_padding(
    lengths: list[int], modes: list[str], left: bool, normalizes: bool, seed: int
) -> None:
    random, longest = np.random.default_rng(seed), max(lengths)
    hidden = random.normal(size=(len(lengths), longest, 4)).astype(np.float32)
    mask = np.array([[0] * (longest - n) + [1] * n if left else [1] * n + [0] * (longest - n) for n in lengths])
    found = Pooling(tuple(modes), normalizes).vectors(hidden, mask)
    for row, real, vector in zip(hidden, mask > 0, found, strict=True):
        expected = np.concatenate([BY_DEFINITION[mode](row[real]) for mode in modes])
        if normalizes:
            expected = expected / np.linalg.norm(expected)
        assert np.allclose(vector, expected, atol=1e-5)
    alone = Pooling(tuple(modes), normalizes).vectors(hidden[:1, mask[0] > 0], None)
    assert np.allclose(alone, found[:1], atol=1e-5)


def test_the_tokens_of_a_prompt_may_not_count() -> None:
    hidden = np.arange(12, dtype=np.float32).reshape(1, 6, 2)
    for mask in (np.array([[0, 1, 1, 1, 1, 1]]), np.array([[1, 1, 1, 1, 1, 0]])):
        real = hidden[0][mask[0] > 0]
        assert np.allclose(Pooling().vectors(hidden, mask, skipped=2), real[2:].mean(axis=0))
        assert np.allclose(Pooling(("cls",)).vectors(hidden, mask, skipped=2), real[2])


def test_a_vector_that_is_no_number_is_refused() -> None:
    with pytest.raises(NoFiniteScore):
        Pooling().vectors(np.full((1, 2, 3), np.nan, np.float32), None)


def test_without_files_that_say_it_a_text_has_the_mean_of_its_tokens(tmp_path: Path) -> None:
    assert read_pooling(tmp_path) == Pooling(("mean",), normalizes=False)


def test_the_files_of_sentence_transformers_tell_the_pooling(tmp_path: Path) -> None:
    older = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True, "include_prompt": False}
    prompts = {"prompts": {"query": "query: "}, "default_prompt_name": "query"}
    encoder = {"max_seq_length": 256, "do_lower_case": True}
    directory = folder_of(
        tmp_path,
        **{"1_Pooling/config": older, "sentence_bert_config": encoder, "config_sentence_transformers": prompts},
    )
    pooling = read_pooling(directory)
    assert pooling == Pooling(("cls", "mean"), True, 256, lowers=True, prompt="query: ", skips_prompt=True)
    assert pooling.text("A Film") == "query: a film"


@pytest.mark.parametrize(
    ("config", "modes"),
    [
        ({}, ("mean",)),
        ({"pooling_mode": "lasttoken"}, ("lasttoken",)),
        ({"pooling_mode": ["cls", "max"]}, ("cls", "max")),
        ({"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}, ("lasttoken",)),
        ({"pooling_mode_mean_tokens": False}, ("mean",)),
    ],
)
def test_a_pooling_is_written_in_two_forms(config: object, modes: tuple[str, ...], tmp_path: Path) -> None:
    assert read_pooling(folder_of(tmp_path, MODULES[:2], **{"1_Pooling/config": config})).modes == modes


def kinds(*names: str) -> list[dict[str, Any]]:
    return [
        {"type": f"sentence_transformers.x.{name}", "path": f"{i}_{name}" * (i > 0)} for i, name in enumerate(names)
    ]


@pytest.mark.parametrize(
    ("modules", "files", "sentence"),
    [
        (kinds("Transformer", "Pooling", "Dense"), {}, r"modules\.json names Dense"),
        (kinds("Transformer", "LogitScore"), {}, r"modules\.json names LogitScore"),
        (kinds("StaticEmbedding"), {}, r"modules\.json names StaticEmbedding"),
        (kinds("Transformer", "Normalize"), {}, r"modules\.json names no Pooling"),
        ([], {}, r"modules\.json names nothing"),
        ({}, {}, r"modules\.json must contain a list"),
        ([{"type": "x.Transformer", "path": "0_Transformer"}], {}, r"modules\.json names Transformer"),
        ([{"type": "x.Transformer", "path": "../other"}], {}, r"modules\.json has the path '\.\./other'"),
        (
            MODULES,
            {"1_Pooling/config": {"pooling_mode": "best"}},
            r"1_Pooling/config\.json has the pooling_mode 'best'",
        ),
        (MODULES, {"1_Pooling/config": []}, r"1_Pooling/config\.json must contain a JSON object"),
        (
            MODULES,
            {"config_sentence_transformers": {"default_prompt_name": "query", "prompts": {}}},
            r"config_sentence_transformers\.json has the default_prompt_name 'query'",
        ),
    ],
)
def test_what_is_not_computed_is_refused_by_the_name_of_its_file(
    modules: object, files: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelReferenceError, match=sentence):
        read_pooling(folder_of(tmp_path, modules, **files))


def test_the_configs_of_modules_are_part_of_the_checkpoint(tmp_path: Path) -> None:
    directory = folder_of(tmp_path / "a")
    (directory / "config.json").write_text("{}")
    (directory / checkpoint.WEIGHTS).write_bytes(b"")
    pooling = directory / "1_Pooling" / "config.json"
    assert module_configs(directory) == ["1_Pooling/config.json", "2_Normalize/config.json"]
    assert pooling in checkpoint.files(directory)
    before = checkpoint.identity(directory), checkpoint.sha256(directory)
    pooling.write_text('{"pooling_mode": "cls"}')
    assert {checkpoint.identity(directory), checkpoint.sha256(directory)}.isdisjoint(before)


@pytest.mark.parametrize(
    ("task", "one", "other", "is_apart"),
    [
        (CLASSIFY, Prediction("A", 0.9), Prediction("A", 0.91), False),
        (CLASSIFY, Prediction("A", 0.9), Prediction("A", 0.95), True),
        (CLASSIFY, Prediction("A", 0.9), Prediction("B", 0.9), True),
        (SCORE, 0.5, 0.51, False),
        (SCORE, 0.5, 0.55, True),
        (SCORE, 50.0, 50.5, False),
        (EMBED, [1.0, 0.0], [2.0, 0.01], False),
        (EMBED, [1.0, 0.0], [1.0, 0.2], True),
        (EMBED, [0.0, 0.0], [0.0, 0.0], False),
        (EMBED, [0.0, 0.0], [1.0, 0.0], True),
        (EMBED, [1.0], [1.0, 0.0], True),
    ],
)
def test_tells_how_far_results_are_apart(task: Task, one: Any, other: Any, is_apart: bool) -> None:
    one, other = task.normalize(one), task.normalize(other)
    assert task.apart(one, one) == 0
    assert (task.apart(one, other) > 1) is is_apart
    assert task.apart(one, other) == task.apart(other, one)


@pytest.mark.parametrize("task", BUILT_IN, ids=lambda task: task.name)
def test_items_are_made_from_text_and_are_of_the_type(task: Task) -> None:
    item = task.from_text("a good film")
    assert TypeAdapter(task.item).validate_python(item) == item
    assert task.length(item) >= len("a good film")
    assert TypeAdapter(task.result).json_schema(mode="serialization")


def test_a_pair_may_be_classified() -> None:
    item = TypeAdapter(CLASSIFY.item).validate_json('["a", "bc"]')
    assert item == ("a", "bc")
    assert CLASSIFY.length(item) == 3


def test_a_prediction_is_an_object_of_all_scores_in_json() -> None:
    adapter = TypeAdapter(CLASSIFY.result)
    prediction = adapter.validate_json('{"NEGATIVE": 0.01, "POSITIVE": 0.99}')
    assert prediction == Prediction("POSITIVE", 0.99)
    assert CLASSIFY.apart(prediction, Prediction("POSITIVE", 0.99, [("NEGATIVE", 0.01), ("POSITIVE", 0.99)])) == 0
    assert adapter.dump_json(prediction) == b'{"NEGATIVE":0.01,"POSITIVE":0.99}'
    assert adapter.dump_json(Prediction("POSITIVE", 0.99)) == b'{"POSITIVE":0.99}'
    for wrong in ("{}", '["POSITIVE", 0.99]', '{"POSITIVE": "high"}', '{"POSITIVE": null, "NEGATIVE": 0}'):
        with pytest.raises(ValidationError):
            adapter.validate_json(wrong)


def test_a_vector_is_a_list_of_numbers_in_json() -> None:
    adapter = TypeAdapter(EMBED.result)
    vector = adapter.validate_json("[0.5, -1]")
    assert vector.dtype == np.float32
    assert adapter.dump_json(vector) == b"[0.5,-1.0]"


@pytest.mark.parametrize(
    ("task", "value"),
    [
        (EMBED, [math.nan]),
        (EMBED, []),
        (EMBED, "text"),
        (EMBED, [[1.0]]),
        (SCORE, math.inf),
        (SCORE, "1"),
        (SCORE, True),
    ],
)
def test_what_is_no_result_is_told(task: Task, value: object) -> None:
    with pytest.raises(ValueError, match=r"list of numbers|finite"):
        task.check(value)


PLUGIN = """
import types, pluggy

tag = types.SimpleNamespace({members})

@pluggy.HookimplMarker("residency")
def register_tasks():
    return [{rows}]
"""
MEMBERS = "name='tag', item=str, result=str, length=len, apart=lambda a, b: 0.0, from_text=str, check=str"


def plugin_of(folder: Path, members: str = MEMBERS, rows: str = "tag") -> str:
    (folder / "third.py").write_text(PLUGIN.format(members=members, rows=rows))
    return str(folder / "third.py")


def test_a_plugin_adds_a_row_and_needs_to_import_nothing(tmp_path: Path) -> None:
    try:
        row = load_plugins([plugin_of(tmp_path, f"{MEMBERS}, heads=('ForTagging',)")]).tasks["tag"]
        assert row.normalize("as it is") == "as it is"
        assert tasks_of({"architectures": ["BertForTagging"]}, tmp_path) == ("tag",)
    finally:
        TASKS.pop("tag", None)


@pytest.mark.parametrize(
    ("members", "rows", "sentence"),
    [
        ("name='tag'", "tag", "no member item"),
        (MEMBERS.replace("'tag'", "'Tag!'"), "tag", "kebab-case"),
        (MEMBERS.replace("'tag'", "'embed'"), "tag", "a task named 'embed'"),
        (MEMBERS, "tag, tag", "a task named 'tag'"),
        (MEMBERS, "1 / 0", r"register_tasks\(\) failed: ZeroDivisionError"),
    ],
)
def test_a_row_with_a_mistake_is_refused(members: str, rows: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=sentence):
        load_plugins([plugin_of(tmp_path, members, rows)])
    assert "tag" not in TASKS
