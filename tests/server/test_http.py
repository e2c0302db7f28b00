"""What the served app makes of HTTP itself: methods, encodings, prefixes."""

from __future__ import annotations

import asyncio
import codecs
import gzip
import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Router
from starlette.types import ASGIApp

from core.app import create_app
from core.config.settings import Settings
from core.errors import Overloaded
from core.http.dialects.routes import early_refusals
from core.http.limits import RequestLimits
from core.plugins import load_plugins
from core.serving.service import Service
from tests.helpers.support import TASK_LOADER, checkpoint_in, running

PROBES = ["/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/v2/models/a/ready", "/v2", "/v2/models/a"]
PAGE = ["/", "/page.css", "/page.js", "/docs", "/openapi.json"]
TOLD = ["/strategies", "/residency", "/metrics"]
WRONG = ["/nothing", "/v2/models/none/ready", "/residency?history=-1"]
TOKEN = "a token of the tests"
INFER = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["ein gutes Stück"]}]}
EMBED = {"model": "a", "inputs": ["ein gutes Stück"]}
RERANK = {"model": "a", "query": "ein gutes Stück", "documents": [{"text": "ein gutes Stück"}]}
# Every door that reads a body, with one that it takes.
DOORS: dict[str, Any] = {
    "/v1/embeddings": {"model": "a", "input": "ein gutes Stück"},
    "/v1/rerank": RERANK,
    "/v2/rerank": RERANK,
    "/rerank": {"model": "a", "query": "ein gutes Stück", "texts": ["ein gutes Stück"]},
    "/embed": EMBED,
    "/models/a": {"inputs": "ein gutes Stück", "parameters": {"candidate_labels": ["Stück"]}},
    "/tasks/classify": {"model": "a", "items": ["ein gutes Stück"]},
    "/tasks/embed": {"model": "a", "items": ["ein gutes Stück"]},
    "/tasks/score": {"model": "a", "items": [["ein gutes Stück", "ein gutes Stück"]]},
    "/predict-lru-cached": {"text": "ein gutes Stück", "model": "a"},
    "/v2/models/a/infer": INFER,
    "/v2/models/a/versions/lru-cached/infer": INFER,
    "/models/a/load": {"strategy": "lru-cached"},
    "/models/a/unload": {"strategy": "lru-cached"},
}
CHANGING = {"x-request-id", "date"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("models")
    settings = {
        "strategies": [{"strategy": "lru-cached", "loader": "tasks"}],
        "models": {name: str(checkpoint_in(folder / name)) for name in "ab"},
        "plugins": [TASK_LOADER],
        "token": TOKEN,
    }
    with running(settings) as (_, client):
        yield client


def ask(app: ASGIApp, method: str, path: str, root_path: str = "", **more: Any) -> httpx.Response:
    """In this process; nothing is started, so that the app is not ready."""

    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app, root_path=root_path)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, **more)

    return asyncio.run(asked())


def same(got: httpx.Response, head: httpx.Response) -> bool:
    lasting = [{k: v for k, v in each.headers.items() if k not in CHANGING} for each in (got, head)]
    return got.status_code == head.status_code and lasting[0] == lasting[1]


@pytest.mark.parametrize("path", [*PROBES, *PAGE, *WRONG, "/predict-lru-cached"])
def test_head_is_get_without_the_body(client: httpx.Client, path: str) -> None:
    """Over one connection, on which a body would be taken for the next answer."""
    got, head = client.get(path), client.head(path)
    assert same(got, head)
    assert head.content == b""
    assert int(head.headers["content-length"]) == len(got.content) > 0
    assert client.get("/healthz").json() == {"status": "ok"}


@pytest.mark.parametrize("path", TOLD)
def test_head_is_answered_where_the_answer_changes(client: httpx.Client, path: str) -> None:
    head = client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) > 0


@pytest.mark.parametrize("path", PROBES)
def test_head_tells_as_get_does_that_the_server_is_not_ready(path: str) -> None:
    app = create_app(Settings(models={"a": "embedded"}))
    got, head = (ask(app, method, path) for method in ("GET", "HEAD"))
    assert same(got, head)
    assert head.status_code == (503 if "ready" in path else 200)
    assert head.content == b""


@pytest.mark.parametrize("method", ["OPTIONS", "PUT", "PATCH", "DELETE", "TRACE"])
def test_another_method_is_told_what_is_allowed(client: httpx.Client, method: str) -> None:
    for path in [*PROBES, *PAGE, *TOLD]:
        answer = client.request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    assert client.request(method, "/predict-lru-cached").headers["allow"] == "POST"


