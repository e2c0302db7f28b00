"""The bodies of existing clients, their answers and errors, on every path and under every strategy."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from core.app import create_app
from core.config.settings import Settings
from core.errors import SettingsError
from core.http.dialects.table import paths_of
from core.tasks.table import TASKS
from tests.helpers.support import ENGINE, TASK_LOADER, checkpoint_in, running

VECTOR = [2.0, 1.0, 1.0]  # of a text with one a
RERANK = {"model": "score", "query": "red fox"}
TEXTS = ["a blue bird", "a red fox", "a red hen"]
SCORES = [0.0, 1.0, 0.5]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("models")
    models: dict[str, Any] = {}
    for task in ("classify", "embed", "score"):
        directory = checkpoint_in(folder / task)
        (directory / "tasks").write_text("score classify" if task == "score" else task)
        models[task] = str(directory)
    models["chat"] = {"run": ENGINE, "aliases": ["gpt-4o", "lab/chat:4b", "score/load"]}
    settings = {
        "strategies": [{"strategy": name, "loader": "tasks"} for name in ("lru-cached", "on-demand")],
        "models": models,
        "plugins": [TASK_LOADER],
        "max_texts": 5,
        "max_text": 1000,
    }
    with running(settings) as (_, client):
        yield client


def answer(client: httpx.Client, path: str, body: Any, **more: Any) -> Any:
    response = client.post(path, json=body, **more)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    assert "inference;dur=" in response.headers["server-timing"]
    return response.json()


def refusal(client: httpx.Client, status: int, path: str, body: Any, **more: Any) -> Any:
    response = client.post(path, json=body, **more)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    return problem


@pytest.mark.parametrize("prefix", ["", "/on-demand", "/lru-cached"])
def test_each_strategy_answers_under_its_name(client: httpx.Client, prefix: str) -> None:
    def loads() -> list[int]:
        return [strategy["loads"] for strategy in client.get("/strategies").json()["strategies"]]

    before = loads()
    for path in ("/v1/embeddings", "/embed", "/models/embed", "/tasks/embed"):
        key = {"/v1/embeddings": "input", "/tasks/embed": "items"}.get(path, "inputs")
        answer(client, prefix + path, {"model": "embed", key: ["a"]})
    answer(client, f"{prefix}/rerank", {**RERANK, "texts": TEXTS})
    again = [after - count for after, count in zip(loads(), before, strict=True)]
    assert again[1] == (5 if prefix == "/on-demand" else 0)
    assert client.get(f"{prefix}/v1/models").json() == client.get("/v1/models").json()
    assert client.get("/nobody/v1/models").status_code == 404
    assert client.post("/nobody/rerank", json={**RERANK, "texts": TEXTS}).status_code == 404


def test_all_models_are_listed_with_their_aliases(client: httpx.Client) -> None:
    listed = {each["id"]: each for each in client.get("/v1/models").json()["data"]}
    assert {*listed} == {"classify", "embed", "score", "chat", "gpt-4o", "lab/chat:4b", "score/load"}
    assert listed["score"]["tasks"] == ["score", "classify"]
    assert listed["gpt-4o"]["tasks"] == []
    assert {each["object"] for each in listed.values()} == {"model"}
    assert client.get("/v1/models/lab/chat:4b").json() == listed["lab/chat:4b"]
    assert client.get("/v1/models/none").json()["error"]["code"] == 404


def test_embeddings_are_numbers_or_their_bytes(client: httpx.Client) -> None:
    got = answer(client, "/v1/embeddings", {"model": "embed", "input": ["a", "", "ab"]})
    assert [each["embedding"] for each in got["data"]] == [VECTOR, [1, 1, 1], [2, 2, 1]]
    assert [each["index"] for each in got["data"]] == [0, 1, 2]
    assert got["usage"] == {"prompt_tokens": 6, "total_tokens": 6}
    null = answer(client, "/v1/embeddings", {"model": "embed", "input": "a", "encoding_format": None})
    assert null["data"][0]["embedding"] == VECTOR
    got = answer(client, "/v1/embeddings", {"model": "embed", "input": "a", "encoding_format": "base64", "user": "x"})
    assert np.frombuffer(base64.b64decode(got["data"][0]["embedding"]), "<f4").tolist() == VECTOR
    answer(client, "/v1/embeddings", {"model": "embed", "input": "a", "dimensions": 3})


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"input": [1, 2]}, r"^input: must be texts, not token ids.*check_embedding_ctx_length=False"),
        ({"input": [[1, 2], [3]]}, r"^input: must be texts, not token ids"),
        ({"input": []}, "^input"),
        ({"input": "a", "dimensions": 4}, "^dimensions: must be 3, or left out$"),
        ({"input": "a", "encoding_format": "hex"}, "^encoding_format: must be one of"),
        ({"input": ["a"] * 6}, "6 texts are over the limit of 5"),
        ({"input": "a" * 1001}, "over the limit of 1000 characters"),
        ({}, "^input: is required$"),
    ],
)
def test_what_cannot_be_embedded_is_said_as_openai_does(client: httpx.Client, more: Any, sentence: str) -> None:
    problem = refusal(client, 422, "/v1/embeddings", {"model": "embed", **more})
    assert re.search(sentence, problem["detail"])
    assert problem["error"] == {"message": problem["detail"], "type": "invalid_request_error", "code": 422}


def test_reranks_in_the_form_of_the_request(client: httpx.Client) -> None:
    for path in ("/rerank", "/v1/rerank", "/v2/rerank"):
        assert answer(client, path, {**RERANK, "texts": TEXTS}) == [
            {"index": 1, "score": 1.0},
            {"index": 2, "score": 0.5},
            {"index": 0, "score": 0.0},
        ]
        documents = [TEXTS[0], {"text": TEXTS[1], "title": "…"}, TEXTS[2]]
        got = answer(client, path, {**RERANK, "documents": documents, "top_n": 2, "return_documents": True})
        assert got["results"] == [
            {"index": 1, "relevance_score": 1.0, "document": {"text": TEXTS[1]}},
            {"index": 2, "relevance_score": 0.5, "document": {"text": TEXTS[2]}},
        ]
        assert got["usage"]["total_tokens"] > 0
    got = answer(client, "/rerank", {**RERANK, "texts": TEXTS, "return_text": True})
    assert [each["text"] for each in got] == [TEXTS[1], TEXTS[2], TEXTS[0]]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({}, "give either 'documents' or 'texts'"),
        ({"texts": ["a"], "documents": ["a"]}, "give either"),
        ({"texts": ["a"], "raw_scores": True}, "^raw_scores: must be false or left out"),
        ({"documents": [{"title": "a"}]}, "^documents"),
        ({"documents": ["a"], "top_n": 0}, "^top_n"),
        ({"texts": ["a" * 995]}, "over the limit of 1000 characters"),
    ],
)
def test_what_cannot_be_ranked_is_said_as_cohere_does(client: httpx.Client, more: Any, sentence: str) -> None:
    for path in ("/rerank", "/v1/rerank", "/v2/rerank", "/on-demand/v1/rerank"):
        problem = refusal(client, 422, path, {**RERANK, **more})
        assert re.search(sentence, problem["message"])
        assert problem["error"] == problem["message"] == problem["detail"]


def test_pipelines_follow_from_the_inputs_and_the_task(client: httpx.Client) -> None:
    positive, negative = {"label": "POSITIVE", "score": 0.75}, {"label": "NEGATIVE", "score": 0.75}
    assert answer(client, "/models/classify", {"inputs": "good", "parameters": {}}) == [[positive]]
    assert answer(client, "/models/score", {"inputs": ["good", "bad"]}) == [[positive], [negative]]
    assert answer(client, "/models/embed", {"inputs": "a"}) == [VECTOR]
    [vector] = answer(client, "/models/embed", {"inputs": "a", "normalize": True})
    assert np.linalg.norm(vector) == pytest.approx(1)
    compared = {"inputs": {"source_sentence": "a", "sentences": ["a", "b"]}}
    assert answer(client, "/models/embed", compared) == pytest.approx([1, 5 / 6])
    labels = {"candidate_labels": ["bird", "fox", "red"], "hypothesis_template": "a {}"}
    got = answer(client, "/models/score", {"inputs": "red fox", "parameters": {**labels, "multi_label": True}})
    assert {each["label"]: each["score"] for each in got} == {"fox": 0.5, "red": 0.5, "bird": 0}
    got = answer(client, "/models/score", {"inputs": "red fox", "parameters": labels})
    assert [each["score"] for each in got] == pytest.approx([0.5, 0.5, 0], abs=1e-6)
    alone = {"inputs": "red fox", "parameters": labels | {"candidate_labels": ["red"]}}
    assert answer(client, "/models/score", alone) == [{"label": "red", "score": 0.5}]  # not 1


def test_the_number_of_tensors_says_which_task_is_asked_for(client: httpx.Client) -> None:
    """A classifier with one label scores pairs, and classifies texts as before."""
    text, pair = ({"name": name, "datatype": "BYTES", "shape": [1], "data": ["good"]} for name in ("text", "text_pair"))
    got = [answer(client, "/v2/models/score/infer", {"inputs": inputs}) for inputs in ([text], [text, pair])]
    assert [[each["name"] for each in one["outputs"]] for one in got] == [["label", "score"], ["score"]]


@pytest.mark.parametrize(
    ("model", "body", "sentence"),
    [
        ("classify", {"inputs": {"source_sentence": "a", "sentences": ["a"]}}, "do not fit the model 'classify'"),
        ("embed", {"inputs": "a", "parameters": {"candidate_labels": ["x"]}}, "do not fit the model 'embed'"),
        ("score", {"inputs": "a", "parameters": {"candidate_labels": []}}, "candidate_labels"),
        (
            "score",
            {"inputs": "a", "parameters": {"candidate_labels": ["x"], "hypothesis_template": "x"}},
            "must contain",
        ),
        ("classify", {"inputs": "a", "parameters": {"function_to_apply": "none"}}, "function_to_apply: is not"),
        ("embed", {"inputs": "a", "prompt_name": "query"}, "prompt_name: is not supported; leave it out"),
        ("embed", {"inputs": []}, "inputs"),
    ],
)
def test_what_no_pipeline_takes_is_said(client: httpx.Client, model: str, body: Any, sentence: str) -> None:
    problem = refusal(client, 422, f"/models/{model}", body)
    assert sentence in problem["error"]


def test_embeds_as_text_embeddings_inference_does(client: httpx.Client) -> None:
    vectors = answer(client, "/embed", {"model": "embed", "inputs": ["a", "b"]})
    assert [np.linalg.norm(vector) for vector in vectors] == pytest.approx([1, 1])
    assert answer(client, "/embed", {"model": "embed", "inputs": "a", "normalize": False}) == [VECTOR]


def test_each_row_of_the_table_of_tasks_has_a_path(client: httpx.Client) -> None:
    answer(client, "/tasks/embed", {"model": "embed", "items": ["a"]})  # which may load it
    got = answer(client, "/tasks/embed", {"model": "embed", "items": ["a"]})
    assert got == {"strategy": "lru-cached", "model": "embed", "results": [VECTOR], "cold": False}
    got = answer(client, "/tasks/score", {"model": "score", "items": [["red fox", text] for text in TEXTS]})
    assert got["results"] == SCORES
    got = answer(client, "/on-demand/tasks/classify", {"model": "classify", "items": ["good", ["a", "good"]]})
    assert got["results"] == [{"POSITIVE": 0.75}, {"POSITIVE": 0.75}]
    assert (got["strategy"], got["cold"]) == ("on-demand", True)
    assert "items.0" in refusal(client, 422, "/tasks/score", {"model": "score", "items": ["a"]})["detail"]
    assert client.post("/tasks/none", json={}).status_code == 404


@pytest.mark.parametrize("path", [path.path for path in paths_of(TASKS) if "POST" in path.methods])
def test_a_path_that_a_model_cannot_answer_names_those_that_it_can(client: httpx.Client, path: str) -> None:
    """And an engine answers each path itself."""
    model = "embed" if path in ("/tasks/classify", "/tasks/score") or "rerank" in path else "classify"
    body = {"input": "a", "inputs": "a", "items": ["a"], "query": "a", "texts": ["a"]}
    if path == "/tasks/classify":
        body["items"] = ["a"]
    elif path == "/tasks/score":
        body["items"] = [["a", "a"]]  # type: ignore[list-item]
    if path != "/tasks/classify" or model == "embed":
        problem = refusal(client, 404, path, {"model": model, **body})
        can = "/v1/embeddings" if model == "embed" else "/predict"
        assert problem["detail"].startswith(f"Model '{model}' cannot answer this path. It has the task")
        assert can in problem["detail"]
        assert f"/v2/models/{model}/infer" in problem["detail"]
    echo = client.post(f"/lru-cached{path}?x=1", json={"model": "lab/chat:4b", "anything": [1]}).json()
    assert (echo["method"], echo["path"]) == ("POST", f"{path}?x=1")
    assert json.loads(echo["body"]) == {"model": "lab/chat:4b", "anything": [1]}


def test_an_engine_is_named_anywhere(client: httpx.Client) -> None:
    path = "/v1/audio/transcriptions"
    assert client.post(path, data={"model": "gpt-4o"}, files={"file": b"\0"}).json()["path"] == path
    assert client.post(path, headers={"X-Model": "chat"}).json()["path"] == path
    assert client.get("/v1/audio/voices?model=chat").json()["path"] == "/v1/audio/voices?model=chat"
    for name in ("chat", "gpt-4o", "lab/chat:4b"):
        for prefix in ("", "/lru-cached"):
            for method in ("GET", "PUT", "DELETE"):
                echo = client.request(method, f"{prefix}/upstream/{name}/some/path?q=%20").json()
                assert (echo["method"], echo["path"]) == (method, "/some/path?q=%20")
    assert client.post("/models/lab/chat:4b", json={"inputs": "a"}).json()["path"] == "/"
    assert client.get("/upstream/none/x").status_code == 404
    detail = client.get("/upstream/embed/health").json()["detail"]
    assert detail.startswith("Model 'embed' cannot answer this path.")


def test_an_engine_has_no_tasks_of_ours(client: httpx.Client) -> None:
    for path, body in (
        ("/predict-lru-cached", {"text": "a", "model": "chat"}),
        ("/v2/models/chat/infer", {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]}]}),
    ):
        assert "is an engine" in refusal(client, 404, path, body)["detail"]
    assert client.get("/v2/models/chat").json()["platform"] == "engine"


def test_no_alias_stands_for_a_path_of_operators(client: httpx.Client) -> None:
    assert client.post("/models/score/load", json={"inputs": "a"}).status_code == 404
    assert client.post("/on-demand/models/score/load", json={"inputs": "a"}).status_code == 404


def test_an_alias_stands_for_one_model() -> None:
    for aliases in (["embedded"], ["x"]):
        models: dict[str, Any] = {"embedded": "embedded", "a": {"run": ENGINE, "aliases": ["x"]}}
        models["b"] = {"run": ENGINE, "aliases": aliases}
        with pytest.raises(SettingsError, match=r"models\.b\.aliases: '.*' is already a name of the model"):
            create_app(Settings.model_validate({"models": models}))


@pytest.mark.parametrize("name", ["v1", "models", "upstream", "rerank", "tasks"])
def test_a_strategy_cannot_take_the_name_of_a_path(tmp_path: Path, name: str) -> None:
    plugin = tmp_path / "plugin.py"
    plugin.write_text(
        f"import pluggy\nclass Own:\n    name = '{name}'\n"
        "@pluggy.HookimplMarker('residency')\ndef register_strategies():\n    return [Own]\n"
    )
    settings = Settings.model_validate({"strategies": [{"strategy": name}], "plugins": [str(plugin)]})
    with pytest.raises(SettingsError, match=f"The strategy '{name}' cannot be mounted"):
        create_app(settings)


def test_a_name_that_differs_between_header_and_body_is_refused(client: httpx.Client) -> None:
    body = {"model": "embed", "input": "a"}
    answer(client, "/v1/embeddings", {"input": "a"}, headers={"X-Model": "embed"})
    answer(client, "/v1/embeddings", body, headers={"X-Model": "embed"})
    problem = refusal(client, 422, "/v1/embeddings", body, headers={"X-Model": "score"})
    assert "several models" in problem["error"]["message"]
    problem = refusal(client, 422, "/v1/embeddings", {"input": "a"})
    assert "name one of the models" in problem["error"]["message"]
    assert client.post("/models/embed", json={"inputs": "a"}, headers={"X-Model": "score"}).status_code == 422
