"""Requests that are forwarded to engines: what arrives there, what comes back, and what happens in between."""

from __future__ import annotations

import http.client
import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from core.bench.server import ServerProcess
from tests.helpers.engines import engine, state, wait_until_idle
from tests.helpers.support import in_threads, running, wait_for

TOKEN = "sixteen characters or more"
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("capture") / "trace.jsonl"


@pytest.fixture(scope="module")
def served(capture: Path) -> Iterator[tuple[ServerProcess, httpx.Client]]:
    settings = {
        "models": {
            "fake": engine(aliases=["gpt-4o-mini", "qwen3:4b"]),
            "narrow": engine(parallel=1),
            "slow": engine("--slow 1"),
            "broken": engine("--fail 3"),
        },
        "strategies": [
            {"strategy": "keep-alive", "options": {"ttl": 600}},
            {"strategy": "on-demand"},
        ],
        "default": "fake",
        "token": TOKEN,
        "max_queue": 3,
        "capture": str(capture),
        "log": "json",
    }
    with running(settings) as (server, client):
        yield server, client


@pytest.fixture
def client(served: tuple[ServerProcess, httpx.Client]) -> httpx.Client:
    return served[1]


def echo(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer | {"fields": {name.lower(): value for name, value in answer["headers"]}}


def test_byte_for_byte(client: httpx.Client) -> None:
    body = bytes(range(256)) * 5
    headers = {
        "Content-Type": "application/x-odd",
        "X-One": "1, 2",
        "Authorization": "Bearer the engine's own",
        "Connection": "keep-alive, X-Hop",
        "X-Hop": "is for this connection",
        "TE": "trailers",
    }
    heard = echo(client.request("PATCH", "/upstream/fake/a%2Fb/c%20d?e=%2F&f", content=body, headers=headers))
    assert (heard["method"], heard["path"]) == ("PATCH", "/a%2Fb/c%20d?e=%2F&f")
    assert heard["body"].encode("latin-1") == body
    fields = heard["fields"]
    assert fields["content-length"] == str(len(body))
    assert (fields["content-type"], fields["x-one"]) == ("application/x-odd", "1, 2")
    assert fields["authorization"] == "Bearer the engine's own"
    assert not {"x-hop", "te", "x-residency-secret", "accept-charset"} & fields.keys()
    assert fields["host"].startswith("127.0.0.1:")
    assert fields["host"] != client.base_url.netloc.decode()


def test_own_secrets_stay_here(client: httpx.Client) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", "X-Api-Key": TOKEN, "X-Residency-Secret": "s"}
    heard = echo(client.post(CHAT, json={"model": "fake"}, headers=headers))
    assert not {"authorization", "x-api-key", "x-residency-secret"} & heard["fields"].keys()


@pytest.mark.parametrize(
    "named",
    [
        {"json": {"model": "qwen3:4b"}},
        {"data": {"model": "gpt-4o-mini", "n": "1"}},
        {"data": {"model": "fake"}, "files": {"file": ("a.wav", b"\r\n--x\r\nname=model" * 99)}},
        {"params": {"model": "fake"}, "content": b"\xff"},
        {"headers": {"X-Model": "fake"}, "content": b"{"},
        {"content": b'{"model": "fake"}', "headers": {"Content-Type": "text/plain"}},
        {"json": {"messages": []}},
    ],
    ids=["json", "form", "multipart", "query", "header", "text", "default"],
)
def test_wherever_the_model_is_named(client: httpx.Client, named: dict[str, Any]) -> None:
    heard = echo(client.post("/v1/audio/transcriptions", **named))
    assert heard["path"].startswith("/v1/audio/transcriptions")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"model": "fake", "model": "narrow"}', 422),
        (b'{"model": "fake", "mod\\u0065l": "narrow"}', 422),
        (b'{"model": 5}', 422),
        (b'{"model": "nobody"}', 404),
    ],
)
def test_names_that_are_refused(client: httpx.Client, body: bytes, status: int) -> None:
    assert client.post(CHAT, content=body).status_code == status
    twice = client.post(CHAT, json={"model": "fake"}, headers={"X-Model": "narrow"})
    assert (twice.status_code, "several models" in twice.text) == (422, True)


def test_what_comes_back(client: httpx.Client) -> None:
    echo(client.post(CHAT, json={"model": "fake"}))
    response = client.post(CHAT, json={"model": "fake"}, headers={"X-Request-Id": "mine"})
    assert response.headers["X-Residency-Cold"] == "false"
    assert response.headers["X-Request-Id"] == "mine"
    assert {part.split(";")[0] for part in response.headers["Server-Timing"].split(", ")} == {
        "queue",
        "load",
        "inference",
    }
    assert [name for name, _ in response.headers.multi_items()].count("date") == 1
    missing = client.request("TRACE", "/upstream/fake/x")
    assert missing.status_code == 405
    head = client.head("/upstream/fake/health")
    assert (head.status_code, head.content) == (501, b"")  # the fake engine knows no HEAD, and heard one
    assert int(head.headers["Content-Length"]) > 0


