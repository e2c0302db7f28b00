"""What the served app makes of HTTP itself: methods, encodings, prefixes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from core.app import create_app
from core.settings import Settings
from tests.support import FAKES, checkpoint_in, running

PROBES = ["/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/v2/models/a/ready", "/v2", "/v2/models/a"]
PAGE = ["/", "/page.css", "/page.js", "/docs", "/openapi.json"]
TOLD = ["/strategies", "/residency", "/metrics"]
WRONG = ["/nothing", "/v2/models/none/ready", "/residency?history=-1"]
CHANGING = {"x-request-id", "date"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("models")
    settings = {
        "strategies": [{"strategy": "lru-cached", "loader": "fake"}],
        "models": {name: str(checkpoint_in(folder / name)) for name in "ab"},
        "plugins": [FAKES],
    }
    with running(settings) as (_, client):
        yield client


def ask(app: FastAPI, method: str, path: str, **more: Any) -> httpx.Response:
    """In this process; nothing is started, so that the app is not ready."""

    async def asked() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
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
