"""The Open Inference Protocol, spoken by a client that others have written."""

from __future__ import annotations

import json
import re
import shlex
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from core.checkpoints.checkpoint import sha256
from tests.helpers.support import FAKES, checkpoint_in, gated, running
from tests.proofs.test_docs import block

TEXTS = ["a good one", "ein schönes Stück, gut ≠ good 🎈", "", "bad"]
LABELS = [b"POSITIVE", b"POSITIVE", b"NEGATIVE", b"NEGATIVE"]
INPUT = {"name": "text", "datatype": "BYTES", "shape": [1]}


def fake_settings(*directories: Path) -> dict[str, Any]:
    return {
        "strategies": [{"strategy": name, "loader": "fake"} for name in ("persistent", "on-demand")],
        "models": {path.name: str(path) for path in directories},
        "plugins": [FAKES],
        "max_body": "20KiB",
        "max_texts": 10,
    }


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("models")
    with running(fake_settings(checkpoint_in(folder / "a"), checkpoint_in(folder / "b"))) as (_, client):
        yield client


@pytest.fixture
def client(http: httpx.Client) -> Iterator[Any]:
    with triton.InferenceServerClient(f"{http.base_url.host}:{http.base_url.port}") as client:
        yield client


def tensor(texts: list[str], *, binary: bool = True, column: bool = False) -> Any:
    array = np.array([text.encode() for text in texts], dtype=np.object_)
    array = array.reshape(-1, 1) if column else array
    return triton.InferInput("text", list(array.shape), "BYTES").set_data_from_numpy(array, binary_data=binary)


@pytest.mark.parametrize("column", [False, True])
@pytest.mark.parametrize("binary_in", [False, True])
@pytest.mark.parametrize("binary_out", [False, True, None])
def test_infers_in_the_order_of_the_texts(client: Any, binary_in: bool, binary_out: bool | None, column: bool) -> None:
    """`None` leaves the outputs to the client, which then asks for all of them in binary."""
    outputs = None
    if binary_out is not None:
        outputs = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in ("label", "score")]
    inputs = [tensor(TEXTS, binary=binary_in, column=column)]
    result = client.infer("a", inputs, outputs=outputs, request_id="number 7")
    labels = [label if isinstance(label, bytes) else label.encode() for label in result.as_numpy("label")]
    assert labels == LABELS
    assert result.as_numpy("score").dtype == np.float32
    assert result.as_numpy("score").tolist() == [0.75] * 4
    answer = result.get_response()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("a", "persistent", "number 7")


def test_only_the_wanted_outputs_come_back_each_in_its_form(client: Any) -> None:
    score = triton.InferRequestedOutput("score", binary_data=False)
    result = client.infer("b", [tensor(["good"])], outputs=[score])
    assert [output["name"] for output in result.get_response()["outputs"]] == ["score"]
    both = [score, triton.InferRequestedOutput("label", binary_data=True)]
    result = client.infer("b", [tensor(["good"])], outputs=both)
    assert result.get_output("score")["data"] == [0.75]
    assert result.as_numpy("label").tolist() == [b"POSITIVE"]


def test_a_version_is_a_strategy(client: Any, http: httpx.Client) -> None:
    def loads() -> list[int]:
        return [strategy["loads"] for strategy in http.get("/strategies").json()["strategies"]]

    persistent, on_demand = loads()
    result = client.infer("b", [tensor(["good"])], model_version="on-demand")
    assert result.get_response()["model_version"] == "on-demand"
    assert "id" not in result.get_response()
    assert loads() == [persistent, on_demand + 1]


def test_tells_what_is_served(client: Any, embedded_directory: Path) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("a")
    assert client.is_model_ready("b", "on-demand")
    assert not client.is_model_ready("c")
    assert not client.is_model_ready("a", "2")
    server = client.get_server_metadata()
    assert (server["name"], server["extensions"]) == ("residency", ["binary_tensor_data"])
    metadata = client.get_model_metadata("a")
    assert metadata == client.get_model_metadata("a", "on-demand")
    assert metadata == {
        "name": "a",
        "versions": ["persistent", "on-demand"],
        "platform": "residency",
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
            {"name": "score", "datatype": "FP32", "shape": [-1]},
        ],
        "parameters": {"sha256": sha256(embedded_directory), "revision": None},
    }