def test_head_is_not_documented_beside_get(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert {method for path in paths.values() for method in path} == {"get", "post"}


def has_form_of_its_own(door: str) -> bool:
    """Whether the door's clients expect of errors more than problems say."""
    return not door.startswith(("/predict", "/tasks", "/nothing")) and not door.endswith("load")


def send(client: httpx.Client, door: str, body: bytes, *headers: tuple[str, str]) -> httpx.Response:
    given = [("Content-Type", "application/json"), ("Authorization", f"Bearer {TOKEN}"), *headers]
    return client.post(door, content=body, headers=given)


def test_all_doors_are_known(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    doors = {path for path, operations in paths.items() if "post" in operations}
    named = {
        re.sub("/a(?=/|$)", "/{model_id}", door).replace("/versions/lru-cached", "/versions/{strategy}")
        for door in DOORS
    }
    assert named | {"/reload"} == doors  # which reads no body


@pytest.mark.parametrize("door", [*DOORS, "/nothing"])
@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "zstd", "GZIP", "identity, gzip", "gzip,identity", "x"])
def test_a_compressed_body_is_refused(client: httpx.Client, door: str, coding: str) -> None:
    answer = send(client, door, gzip.compress(json.dumps(DOORS.get(door, {})).encode()), ("Content-Encoding", coding))
    assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "identity")
    assert "accepts no compressed bodies" in answer.json()["detail"]
    assert ("error" in answer.json()) == has_form_of_its_own(door)


@pytest.mark.parametrize("door", DOORS)
def test_a_header_that_is_repeated_is_one_list(client: httpx.Client, door: str) -> None:
    body = json.dumps(DOORS[door]).encode()
    codings = [("Content-Encoding", "gzip"), ("Content-Encoding", "identity")]
    assert send(client, door, body, *codings).status_code == 415
    for coding in ("identity", "Identity", "", "identity, identity"):
        assert send(client, door, body, ("Content-Encoding", coding)).status_code == 200
    assert client.get("/healthz", headers={"Content-Encoding": "gzip"}).status_code == 200  # which has no body


@pytest.mark.parametrize("door", DOORS)
def test_a_byte_order_mark_is_passed_over(client: httpx.Client, door: str) -> None:
    body = codecs.BOM_UTF8 + json.dumps(DOORS[door], ensure_ascii=False).encode()
    answer = send(client, door, body)
    assert answer.status_code == 200, answer.text
    assert send(client, door, codecs.BOM_UTF8).status_code == 422


def test_a_byte_order_mark_counts_as_json_before_tensors(client: httpx.Client) -> None:
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 8}}
    head = codecs.BOM_UTF8 + json.dumps({"inputs": [tensor]}).encode()
    length = ("Inference-Header-Content-Length", str(len(head)))
    assert send(client, "/v2/models/a/infer", head + b"\x04\0\0\0good", length).status_code == 200


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    "encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "latin-1", "cp037"]
)
def test_a_body_in_another_encoding_is_told_so(client: httpx.Client, door: str, encoding: str) -> None:
    text = json.dumps(DOORS[door] | {"ü": "ü"}, ensure_ascii=False)
    answer = send(client, door, text.encode(encoding))
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("The body must be UTF-8")
    assert (encoding[:6].upper() in answer.json()["detail"]) == encoding.startswith("utf")


def twice(value: Any) -> Iterator[tuple[str, str]]:
    """The JSON of a value with one key of one object twice, for each key at any level; and that key."""
    if isinstance(value, dict):
        for key, inner in value.items():
            once = ", ".join(f"{json.dumps(name)}: {json.dumps(each)}" for name, each in value.items())
            yield f"{{{once}, {json.dumps(key)}: {json.dumps(inner)}}}", key
            for text, named in twice(inner):
                rest = "".join(
                    f", {json.dumps(name)}: {json.dumps(each)}" for name, each in value.items() if name != key
                )
                yield f"{{{json.dumps(key)}: {text}{rest}}}", named
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            for text, named in twice(inner):
                yield f"[{', '.join([*map(json.dumps, value[:i]), text, *map(json.dumps, value[i + 1 :])])}]", named


@pytest.mark.parametrize("door", DOORS)
def test_a_key_that_stands_twice_is_refused(client: httpx.Client, door: str) -> None:
    bodies = list(twice(DOORS[door]))
    assert len(bodies) >= len(DOORS[door])
    for body, key in bodies:
        answer = send(client, door, body.encode())
        assert (answer.status_code, repr(key) in answer.json()["detail"]) == (422, True), body
        assert "stands twice" in answer.json()["detail"]


def test_a_key_stands_twice_however_it_is_written(client: httpx.Client) -> None:
    answer = send(client, "/predict-lru-cached", rb'{"text": "a", "model": "a", "mod\u0065l": "b"}')
    assert (answer.status_code, "'model' stands twice" in answer.json()["detail"]) == (422, True)


def test_long_numbers_are_not_in_the_way(client: httpx.Client) -> None:
    body = json.dumps(INFER | {"parameters": {"of a client": 1}}).replace('client": 1', f'client": {"1" * 4300}')
    assert send(client, "/v2/models/a/infer", body.encode()).status_code == 200


@pytest.mark.parametrize("door", DOORS)
def test_a_header_that_names_another_model_is_refused(client: httpx.Client, door: str) -> None:
    body = json.dumps(DOORS[door]).encode()
    for names in (["a"], ["a", "a"], [""]):
        assert send(client, door, body, *[("X-Model", name) for name in names]).status_code == 200
    for names in (["b"], ["a", "b"], ["b", "a"], ["A"], ["none"]):
        answer = send(client, door, body, *[("X-Model", name) for name in names])
        assert (answer.status_code, "names several models" in answer.json()["detail"]) == (422, True)
        assert ("error" in answer.json()) == has_form_of_its_own(door)


