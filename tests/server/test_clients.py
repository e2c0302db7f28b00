"""Clients that others have written, against real models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from tests.helpers.small_bert import write_classifier
from tests.helpers.support import ENGINE, running
from tests.helpers.wheels import minilm

TEXTS = ["A man is eating food.", "A man is eating a piece of bread.", "Quarterly profits fell in the north."]
SIZE = 384


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("models")
    models = {
        "sentiment": "embedded",
        "minilm": str(minilm()),
        "ranker": str(write_classifier(folder / "ranker", ["relevance"])),
        "nli": str(write_classifier(folder / "nli", ["contradiction", "entailment", "neutral"])),
        "chat": {"run": ENGINE, "aliases": ["gpt-4o-mini"]},
    }
    strategies = [{"strategy": name, "loader": "mapped"} for name in ("lru-cached", "on-demand")]
    with running({"strategies": strategies, "models": models}) as (_, client):
        yield client


@pytest.fixture(scope="module")
def vectors(http: httpx.Client) -> list[list[float]]:
    """Of TEXTS, as numbers."""
    answer = http.post("/v1/embeddings", json={"model": "minilm", "input": TEXTS})
    assert answer.status_code == 200, answer.text
    return [each["embedding"] for each in answer.json()["data"]]


@pytest.fixture(scope="module")
def scores(http: httpx.Client) -> list[float]:
    """Of the first of TEXTS with each, by the ranker."""
    items = [[TEXTS[0], text] for text in TEXTS]
    answer = http.post("/tasks/score", json={"model": "ranker", "items": items})
    assert answer.status_code == 200, answer.text
    found: list[float] = answer.json()["results"]
    return found


def test_vectors_say_what_texts_mean(vectors: list[list[float]]) -> None:
    food, bread, profits = (np.array(vector) for vector in vectors)
    assert [len(vector) for vector in vectors] == [SIZE] * 3
    assert food @ bread > 0.7 > 0.2 > food @ profits


@pytest.mark.parametrize("prefix", ["", "/on-demand"])
def test_openai(http: httpx.Client, vectors: list[list[float]], prefix: str) -> None:
    import openai

    with openai.OpenAI(base_url=f"{http.base_url}{prefix}/v1", api_key="any", max_retries=0) as client:
        assert {"minilm", "gpt-4o-mini"} <= {model.id for model in client.models.list()}
        assert client.models.retrieve("minilm").owned_by == "residency"
        for more in ({}, {"encoding_format": "float"}, {"dimensions": SIZE}):
            got = client.embeddings.create(model="minilm", input=TEXTS, **more)
            assert np.array([each.embedding for each in got.data]) == pytest.approx(np.array(vectors), abs=1e-5)
            assert got.usage.total_tokens > 0
        with pytest.raises(openai.NotFoundError, match=r"this path\. It has the task classify, at /predict"):
            client.embeddings.create(model="sentiment", input="a")
        with pytest.raises(openai.UnprocessableEntityError, match="must be texts, not token ids") as caught:
            client.embeddings.create(model="minilm", input=[1, 2])
        assert isinstance(caught.value.body, dict)
        assert caught.value.body["type"] == "invalid_request_error"
        with pytest.raises(openai.NotFoundError, match="There is no model 'none'"):
            client.chat.completions.create(model="none", messages=[{"role": "user", "content": "a"}])


def test_openai_streams_from_an_engine_by_its_alias(http: httpx.Client) -> None:
    import openai

    with openai.OpenAI(base_url=f"{http.base_url}/v1", api_key="any", max_retries=0) as client:
        stream = client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": "a"}], stream=True
        )
        assert len([chunk.choices[0].delta.content for chunk in stream if chunk.choices]) >= 5


def test_langchain(http: httpx.Client, vectors: list[list[float]]) -> None:
    from langchain_openai import OpenAIEmbeddings
    from pydantic import SecretStr

    with httpx.Client() as connections:
        client = OpenAIEmbeddings(
            model="minilm",
            openai_api_base=f"{http.base_url}/v1",
            openai_api_key=SecretStr("any"),
            check_embedding_ctx_length=False,
            http_client=connections,
        )
        assert np.array(client.embed_documents(TEXTS)) == pytest.approx(np.array(vectors), abs=1e-5)


def test_cohere(http: httpx.Client, scores: list[float]) -> None:
    import cohere

    best = sorted(range(len(TEXTS)), key=scores.__getitem__, reverse=True)[:2]
    for kind in (cohere.Client, cohere.ClientV2):
        with httpx.Client() as connections:
            client: Any = kind("any", base_url=str(http.base_url), httpx_client=connections)
            got = client.rerank(model="ranker", query=TEXTS[0], documents=TEXTS, top_n=2)
            assert [each.index for each in got.results] == best
            found = [each.relevance_score for each in got.results]
            assert found == pytest.approx([scores[index] for index in best], abs=1e-5)
            with pytest.raises(cohere.NotFoundError, match="It has the task embed, at /v1/embeddings"):
                client.rerank(model="minilm", query="a", documents=["a"])


def test_hugging_face(http: httpx.Client, vectors: list[list[float]]) -> None:
    from huggingface_hub import InferenceClient, close_session
    from huggingface_hub.errors import HfHubHTTPError

    def at(model: str) -> Any:
        return InferenceClient(f"{http.base_url}/models/{model}", token="any")

    [best, other] = at("sentiment").text_classification("I love it.")
    assert (best.label, other.label) == ("POSITIVE", "NEGATIVE")
    assert best.score + other.score == pytest.approx(1)
    assert len(at("sentiment").text_classification("I love it.", top_k=1)) == 1
    assert at("minilm").feature_extraction(TEXTS[0], normalize=True) == pytest.approx(np.array(vectors[:1]), abs=1e-5)
    similar = at("minilm").sentence_similarity(TEXTS[0], TEXTS[1:])
    assert similar == pytest.approx((np.array(vectors[1:]) @ np.array(vectors[0])).tolist(), abs=1e-5)
    for multi_label in (False, True):
        found = at("nli").zero_shot_classification(TEXTS[0], ["food", "money"], multi_label=multi_label)
        assert {each.label for each in found} == {"food", "money"}
        assert (sum(each.score for each in found) == pytest.approx(1)) is not multi_label
    with pytest.raises(HfHubHTTPError, match="do not fit the model 'minilm'"):
        at("minilm").zero_shot_classification(TEXTS[0], ["food"])
    close_session()


def test_triton(http: httpx.Client, vectors: list[list[float]], scores: list[float]) -> None:
    import tritonclient.http as triton

    def tensor(name: str, texts: list[str], *, binary: bool) -> Any:
        array = np.array([text.encode() for text in texts], dtype=np.object_)
        return triton.InferInput(name, [len(texts)], "BYTES").set_data_from_numpy(array, binary_data=binary)

    with triton.InferenceServerClient(f"{http.base_url.host}:{http.base_url.port}") as client:
        for binary in (False, True):
            outputs = [triton.InferRequestedOutput("embedding", binary_data=binary)]
            result = client.infer("minilm", [tensor("text", TEXTS, binary=binary)], outputs=outputs)
            assert result.as_numpy("embedding") == pytest.approx(np.array(vectors), abs=1e-5)
            pair = [tensor("text_pair", TEXTS, binary=not binary), tensor("text", TEXTS[:1] * 3, binary=binary)]
            result = client.infer("ranker", pair, model_version="on-demand")
            assert result.as_numpy("score").tolist() == pytest.approx(scores, abs=1e-5)
        assert client.get_model_metadata("minilm")["outputs"] == [
            {"name": "embedding", "datatype": "FP32", "shape": [-1, -1]}
        ]
        metadata = client.get_model_metadata("ranker")
        assert [each["name"] for each in metadata["inputs"]] == ["text", "text_pair"]
        assert metadata["outputs"] == [{"name": "score", "datatype": "FP32", "shape": [-1]}]