def test_is_alive_but_not_ready_while_start_up_loads_run(tmp_path: Path) -> None:
    model = checkpoint_in(tmp_path / "a")
    with gated(model) as gate, running(fake_settings(model), ready=False) as (server, http):
        gate.wait_for_load()
        with triton.InferenceServerClient(server.url.removeprefix("http://")) as client:
            assert client.is_server_live()
            assert not client.is_server_ready()
            assert not client.is_model_ready("a")
            assert client.get_model_metadata("a")["name"] == "a"
            with pytest.raises(InferenceServerException, match="not in memory yet") as caught:
                client.infer("a", [tensor(["good"])])
            assert caught.value.status() == "503"
            assert http.get("/v2/models/a/ready").headers["retry-after"]
            gate.open()


def test_errors_are_sentences_for_the_client(client: Any) -> None:
    def refused(status: int, sentence: str, *inputs: Any, model: str = "a", **more: Any) -> None:
        with pytest.raises(InferenceServerException, match=sentence) as caught:
            client.infer(model, list(inputs), **more)
        assert caught.value.status() == str(status)

    good = tensor(["good"])
    numbers = triton.InferInput("text", [1], "FP32").set_data_from_numpy(np.array([1.0], dtype=np.float32))
    refused(404, r"^\[404\] There is no model 'c'. Models: a, b.$", good, model="c")
    refused(404, r"There is no version '2'. Versions are strategies: persistent, on-demand.$", good, model_version="2")
    refused(422, "inputs.0.datatype: must be one of BYTES", numbers)
    refused(422, "inputs: must be one tensor, text, for a model with the task 'classify'", good, good)
    refused(422, "inputs: must be a list or a mapping with at most 2 values", good, good, good)
    refused(422, "inputs: must be a list or a mapping with at least 1 value")
    refused(422, "outputs.0.name: must be one of", good, outputs=[triton.InferRequestedOutput("x")])
    classes = triton.InferRequestedOutput("label", class_count=2)
    refused(422, "outputs.0.parameters.classification: is no key here", good, outputs=[classes])
    refused(422, "11 texts are over the limit of 10", tensor(["x"] * 11))
    refused(413, "over the limit of 20480 bytes", tensor(["x" * 30_000]))
    refused(415, "accepts no compressed bodies", good, request_compression_algorithm="gzip")
    refused(422, "X-Request-Timeout must be a number of seconds", good, headers={"X-Request-Timeout": "soon"})
    with pytest.raises(InferenceServerException, match="Not Found"):
        client.get_model_config("a")  # Triton's own


def element(text: bytes) -> bytes:
    return struct.pack("<I", len(text)) + text


@pytest.mark.parametrize(
    ("binary", "said", "shape", "sentence"),
    [
        (element(b"good"), 8, [2], r"shape: must be \[n\] or \[n, 1\], where n is the number of texts, 1"),
        (element(b"good"), 8, [1, 2], "inputs.0.shape: must be"),
        (element(b"good"), 7, [1], "8 bytes follow the JSON, but 'binary_data_size' is 7"),
        (element(b"good"), 9, [1], "8 bytes follow the JSON"),
        (element(b"good"), None, [1], "give either 'data', or 'binary_data_size'"),
        (element(b"good")[:-1], 7, [1], "the binary tensor ends within text 0"),
        (element(b"good") + b"\x01\x00", 10, [2], "the binary tensor ends within text 1"),
        (b"\xff\xff\xff\xff", 4, [1], "the binary tensor ends within text 0"),
        (b"", 0, [1], "must be"),
        (element(b"good") + element(b"\xff"), 13, [2], "text 1 of the binary tensor is not UTF-8"),
        (element(b"\xed\xa0\x80"), 7, [1], "not UTF-8"),  # half of a surrogate pair
    ],
)
def test_malformed_binary_is_refused(
    http: httpx.Client, binary: bytes, said: int | None, shape: list[int], sentence: str
) -> None:
    parameters = {} if said is None else {"binary_data_size": said}
    head = json.dumps({"inputs": [INPUT | {"shape": shape, "parameters": parameters}]}).encode()
    refuse(http, head + binary, sentence, length=str(len(head)))