def test_a_header_names_the_model_where_the_body_does_not(client: httpx.Client) -> None:
    for body in (b'{"text": "a"}', b'{"text": "a", "model": null}'):
        assert send(client, "/predict-lru-cached", body).status_code == 422
        for name in "ab":
            answer = send(client, "/predict-lru-cached", body, ("X-Model", name))
            assert (answer.status_code, answer.json()["model"]) == (200, name)
        assert send(client, "/predict-lru-cached", body, ("X-Model", "none")).status_code == 404
        assert send(client, "/predict-lru-cached", body, ("X-Model", "a"), ("X-Model", "b")).status_code == 422


def test_a_node_with_a_secret_answers_only_who_knows_it() -> None:
    secret = "sixteen letters!"
    app = create_app(Settings(models={"a": "embedded"}, cluster={"nodes": 2, "secret": secret}))
    for path in [
        "/strategies",
        "/residency",
        "/metrics",
        "/v2/health/live",
        "/v2",
        "/",
        "/docs",
        "/nothing",
        "/healthz/",
    ]:
        for given in ({}, {"X-Residency-Secret": secret[:-1]}, {"X-Residency-Secret": ""}):
            answer = ask(app, "GET", path, headers=given)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "X-Residency-Secret")
            assert ("error" in answer.json()) == path.startswith("/v2")
            assert secret not in answer.text
        assert ask(app, "GET", path, headers={"X-Residency-Secret": secret}).status_code != 401
    assert ask(app, "POST", "/predict", json={"text": "a"}).status_code == 401
    assert ask(app, "GET", "/healthz").status_code == 200


def test_without_a_secret_the_header_means_nothing() -> None:
    for cluster in (None, {"nodes": 2}):
        app = create_app(Settings(models={"a": "embedded"}, cluster=cluster))
        assert ask(app, "GET", "/strategies", headers={"X-Residency-Secret": "anything"}).status_code == 200


def limited() -> RequestLimits:
    """An app under a strategy whose queues are full."""

    def refuse(strategy: str) -> None:
        raise Overloaded("No slot.", 7)

    return RequestLimits(PlainTextResponse("came through"), Settings(), {"/predict": "persistent"}, refuse)


@pytest.mark.parametrize(
    ("root_path", "path", "status"),
    [
        ("", "/predict", 503),
        ("/api", "/api/predict", 503),  # as uvicorn hands it on under `--root-path /api`
        ("/api/", "/api/predict", 503),
        ("/api", "/predict", 503),
        ("", "/api/predict", 200),
        ("/api", "/apis/predict", 200),
        ("/predict", "/predict/predict", 503),
        ("/api", "/api", 200),
    ],
)
def test_an_early_refusal_works_behind_a_prefix(root_path: str, path: str, status: int) -> None:
    """And for what would read a body: other methods are answered as ever."""
    edge = limited()
    assert ask(edge, "POST", path, root_path).status_code == status
    assert ask(edge, "GET", path, root_path).status_code == 200


def test_dialects_are_refused_early_and_found_behind_a_prefix() -> None:
    settings = Settings(models={"a": "embedded"}, strategies=[{"strategy": "persistent"}, {"strategy": "on-demand"}])
    app = create_app(settings)
    refused = early_refusals(Service(settings, load_plugins()))
    for path in ("/v1/embeddings", "/rerank", "/tasks/score", "/v1/chat/completions"):
        assert (refused[path], refused[f"/on-demand{path}"]) == ("persistent", "on-demand")
    body = {"input": "a", "query": "a", "texts": ["a"]}
    for path in ("/v1/embeddings", "/on-demand/v1/embeddings", "/on-demand/rerank"):
        for root_path, prefix in (("", ""), ("/api", "/api"), ("/api", "")):
            answer = ask(app, "POST", prefix + path, root_path, json=body)
            assert (answer.status_code, "not in memory yet" in answer.json()["detail"]) == (503, True)
            assert "error" in answer.json()


def test_an_early_refusal_works_where_the_app_is_mounted() -> None:
    parent = Router([Mount("/models", Router([Mount("/v1", limited())]))])
    answer = ask(parent, "POST", "/models/v1/predict")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")
    assert ask(parent, "POST", "/outer/models/v1/predict", "/outer").status_code == 503
    assert ask(parent, "POST", "/models/v1/predict-on-demand").status_code == 200


def test_an_app_that_is_mounted_speaks_the_protocol_to_its_own_paths_only() -> None:
    parent = FastAPI()
    parent.mount("/v2/api", create_app(Settings(models={"a": "embedded"})))
    assert "error" in ask(parent, "GET", "/v2/api/v2/models/none").json()
    assert "error" not in ask(parent, "GET", "/v2/api/nothing").json()
    assert ask(parent, "HEAD", "/v2/api/healthz").status_code == 200
