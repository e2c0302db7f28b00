"""Callers can have every label of a text, and scores of any size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.helpers.architectures import build
from tests.helpers.support import running

TEXT = "a good film"
FOUR = ["toxic", "insult", "threat", "obscene"]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("models")
    labels = dict(enumerate(FOUR))
    several = build(
        folder / "several",
        "bert",
        problem_type="multi_label_classification",
        id2label=labels,
        label2id={label: index for index, label in labels.items()},
    )
    regression = build(folder / "regression", "bert", num_labels=1, problem_type="regression", seed=4)
    models = {"several": str(several), "regression": str(regression)}
    with running({"models": models, "strategies": ["persistent"]}) as (_, client):
        yield client


def predictions(client: httpx.Client, model: str = "several", **more: object) -> list[dict[str, object]]:
    response = client.post("/predict", json={"texts": [TEXT, "the worst"], "model": model, **more})
    assert response.status_code == 200, response.text
    return list(response.json()["predictions"])


def test_without_being_asked_an_answer_has_the_best_label_alone(client: httpx.Client) -> None:
    assert [set(prediction) for prediction in predictions(client)] == [{"label", "score"}] * 2


@pytest.mark.parametrize(("top_k", "count"), [(1, 1), (3, 3), (3.0, 3), (4, 4), (100, 4), (None, 4)])
def test_tells_as_many_labels_as_are_wanted_the_best_first(
    client: httpx.Client, top_k: float | None, count: int
) -> None:
    for prediction, alone in zip(predictions(client, top_k=top_k), predictions(client), strict=True):
        top = prediction["top"]
        assert isinstance(top, list)
        assert len(top) == count
        assert top == sorted(top, key=lambda each: -each["score"])
        assert top[0] == alone == {key: prediction[key] for key in ("label", "score")}
        assert {each["label"] for each in top} <= set(FOUR)


def test_labels_that_hold_at_once_have_probabilities_of_their_own(client: httpx.Client) -> None:
    sums = [sum(each["score"] for each in p["top"]) for p in predictions(client, top_k=None)]  # type: ignore[attr-defined]
    assert all(abs(total - 1) > 1e-3 for total in sums)


def test_a_regression_answers_with_any_number(client: httpx.Client) -> None:
    scores = [prediction["score"] for prediction in predictions(client, "regression")]
    assert any(not 0 <= score <= 1 for score in scores if isinstance(score, float))
    document = client.get("/openapi.json").json()["components"]["schemas"]["LabelScore"]["properties"]["score"]
    assert "minimum" not in document
    assert "maximum" not in document


@pytest.mark.parametrize("top_k", [0, -1, 1.5, "2", True, [1]])
def test_any_other_number_is_refused(client: httpx.Client, top_k: object) -> None:
    response = client.post("/predict", json={"text": TEXT, "model": "several", "top_k": top_k})
    assert response.status_code == 422
    assert response.json()["detail"].startswith("top_k")


def infer(client: httpx.Client, **parameters: object) -> dict[str, dict[str, object]]:
    tensor = {"name": "text", "datatype": "BYTES", "shape": [2], "data": [TEXT, "the worst"]}
    response = client.post("/v2/models/several/infer", json={"inputs": [tensor], "parameters": parameters})
    assert response.status_code == 200, response.text
    return {output["name"]: output for output in response.json()["outputs"]}


def test_in_the_open_inference_protocol_it_is_a_parameter(client: httpx.Client) -> None:
    plain = infer(client)
    assert plain["label"]["shape"] == [2]
    for top_k, count in ((2, 2), (None, 4)):
        outputs = infer(client, top_k=top_k)
        expected = [each for p in predictions(client, top_k=top_k) for each in p["top"]]  # type: ignore[attr-defined]
        assert outputs["label"]["shape"] == outputs["score"]["shape"] == [2, count]
        assert outputs["label"]["data"] == [each["label"] for each in expected]
        assert outputs["score"]["data"] == pytest.approx([each["score"] for each in expected])


def test_a_binary_tensor_has_every_label_too(client: httpx.Client, tmp_path: Path) -> None:
    outputs = infer(client, top_k=3, binary_data=False)
    assert len(outputs["score"]["data"]) == 6  # type: ignore[arg-type]
