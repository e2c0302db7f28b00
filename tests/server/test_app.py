"""The served app, in real server processes."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from core.app import create_app
from core.bench.client import connect
from core.bench.server import ServerProcess
from core.config.settings import Settings, settings_from_environment
from core.errors import ResidencyError
from core.plugins import load_plugins
from core.serving.service import Service
from tests.helpers.support import FAKES, SECONDS, checkpoint_in, gated, run_python, running, wait_for

ROUTES = {"persistent": "/predict", "on-demand": "/predict-on-demand", "lru-cached": "/predict-lru-cached"}
Client = httpx.Client


def fake_settings(*directories: Path, strategies: list[Any] | None = None) -> dict[str, Any]:
    return {
        "strategies": strategies or [{"strategy": name, "loader": "fake"} for name in ROUTES],
        "models": {path.name: str(path) for path in directories},
        "plugins": [FAKES],
    }


@pytest.fixture(scope="module")
def real() -> Iterator[Client]:
    """What `uvicorn core.app:app` serves without any setting."""
    with running({}) as (_, client):
        yield client


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("models")
    with running(fake_settings(checkpoint_in(folder / "a"), checkpoint_in(folder / "b")) | {"max_body": "10KiB"}) as (
        _,
        c,
    ):
        yield c


def status_of(client: Client, name: str) -> dict[str, Any]:
    [found] = [s for s in client.get("/strategies").json()["strategies"] if s["name"] == name]
    return dict(found)


def test_64_first_requests_at_a_time_are_one_load() -> None:
    with running({"strategies": ["lru-cached"]}) as (server, client):
        assert status_of(client, "lru-cached")["loads"] == 0
        with ThreadPoolExecutor(64) as pool:
            answers = list(pool.map(lambda i: _post(server.url, ROUTES["lru-cached"], f"text {i}"), range(64)))
        assert [answer.status_code for answer in answers] == [200] * 64
        assert status_of(client, "lru-cached")["loads"] == 1
        assert any(answer.json()["cold"] for answer in answers)
        assert not client.post(ROUTES["lru-cached"], json={"text": "later"}).json()["cold"]


@pytest.mark.parametrize("name", ROUTES)
def test_predicts_in_the_order_of_the_texts(real: Client, name: str) -> None:
    texts = ["I love this phone.", "The soup was cold and awful.", ""]
    real.post(ROUTES[name], json={"text": "before"})
    response = real.post(ROUTES[name], json={"texts": texts})
    answer = response.json()
    assert response.status_code == 200
    assert set(answer) == {"strategy", "model", "predictions", "cold"}
    assert (answer["strategy"], answer["model"]) == (name, "embedded")
    assert [p["label"] for p in answer["predictions"]][:2] == ["POSITIVE", "NEGATIVE"]
    assert all(0.5 <= p["score"] <= 1 for p in answer["predictions"])
    assert answer["cold"] == (name == "on-demand")
    parts = [part.partition(";dur=") for part in response.headers["server-timing"].split(", ")]
    timing = {part: float(ms) for part, _, ms in parts}
    assert {"queue", "load", "inference"} <= set(timing)
    assert (timing["load"] > 0) == answer["cold"]
    assert timing["inference"] > 0


def test_counts_loads_and_what_is_resident(real: Client) -> None:
    for route in ROUTES.values():
        for _ in range(3):
            assert real.post(route, json={"text": "fine"}).status_code == 200
    kept, loaded, cached = (status_of(real, name) for name in ROUTES)
    assert (kept["loads"], kept["unloads"], len(kept["resident"])) == (1, 0, 1)
    assert loaded["loads"] == loaded["unloads"] >= 3
    assert loaded["resident"] == []
    assert cached["loads"] == 1
    [model] = cached["resident"]
    assert (model["model"], set(model)) == ("embedded", {"model", "bytes", "since"})
    assert 35e6 < model["bytes"] < 45e6
    assert (kept["route"], kept["loader"], kept["options"]) == ("/predict", "onnxruntime", {})


def test_openapi_has_examples_that_work(real: Client) -> None:
    assert real.get("/docs").status_code == 200
    paths = real.get("/openapi.json").json()["paths"]
    for route in ROUTES.values():
        examples = paths[route]["post"]["requestBody"]["content"]["application/json"]["examples"]
        assert len(examples) == 3
        for example in examples.values():
            assert real.post(route, json=example["value"]).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ('{"text": "x", "model": "nope"}', 404, "no model 'nope'. Models: a, b."),
        ('{"text": "x", "model": "../a"}', 404, "no model '../a'"),
        ('{"text": "x", "model": ""}', 404, "no model ''"),
        ('{"text": "x"}', 422, "model: name one of the models of this server: a, b."),
        ('{"text": "x", "model": null}', 422, "name one of the models of this server: a, b."),
        ("{}", 422, "give either 'text' or 'texts'"),
        ('{"text": "x", "texts": ["y"]}', 422, "give either 'text' or 'texts'"),
        ('{"texts": []}', 422, "texts: "),
        ('{"text": 1}', 422, "text: "),
        ('{"texts": "x"}', 422, "texts: "),
        ('{"texts": [' + "1," * 4000 + "1]}", 422, "texts.0: "),
        ("{" + ",".join(f'"{i}": 1' for i in range(1000)) + "}", 422, "in many places"),
        ('{"text": null}', 422, "text: "),
        ('{"text": "x", "reference": "/etc"}', 422, "reference: "),
        ('{"text": "\\ud800"}', 422, "Invalid JSON"),
        ('{"texts": ["' + '","' * 300 + '"]}', 422, "over the limit of 256"),
        ("[" * 5000, 422, ""),
        ("[" * 200_000, 413, ""),
        ('{"text": ' + "9" * 6000 + "}", 422, ""),
        ("no json", 422, ""),
        ("", 422, ""),
        ('{"text": "' + "x" * 20_000 + '"}', 413, "over the limit of 10240 bytes"),
    ],
)
def test_errors_are_problems(fake: Client, body: str, status: int, detail: str) -> None:
    response = fake.post("/predict", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert set(problem) == {"type", "title", "status", "detail"}
    assert problem["status"] == response.status_code
    assert detail in problem["detail"]
    assert "Traceback" not in response.text


def test_unknown_routes_and_methods_are_problems(fake: Client) -> None:
    for response in (fake.get("/nothing"), fake.get("/predict"), fake.delete("/strategies")):
        assert response.status_code in (404, 405)
        assert response.headers["content-type"] == "application/problem+json"
    assert fake.get("/predict").headers["allow"] == "POST"


def test_a_body_over_the_limit_is_refused_before_it_is_sent(fake: Client) -> None:
    """By its announced length; and, sent in chunks without one, once the limit is reached."""
    address = (fake.base_url.host, fake.base_url.port)
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with socket.create_connection(address, SECONDS) as connection:
        connection.sendall(head + b"Content-Length: 1000000000000\r\n\r\n")
        answer = connection.recv(1000)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"problem+json" in answer
    with socket.create_connection(address, SECONDS) as connection:
        connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n" + (b"400\r\n" + b"x" * 1024 + b"\r\n") * 11)
        answer = connection.recv(1000)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"problem+json" in answer


def _post(url: str, route: str, text: str, **more: str) -> httpx.Response:
    with connect(url, SECONDS) as client:
        return client.post(route, json={"text": text, **more})


def test_a_hanging_load_holds_up_nobody_else(tmp_path: Path) -> None:
    slow, quick = checkpoint_in(tmp_path / "slow"), checkpoint_in(tmp_path / "quick")
    settings = fake_settings(
        quick, slow, strategies=[{"strategy": n, "loader": "fake"} for n in ("lru-cached", "on-demand")]
    )
    with running(settings) as (server, client), ThreadPoolExecutor(1) as pool, gated(slow) as gate:
        hanging = pool.submit(_post, server.url, ROUTES["lru-cached"], "good", model="slow")
        gate.wait_for_load()
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.get("/readyz").status_code == 200
        for route in (ROUTES["lru-cached"], ROUTES["on-demand"]):
            assert (
                client.post(route, json={"text": "good", "model": "quick"}).json()["predictions"][0]["label"]
                == "POSITIVE"
            )
        assert not hanging.done()
        gate.open()
        assert hanging.result(SECONDS).json()["cold"] is True


def test_a_failed_load_is_503_without_a_path_and_is_tried_again(tmp_path: Path) -> None:
    bad, good = checkpoint_in(tmp_path / "a secret, folder" / "bad"), checkpoint_in(tmp_path / "good")
    (bad / "broken").touch()
    settings = fake_settings(
        good, bad, strategies=[{"strategy": n, "loader": "fake"} for n in ("lru-cached", "on-demand")]
    )
    with running(settings) as (_, client):
        for route in (ROUTES["lru-cached"], ROUTES["on-demand"]):
            response = client.post(route, json={"text": "x", "model": "bad"})
            assert response.status_code == 503
            assert response.headers["retry-after"]
            assert (
                response.json()["detail"] == "Loading model 'bad' failed: cannot read …/model.safetensors: disk error"
            )
            assert client.post(route, json={"text": "x", "model": "good"}).status_code == 200
        (bad / "broken").unlink()
        for route in (ROUTES["lru-cached"], ROUTES["on-demand"]):
            wait_for(lambda route=route: client.post(route, json={"text": "x", "model": "bad"}).status_code == 200)  # type: ignore[misc]


def test_one_broken_checkpoint_is_503_and_the_others_are_served(tmp_path: Path) -> None:
    bad, good = checkpoint_in(tmp_path / "of acme" / "bad"), checkpoint_in(tmp_path / "good")
    (bad / "model.safetensors").unlink()
    (bad / "model.safetensors").write_bytes(b"torn")
    with running({"models": {"good": str(good), "bad": str(bad)}, "strategies": list(ROUTES)}) as (_, client):
        for route in ROUTES.values():
            response = client.post(route, json={"text": "x", "model": "bad"})
            assert response.status_code == 503
            assert "Loading model 'bad' failed" in response.json()["detail"]
            assert "acme" not in response.text
            assert client.post(route, json={"text": "x", "model": "good"}).status_code == 200


def test_a_broken_index_ends_the_start_with_a_sentence(tmp_path: Path) -> None:
    bad = checkpoint_in(tmp_path / "bad")
    (bad / "model.safetensors").unlink()
    (bad / "model.safetensors.index.json").write_text('{"weight_map": {"a": 5}}')
    with running({"models": {"a": str(bad)}}, ready=False) as (server, _):
        assert server.process.wait(SECONDS) == 1
        assert "is not an index of safetensors files" in server.failure_reason()


def test_is_alive_but_not_ready_while_start_up_loads_run(tmp_path: Path) -> None:
    model = checkpoint_in(tmp_path / "a")
    settings = fake_settings(model, strategies=[{"strategy": "persistent", "loader": "fake"}])
    with gated(model) as gate, running(settings, ready=False) as (server, client):
        gate.wait_for_load()
        assert client.get("/healthz").status_code == 200
        for response in (client.get("/readyz"), client.post("/predict", json={"text": "x"})):
            assert response.status_code == 503
            assert response.headers["content-type"] == "application/problem+json"
        assert client.get("/strategies").json()["strategies"][0]["resident"] == []
        gate.open()
        server.wait_until_ready(client, SECONDS)
        assert client.post("/predict", json={"text": "x"}).json()["cold"] is False


def test_sigterm_lets_a_running_request_finish(tmp_path: Path) -> None:
    model = checkpoint_in(tmp_path / "a")
    settings = fake_settings(model, strategies=[{"strategy": "on-demand", "loader": "fake"}])
    with running(settings) as (server, _), ThreadPoolExecutor(1) as pool, gated(model) as gate:
        request = pool.submit(_post, server.url, ROUTES["on-demand"], "good")
        gate.wait_for_load()
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: _refused(server))
        gate.open()
        assert request.result(SECONDS).json()["predictions"][0]["label"] == "POSITIVE"
        assert server.process.wait(SECONDS) in (0, -signal.SIGTERM)
        assert server.failure_reason().startswith("Running the code of plugin")  # and nothing else


def _refused(server: ServerProcess) -> bool:
    """Whether the server takes no new connection any more."""
    try:
        with connect(server.url, SECONDS) as client:
            client.get("/healthz")
    except httpx.TransportError:
        return True
    return False


def test_what_cannot_start_ends_the_process_with_a_sentence(tmp_path: Path) -> None:
    too_small = {"strategies": [{"strategy": "lru-cached", "options": {"memory_budget": "1MiB"}}]}
    with running(too_small, ready=False) as (server, _):
        assert server.process.wait(SECONDS) == 1
        words = server.failure_reason()
        assert (
            "Strategy 'lru-cached' cannot start: model 'embedded' takes 37.6MiB, more than the memory_budget" in words
        )
        assert "Traceback" not in words


def serve_with(**variables: str) -> str:
    done = run_python("-m", "uvicorn", "core.app:app", "--port", "0", variables=variables)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_wrong_settings_end_the_process_with_a_sentence(tmp_path: Path) -> None:
    config = tmp_path / "app.yaml"
    config.write_text("models: {a: embedded}\nstrategies:\n  - {strategy: lru-cached, options: {size: 3}}\n")
    assert "RESIDENCY_MODEL is not a setting; did you mean RESIDENCY_MODELS?" in serve_with(RESIDENCY_MODEL="embedded")
    assert "RESIDENCY_MAX_TEXTS" in serve_with(RESIDENCY_MAX_TEXTS="none")
    assert "no strategy 'lru'. Known: persistent" in serve_with(RESIDENCY_STRATEGIES="persistent, lru")
    assert "chosen twice" in serve_with(RESIDENCY_STRATEGIES="persistent, persistent")
    assert "no option 'size'; allowed: capacity" in serve_with(RESIDENCY_CONFIG=str(config))
    config.write_text("modells: {a: embedded}\n")
    assert "app.yaml:1:1: modells: is not a known key; allowed: strategies" in serve_with(RESIDENCY_CONFIG=str(config))


EVERY = ["persistent", "on-demand", "lru-cached", "cached", "keep-alive"]


@pytest.mark.parametrize(
    ("settings", "strategies"),
    [
        ({}, EVERY),
        ({"log": "json"}, EVERY),
        ({"models": {"a": "embedded"}}, ["persistent"]),
        ({"models": {"a": "embedded", "b": "embedded"}, "strategies": None}, ["persistent"]),
        ({"models": {"a": "embedded"}, "strategies": ["keep-alive", "on-demand"]}, ["keep-alive", "on-demand"]),
        ({"strategies": ["on-demand"]}, ["on-demand"]),
    ],
)
def test_who_names_models_and_no_strategy_gets_one(settings: dict[str, Any], strategies: list[str]) -> None:
    service = Service(Settings.model_validate(settings), load_plugins([]))
    assert [each.name for each in service.strategies] == strategies


def test_models_of_a_variable_or_a_file_get_one_strategy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mounted() -> list[str]:
        return [each.name for each in Service(settings_from_environment(), load_plugins([])).strategies]

    monkeypatch.setenv("RESIDENCY_MODELS", "")
    assert mounted() == EVERY
    monkeypatch.setenv("RESIDENCY_MODELS", "{a: embedded}")
    assert mounted() == ["persistent"]
    monkeypatch.delenv("RESIDENCY_MODELS")
    (tmp_path / "app.yaml").write_text("models: {a: embedded}")
    monkeypatch.setenv("RESIDENCY_CONFIG", str(tmp_path / "app.yaml"))
    assert mounted() == ["persistent"]


def test_a_default_answers_requests_that_name_no_model(tmp_path: Path) -> None:
    directories = [checkpoint_in(tmp_path / name) for name in "abc"]
    with running(fake_settings(*directories) | {"default": "b"}) as (_, client):
        for route in ROUTES.values():
            assert client.post(route, json={"text": "x"}).json()["model"] == "b"
            assert client.post(route, json={"text": "x", "model": None}).json()["model"] == "b"
            assert client.post(route, json={"text": "x", "model": "c"}).json()["model"] == "c"
            assert client.post(route, json={"text": "x", "model": ""}).status_code == 404


@pytest.mark.parametrize("default", [None, "a", "b"])
@pytest.mark.parametrize("models", ["a", "ab"])
def test_the_document_says_whether_a_request_must_name_a_model(models: str, default: str | None) -> None:
    settings = {"models": dict.fromkeys(models, "embedded")}
    if default is not None and default not in models:
        with pytest.raises(ValueError, match="must be one of the ids in 'models', not 'b'"):
            Settings.model_validate(settings | {"default": default})
        return
    app = create_app(Settings.model_validate(settings | {"default": default}))
    for _ in range(2):  # it is made once, and asked for again
        content = app.openapi()["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
        expected = default or ("a" if models == "a" else None)
        assert content["schema"].get("required", []) == ([] if expected else ["model"])
        assert content["schema"]["properties"]["model"].get("default") == expected
        named = content["schema"]["properties"]["model"]
        assert (named["anyOf"][0] if expected else named)["enum"] == list(models)
        for example in content["examples"].values():
            assert expected or example["value"]["model"] in models


def test_a_default_that_is_no_model_is_refused_at_the_start(tmp_path: Path) -> None:
    config = tmp_path / "app.yaml"
    config.write_text("models: {a: embedded, b: embedded}\ndefault: c\n")
    assert "app.yaml:2:1: default: must be one of the ids in 'models', not 'c'" in serve_with(
        RESIDENCY_CONFIG=str(config)
    )
    assert "RESIDENCY_DEFAULT: must be one of the ids in 'models', not 'a'" in serve_with(RESIDENCY_DEFAULT="a")


def test_a_thousand_models_are_not_all_listed_in_an_error() -> None:
    models = {f"m{i}": "embedded" for i in range(1000)}
    service = Service(Settings(models=models), load_plugins([]))
    with pytest.raises(ResidencyError, match=r"models of this server: m0, m1, .*, m99 …and 900 more\.$"):
        service.find_model(None)


def test_settings_come_from_variables_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "app.yaml").write_text("models: {a: mine, b: embedded}\nmax_body: 1MiB\nstrategies: [persistent]\n")
    monkeypatch.setenv("RESIDENCY_CONFIG", str(tmp_path / "app.yaml"))
    monkeypatch.setenv("RESIDENCY_STRATEGIES", "[{strategy: lru-cached, options: {capacity: 1}}, on-demand]")
    settings = Settings()
    assert settings.models == {"a": str(tmp_path / "mine"), "b": "embedded"}
    assert settings.max_body == 1 << 20
    assert settings.strategies is not None
    assert [choice.strategy for choice in settings.strategies] == ["lru-cached", "on-demand"]
    assert settings.strategies[0].options == {"capacity": 1}


def test_an_app_from_settings_raises_what_a_program_can_catch() -> None:
    assert isinstance(create_app(Settings(models={"a": "embedded"})), FastAPI)
    with pytest.raises(ResidencyError, match="no strategy 'nope'"):
        create_app(Settings.model_validate({"strategies": ["nope"]}))


def test_the_factory_serves_as_well() -> None:
    done = run_python(
        "-c", "import core.app, json; print(json.dumps(sorted(core.app.create_app().openapi()['paths'])))"
    )
    assert set(json.loads(done.stdout)) >= {*ROUTES.values(), "/strategies", "/healthz", "/readyz"}


def test_after_a_body_that_was_too_large_the_connection_serves_on(fake: Client) -> None:
    """Head and body of the next request come apart, and only its own bytes count."""
    for _ in range(20):
        assert fake.post("/predict", content=b"[" * 200_000, headers={"Content-Type": "application/json"}).is_error
        assert fake.post("/predict", json={"text": "good " * 500, "model": "a"}).status_code == 200