def test_cold_and_on_demand(client: httpx.Client) -> None:
    for _ in range(2):
        response = client.post(f"/on-demand{CHAT}", json={"model": "fake"})
        assert response.headers["X-Residency-Cold"] == "true"
        assert "load-" in response.headers["Server-Timing"]
        assert echo(response)["path"] == CHAT
    wait_for(lambda: state(client, "fake", 1)["state"] == "absent")


def test_an_engine_that_crashes(client: httpx.Client) -> None:
    echo(client.post(CHAT, json={"model": "narrow"}))
    crashed = client.post(CHAT, json={"model": "narrow", "exit": 3})
    assert (crashed.status_code, crashed.headers["Retry-After"]) == (503, "1")
    assert "'narrow' has ended during the request" in crashed.text
    again = client.post(CHAT, json={"model": "narrow"})
    assert (again.status_code, again.headers["X-Residency-Cold"]) == (200, "true")
    wait_until_idle(client, "narrow")
    assert [change["reason"] for change in state(client, "narrow")["history"]][:2] == ["crash", "crash"]


def test_an_engine_that_has_ended_between_requests(client: httpx.Client) -> None:
    pid = echo(client.post(CHAT, json={"model": "narrow"}))["pid"]
    wait_until_idle(client, "narrow")
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: _has_ended(pid))
    answers = in_threads(3, lambda _: client.post(CHAT, json={"model": "narrow"}))
    assert [answer.status_code for answer in answers] == [200] * 3
    assert len({echo(answer)["pid"] for answer in answers} | {pid}) == 2


def _has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_an_engine_that_cannot_start(client: httpx.Client) -> None:
    response = client.post(CHAT, json={"model": "broken"})
    assert response.status_code == 503
    assert "Loading model 'broken' failed" in response.json()["detail"]


def test_the_queue_is_bounded(client: httpx.Client) -> None:
    echo(client.post(CHAT, json={"model": "narrow", "seconds": 0.3}))  # a service time to go by
    with ThreadPoolExecutor(5) as pool:
        body: dict[str, Any] = {"model": "narrow"}
        waiting = [pool.submit(client.post, CHAT, json=body | {"seconds": 2})]
        wait_for(lambda: state(client, "narrow")["in_use"] == 1)
        waiting += [pool.submit(client.post, CHAT, json=body) for _ in range(2)]
        wait_for(lambda: 'in_flight{strategy="keep-alive"} 3' in client.get("/metrics").text)
        refused = client.post(CHAT, json=body)
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) >= 1
        assert [future.result().status_code for future in waiting] == [200] * 3


def test_deadlines(client: httpx.Client) -> None:
    late = client.post(CHAT, json={"model": "slow"}, headers={"X-Request-Timeout": "0.2"})
    assert (late.status_code, "deadline" in late.text) == (503, True)
    wait_for(lambda: state(client, "slow")["state"] == "resident")  # the load went on
    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(client.post, CHAT, json={"model": "narrow", "seconds": 1.5})
        wait_for(lambda: state(client, "narrow")["in_use"] == 1)
        late = client.post(CHAT, json={"model": "narrow"}, headers={"X-Request-Timeout": "0.1"})
        assert late.status_code == 503
        assert busy.result().status_code == 200
    assert client.post(CHAT, json={"model": "fake"}, headers={"X-Request-Timeout": "x"}).status_code == 422


def test_records(served: tuple[ServerProcess, httpx.Client], capture: Path) -> None:
    client = served[1]
    echo(client.post(CHAT, json={"model": "fake"}))  # the next one is warm
    began, before = time.time(), _answered(client)
    echo(client.post(CHAT, json={"model": "gpt-4o-mini"}))
    assert _answered(client) == before + 1
    last = json.loads(capture.read_text().splitlines()[-1])
    assert last["model"] == "fake"
    assert last["time"] >= began - 1
    assert state(client, "fake")["latency_ms"]["warm"]["count"] >= 1
    assert 'residency_inference_seconds_total{model="fake"' in client.get("/metrics").text


def _answered(client: httpx.Client) -> float:
    name = 'residency_requests_total{model="fake",outcome="answered",strategy="keep-alive"} '
    return float(
        next((line[len(name) :] for line in client.get("/metrics").text.splitlines() if line.startswith(name)), 0)
    )


def test_an_upgrade_is_refused(client: httpx.Client) -> None:
    connection = http.client.HTTPConnection(client.base_url.host, client.base_url.port)
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
    }
    connection.request("GET", "/upstream/fake/v1/realtime", headers=headers)
    response = connection.getresponse()
    assert (response.status, b"HTTP only" in response.read()) == (501, True)
    connection.close()