@pytest.mark.parametrize("length", ["-1", "x", "1_0", "²", "100000", "9" * 5000, "", "5"])
def test_a_wrong_length_of_the_json_is_refused(http: httpx.Client, length: str) -> None:
    head = json.dumps({"inputs": [INPUT | {"data": ["good"]}]}).encode()
    sentence = "Invalid JSON" if length == "5" else "must be the length of the JSON"
    refuse(http, head, sentence, length=length)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"inputs": [INPUT]}, "give either 'data'"),
        ({"inputs": [INPUT | {"data": ["x"], "parameters": {"binary_data_size": 0}}]}, "give either 'data'"),
        ({"inputs": [INPUT | {"parameters": {"shared_memory_region": "r"}}]}, "give either 'data'"),
        ({"inputs": [INPUT | {"data": ["x", "y"]}]}, "the number of texts, 2"),
        ({"inputs": [INPUT | {"data": [["x", "y"]]}]}, "inputs.0.data"),
        ({"inputs": [INPUT | {"data": [1]}]}, "inputs.0.data"),
        ({"inputs": [INPUT | {"data": [], "shape": [0]}]}, "inputs.0.shape.0: "),
        ({"inputs": [INPUT | {"data": ["x"], "shape": [10**100]}]}, "inputs.0.shape: "),
        ({"inputs": [INPUT | {"data": ["x"]}], "outputs": [{"name": "label"}] * 3}, "outputs: "),
        ({"inputs": "x"}, "inputs: "),
        ([], "body: "),
        ("[" * 5000, "body: "),
    ],
)
def test_malformed_json_is_refused(http: httpx.Client, body: Any, sentence: str) -> None:
    refuse(http, body.encode() if isinstance(body, str) else json.dumps(body).encode(), sentence)


def refuse(http: httpx.Client, body: bytes, sentence: str, length: str | None = None) -> None:
    headers = {} if length is None else {b"Inference-Header-Content-Length": length.encode()}
    response = http.post("/v2/models/a/infer", content=body, headers=headers)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert set(problem) == {"type", "title", "status", "detail", "error"}
    assert problem["detail"] == problem["error"]
    assert re.search(sentence, problem["error"])


def test_a_body_of_another_kind_is_refused(http: httpx.Client) -> None:
    body = json.dumps({"inputs": [INPUT | {"data": ["good"]}]})
    for kind, status in (("text/plain", 415), ("application/octet-stream", 200), ("application/json; x=y", 200)):
        response = http.post("/v2/models/a/infer", content=body, headers={"Content-Type": kind})
        assert response.status_code == status
    assert "server-timing" in response.headers


def test_the_embedded_model_answers_the_readmes_curl_and_this_client() -> None:
    with running({}) as (server, http):
        command = shlex.split(block("bash", "curl localhost:8001/v2").replace("localhost:8001", server.url))
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        label, score = json.loads(done.stdout)["outputs"]
        assert label["data"] == ["POSITIVE", "NEGATIVE"]
        texts = ["I absolutely love this product.", "Not worth the money."]
        native = http.post("/predict", json={"texts": texts}).json()["predictions"]
        assert score["data"] == pytest.approx([prediction["score"] for prediction in native], abs=1e-4)
        with triton.InferenceServerClient(server.url.removeprefix("http://")) as client:
            result = client.infer("embedded", [tensor(texts)], model_version="lru-cached")
        assert result.as_numpy("label").tolist() == [b"POSITIVE", b"NEGATIVE"]
        assert result.as_numpy("score").tolist() == pytest.approx(score["data"], abs=1e-4)
