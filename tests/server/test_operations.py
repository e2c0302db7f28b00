"""Seeing and steering a served app: metrics, residency, loading by hand, logs, hosts and overload."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from core.app import announcement, create_app
from core.bench.client import connect
from core.checkpoints.embedded import embedded_directory
from core.config.choices import Cost, StrategyChoice
from core.config.settings import Settings
from core.errors import ResidencyError
from core.http import access
from core.plugins import load_plugins
from core.serving.queue import request_id
from core.serving.service import Service
from tests.helpers.support import FAKES, ROOT, SECONDS, checkpoint_in, gated, running, uvicorn, wait_for
from tests.unit.test_engine import LEARNER

TOKEN = "a token of the tests"
STEER = {"Authorization": f"Bearer {TOKEN}"}
LRU = {"strategy": "lru-cached", "loader": "fake", "options": {"capacity": 1}}
KEPT = {"strategy": "keep-alive", "loader": "fake", "options": {"ttl": 600, "memory_budget": 2000}}
Client = httpx.Client


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: checkpoint_in(folder / name) for name in "abc"}


@pytest.fixture(scope="module")
def client(directories: dict[str, Path]) -> Iterator[Client]:
    with running(
        {
            "strategies": [LRU, KEPT, {"strategy": "on-demand", "loader": "fake"}],
            "models": {name: str(path) for name, path in directories.items()},
            "plugins": [FAKES],
            "token": TOKEN,
            "allowed_hosts": ["127.0.0.1", "models.example"],
            "max_queue": 4,
        }
    ) as (_, client):
        yield client


def ask(client: Client, model: str, strategy: str = "lru-cached", **headers: str) -> httpx.Response:
    return client.post(f"/predict-{strategy}", json={"text": "good", "model": model}, headers=headers)


def state(client: Client, strategy: str, model: str) -> dict[str, Any]:
    [found] = [s for s in client.get("/residency").json()["strategies"] if s["name"] == strategy]
    return dict(next(m for m in found["models"] if m["model"] == model))


def steer(client: Client, model: str, action: str, strategy: str, **headers: str) -> httpx.Response:
    return client.post(f"/models/{model}/{action}", json={"strategy": strategy}, headers=headers or STEER)


def metrics(client: Client) -> dict[str, dict[str, float]]:
    """Value by name and by labels, as `model=a,strategy=…`."""
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def test_residency_tells_who_goes_next_and_what_happened(client: Client) -> None:
    for model in "abc":
        steer(client, model, "unload", "lru-cached")
    before = state(client, "lru-cached", "b")["latency_ms"]
    assert ask(client, "a").json()["cold"]
    assert ask(client, "b").json()["cold"]  # there is room for one
    a, b = state(client, "lru-cached", "a"), state(client, "lru-cached", "b")
    assert (a["state"], b["state"]) == ("absent", "resident")
    assert [(event["event"], event["reason"]) for event in a["history"][:2]] == [
        ("unload", "capacity"),
        ("load", "request"),
    ]
    assert b["next_out"]
    assert b["why"] == "it is the least recently used idle model"
    assert b["bytes"] == 1000
    assert b["in_use"] == 0
    assert b["since"] <= b["last_use"] <= time.time()
    assert b["latency_ms"]["cold"]["count"] == before["cold"]["count"] + 1
    assert b["latency_ms"]["warm"] == before["warm"]
    [latest] = client.get("/residency?history=1").json()["strategies"][0]["models"][0]["history"]
    assert latest["event"] == "unload"
    assert client.get("/residency?history=401").status_code == httpx.codes.UNPROCESSABLE_ENTITY
    never = state(client, "on-demand", "c")["latency_ms"]["warm"]
    assert never == {"count": 0, "p50": None, "p95": None}
    memory = client.get("/residency").json()["memory"]
    assert 0 < memory["private_bytes"] <= memory["pss_bytes"]


def test_residency_tells_when_a_model_expires(client: Client) -> None:
    ask(client, "a", "keep-alive")
    ask(client, "b", "keep-alive")
    a, b = state(client, "keep-alive", "a"), state(client, "keep-alive", "b")
    assert a["expires"] == pytest.approx(a["last_use"] + 600, abs=1)
    assert (a["next_out"], b["next_out"]) == (True, False)
    assert b["why"] == "'a' would be evicted before it"
    [kept] = [s for s in client.get("/residency").json()["strategies"] if s["name"] == "keep-alive"]
    assert (kept["budget_bytes"], kept["resident_bytes"]) == (2000, 2000)


def test_loads_and_unloads_by_hand(client: Client) -> None:
    answer = steer(client, "c", "load", "lru-cached")
    assert (answer.status_code, answer.json()["state"]) == (200, "resident")
    assert not ask(client, "c").json()["cold"]
    assert steer(client, "c", "unload", "lru-cached").json()["state"] == "absent"
    assert steer(client, "c", "unload", "lru-cached").json()["state"] == "absent"  # it is gone already
    assert state(client, "lru-cached", "c")["history"][0]["reason"] == "manual"
    assert ask(client, "c").json()["cold"]


@pytest.mark.parametrize(
    ("path", "strategy", "headers", "status"),
    [
        ("/models/a/load", "lru-cached", {}, 401),
        ("/models/a/load", "lru-cached", {"Authorization": "Bearer another token, as long"}, 401),
        ("/models/a/load", "lru-cached", {"Authorization": "Basic YTpi"}, 401),
        ("/models/a/load", "lru", STEER, 404),
        ("/models/z/load", "lru-cached", STEER, 404),
        ("/models/a/load", "on-demand", STEER, 405),
    ],
)
def test_refuses_to_be_steered(client: Client, path: str, strategy: str, headers: dict[str, str], status: int) -> None:
    answer = client.post(path, json={"strategy": strategy}, headers=headers)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert ("www-authenticate" in answer.headers) == (status == 401)


def test_a_model_in_use_is_not_unloaded(client: Client, directories: dict[str, Path]) -> None:
    with ThreadPoolExecutor(1) as pool, connect(str(client.base_url), SECONDS) as other:
        steer(client, "a", "unload", "lru-cached")
        with gated(directories["a"]) as gate:
            hanging = pool.submit(ask, other, "a")
            gate.wait_for_load()
            assert steer(client, "a", "unload", "lru-cached").status_code == 409
            assert state(client, "lru-cached", "a")["state"] == "loading"
        assert hanging.result(SECONDS).status_code == 200


def test_without_a_token_nobody_steers(tmp_path: Path) -> None:
    settings = Settings(models={"a": str(checkpoint_in(tmp_path / "a"))})
    assert not [path for path in create_app(settings).openapi()["paths"] if path.endswith(("/load", "/unload"))]


def test_who_made_the_app_reads_no_settings_anew() -> None:
    paths = create_app(Settings.model_validate({"token": TOKEN})).openapi()["paths"]
    assert "/models/{model_id}/load" in paths
    assert "/reload" not in paths


def test_settings_are_read_anew_while_requests_run(tmp_path: Path) -> None:
    for name in "abc":
        checkpoint_in(tmp_path / name)
    config = tmp_path / "app.yaml"

    def write(models: str, capacity: int, **more: Any) -> None:
        strategy = {"strategy": "lru-cached", "loader": "fake", "options": {"capacity": capacity}}
        settings = {"models": {name: name for name in models}, "strategies": [strategy], "plugins": [FAKES], **more}
        config.write_text(yaml.safe_dump(settings))

    write("ab", 2, default="a")
    variables = {"RESIDENCY_CONFIG": str(config), "RESIDENCY_TOKEN": TOKEN}
    with uvicorn(tmp_path / "log", variables=variables) as client:
        assert client.post("/reload").status_code == 401
        for model in "ab":
            assert ask(client, model).status_code == 200
        write("bc", 1, default="c")
        [strategy] = client.post("/reload", headers=STEER).json()["strategies"]
        assert strategy["options"] == {"capacity": 1}
        assert [model["model"] for model in strategy["resident"]] == ["b"]
        assert ask(client, "a").status_code == 404
        assert client.post("/predict-lru-cached", json={"text": "good"}).json()["model"] == "c"
        body = client.get("/openapi.json").json()["paths"]["/predict-lru-cached"]["post"]["requestBody"]
        assert body["content"]["application/json"]["schema"]["properties"]["model"]["default"] == "c"

        def refused(sentence: str) -> None:
            answer = client.post("/reload", headers=STEER)
            assert answer.status_code == 422
            assert sentence in answer.json()["detail"]
            assert str(tmp_path) not in answer.text
            assert ask(client, "c").status_code == 200

        write("bc", 1, default="c", max_texts=5)
        refused("max_texts: restart the server to change it; models, default, strategies, cost change at once.")
        write("bc", 1, default="a")
        refused("default: must be one of the ids in 'models', not 'a'")
        write("bcd", 1, default="c")
        refused("no such")
        config.write_text("models: [")
        refused(":2:1: is not valid YAML")


def test_what_strategies_learn_is_kept_where_the_settings_say(tmp_path: Path) -> None:
    (tmp_path / "learner.py").write_text(LEARNER)
    config = tmp_path / "app.yaml"
    config.write_text("state: learned.json\nplugins: [learner.py]\nstrategies: [learner]\nmodels: {a: embedded}\n")
    for total in (2, 4):
        with uvicorn(tmp_path / "log", variables={"RESIDENCY_CONFIG": str(config)}) as client:
            for _ in range(2):
                assert client.post("/predict-learner", json={"text": "good"}).status_code == 200
        assert json.loads((tmp_path / "learned.json").read_text())["strategies"]["learner"] == {"seen": total}


def test_metrics_count_loads_evictions_and_requests(client: Client) -> None:
    ask(client, "c")
    before = metrics(client)
    for model in ("a", "b", "b"):  # there is room for one
        ask(client, model)
    after = metrics(client)

    def gained(name: str, **labels: str) -> float:
        wanted = {f"{key}={value}" for key, value in labels.items()}
        return sum(
            value - before.get(name, {}).get(key, 0.0)
            for key, value in after[name].items()
            if wanted <= set(key.split(","))
        )

    assert gained("residency_requests_total", strategy="lru-cached", outcome="answered") == 3
    assert gained("residency_requests_total", strategy="lru-cached", model="b", outcome="answered") == 2
    assert gained("residency_loads_total", strategy="lru-cached", model="b", loader="fake", reason="request") == 1
    assert gained("residency_unloads_total", strategy="lru-cached", model="a", reason="capacity") == 1
    assert gained("residency_unloads_total") == gained("residency_age_at_eviction_seconds_count") == 2
    assert gained("residency_request_seconds_count", strategy="lru-cached", start="cold") == 2
    assert gained("residency_request_seconds_count", strategy="lru-cached", start="warm") == 1
    assert gained("residency_queue_seconds_count") == 3
    assert gained("residency_batch_texts_sum") == 3
    assert gained("residency_load_seconds_count", strategy="lru-cached", loader="fake") == 2
    assert gained("residency_load_phase_seconds_count", loader="fake", phase="weights") == 2
    assert after["residency_resident_bytes"]["strategy=lru-cached"] == 1000
    assert after["residency_budget_bytes"]["strategy=keep-alive"] == 2000
    assert set(after["residency_in_flight"].values()) == {0.0}
    ask(client, "a", "keep-alive")
    expires, last_use = (state(client, "keep-alive", "a")[key] for key in ("expires", "last_use"))
    assert metrics(client)["residency_timeout_seconds"]["model=a,strategy=keep-alive"] == pytest.approx(
        expires - last_use, abs=0.01
    )
    assert 0 < after["residency_process_private_bytes"][""] <= after["residency_process_pss_bytes"][""]


def test_the_dashboard_shows_metrics_that_there_are(client: Client) -> None:
    """With the labels that it asks for."""
    text = (ROOT / "core/serving/grafana.json").read_text()
    for model in "ab":
        ask(client, model)  # the second evicts the first
    labels = {name: set(re.findall(r"(\w+)=", ",".join(series))) for name, series in metrics(client).items()}
    for name, asked in re.findall(r"(residency_\w+)(?:{(.*?)})?", text):
        assert set(re.findall(r"(\w+)=", asked)) <= labels[name], name
    dashboard = json.loads(text)
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))


def test_overload_is_refused_at_once_and_passes(client: Client, directories: dict[str, Path]) -> None:
    """While a load hangs, four wait; whoever comes then is told when to come again, and all else answers."""
    url = str(client.base_url)

    def wait() -> httpx.Response:
        with connect(url, SECONDS) as own:
            return ask(own, "c", "keep-alive")

    with gated(directories["c"]) as gate, ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(wait) for _ in range(4)]
        gate.wait_for_load()
        wait_for(lambda: state(client, "keep-alive", "c")["waiting"] == 4)
        refused = [ask(client, "c", "keep-alive") for _ in range(20)]
        assert {answer.status_code for answer in refused} == {503}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        assert max(answer.elapsed.total_seconds() for answer in refused) < 30  # the time that a request may wait
        for path in ("/healthz", "/readyz", "/metrics", "/residency", "/strategies"):
            assert client.get(path).status_code == 200
        assert ask(client, "a").status_code == 200
        assert ask(client, "b", "keep-alive").status_code == 200  # there is room for two
        gate.open()
        assert [future.result(SECONDS).status_code for future in waiting] == [200] * 4
    assert ask(client, "c", "keep-alive").status_code == 200


def test_a_refusal_is_counted_for_the_model_that_was_asked_for(client: Client, directories: dict[str, Path]) -> None:
    """Or for none, where all queues are full and nobody reads a body to know."""
    url = str(client.base_url)

    def wait(model: str) -> httpx.Response:
        with connect(url, SECONDS) as own:
            return ask(own, model, "on-demand")

    def counted() -> list[float]:
        found = metrics(client)["residency_requests_total"]
        return [found.get(f"model={model},outcome=overloaded,strategy=on-demand", 0.0) for model in ("a", "b", "c", "")]

    def waiting(*models: str) -> bool:
        return all(state(client, "on-demand", model)["waiting"] == 4 for model in models)

    before = counted()
    with ThreadPoolExecutor(12) as pool, gated(directories["a"]), gated(directories["b"]), gated(directories["c"]):
        held = [pool.submit(wait, "b") for _ in range(4)]
        wait_for(lambda: waiting("b"))
        assert [ask(client, model, "on-demand").status_code for model in "bb"] == [503, 503]
        held += [pool.submit(wait, model) for model in "ac" for _ in range(4)]
        wait_for(lambda: waiting("a", "b", "c"))
        for model in ("c", "c", "none"):
            assert ask(client, model, "on-demand").status_code == 503
        gained = [after - earlier for after, earlier in zip(counted(), before, strict=True)]
    assert gained == [0, 2, 0, 3]
    assert [future.result(SECONDS).status_code for future in held] == [200] * 12


def test_a_deadline_passes_while_a_load_hangs(client: Client, directories: dict[str, Path]) -> None:
    steer(client, "a", "unload", "lru-cached")
    with gated(directories["a"]) as gate:
        answer = ask(client, "a", **{"X-Request-Timeout": "0.2"})
        assert (answer.status_code, "deadline passed" in answer.json()["detail"]) == (503, True)
        gate.open()
    assert ask(client, "a").status_code == 200
    assert ask(client, "a", **{"X-Request-Timeout": "soon"}).status_code == 422


def test_only_known_hosts_are_answered(client: Client) -> None:
    for host, status in [("models.example", 200), ("MODELS.example:8001", 200), ("evil.example", 421), ("", 421)]:
        assert client.get("/healthz", headers={"Host": host}).status_code == status


def test_every_answer_has_a_request_id(client: Client) -> None:
    assert client.get("/healthz", headers={"X-Request-ID": "abc-1"}).headers["x-request-id"] == "abc-1"
    made = client.get("/nothing-here", headers={"X-Request-ID": 'a"b'})
    assert (made.status_code, len(made.headers["x-request-id"])) == (404, 16)


def test_the_log_says_as_json_what_each_request_cost(tmp_path: Path) -> None:
    log = tmp_path / "log"
    variables = {
        "RESIDENCY_LOG": "json",
        "RESIDENCY_PLUGINS": FAKES,
        "RESIDENCY_STRATEGIES": "[{strategy: on-demand, loader: fake}]",
    }
    with uvicorn(log, variables=variables) as client:
        headers = {"X-Request-ID": "mine"}
        assert client.post("/predict-on-demand", json={"text": "good"}, headers=headers).status_code == 200
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    [request] = [line for line in lines if line["request_id"] == "mine" and line["logger"] == "residency.access"]
    assert {key: request[key] for key in ("method", "path", "status", "strategy", "model", "cold", "batch")} == {
        "method": "POST",
        "path": "/predict-on-demand",
        "status": 200,
        "strategy": "on-demand",
        "model": "embedded",
        "cold": True,
        "batch": 1,
    }
    parts = ("queue_ms", "load_ms", "inference_ms")
    assert request["ms"] >= sum(request[part] for part in parts) > 0
    [loaded] = [line for line in lines if "loaded" in line["message"]]
    assert loaded["request_id"] == "mine"


def ready(log: Path) -> str:
    """What the server says once it is ready: a line that comes just after it is."""
    wait_for(lambda: "Ready after " in log.read_text())
    [line] = [line for line in log.read_text().splitlines() if "Ready after " in line]
    return line


def test_the_log_says_what_is_served_without_any_setting(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with uvicorn(log, variables={"RESIDENCY_CACHE": str(embedded_directory().parent)}):
        line = ready(log)
    assert re.match(r"INFO:     Ready after \d+\.\d\d s\. Models: embedded \(embedded\)\. Strategies: ", line)
    assert "persistent at /predict (onnxruntime), on-demand at /predict-on-demand (onnxruntime), " in line
    assert line.endswith(". Configured by RESIDENCY_CACHE.")


def test_the_log_says_what_is_served_and_who_said_so(tmp_path: Path) -> None:
    """In one line, however many models there are, and as JSON; never the token itself."""
    log, config = tmp_path / "log", tmp_path / "app.yaml"
    models = {f"m{i}": "embedded" for i in range(20)}
    config.write_text(json.dumps({"models": models, "plugins": [FAKES], "strategies": ["lru-cached"]}))
    variables = {
        "RESIDENCY_CONFIG": str(config),
        "RESIDENCY_LOG": "json",
        "RESIDENCY_TOKEN": TOKEN,
        "RESIDENCY_STRATEGIES": "[{strategy: keep-alive, loader: fake}]",
        "RESIDENCY_MAX_TEXT": "",
        "RESIDENCY_CACHE": str(embedded_directory().parent),
    }
    with uvicorn(log, variables=variables):
        line = json.loads(ready(log))
    assert (line["level"], line["logger"]) == ("INFO", "residency")
    assert line["message"].partition(". Models: ")[2] == (
        "m0 (embedded), m1 (embedded), m2 (embedded) …and 17 more."
        " Strategies: keep-alive at /predict-keep-alive (fake)."
        f" Configured by {config}, RESIDENCY_CACHE, RESIDENCY_LOG, RESIDENCY_STRATEGIES, RESIDENCY_TOKEN."
    )
    assert TOKEN not in log.read_text()


def test_of_a_thousand_models_the_log_names_three() -> None:
    service = Service(Settings(models={f"m{i}": "embedded" for i in range(1000)}), load_plugins([]))
    assert "Models: m0 (embedded), m1 (embedded), m2 (embedded) …and 997 more. " in announcement(service, "a test", 0.5)


def test_a_server_that_cannot_start_never_says_that_it_is_ready(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with uvicorn(log, variables={"RESIDENCY_MODELS": f"{{a: {tmp_path}}}"}):
        said = log.read_text()
    assert "CRITICAL: Model 'a': " in said
    assert "Ready" not in said


def test_the_log_as_text_names_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    written = StringIO()
    monkeypatch.setattr(access.log, "handlers", [logging.StreamHandler(written)])
    monkeypatch.setattr(access.access, "disabled", access.access.disabled)
    access.set_up_logs("text")
    access.log.warning("before any %s", "request")
    token = request_id.set("mine")
    try:
        access.log.warning("%s: loaded", "on-demand")
    finally:
        request_id.reset(token)
    assert written.getvalue() == "before any request\n[mine] on-demand: loaded\n"


def test_metrics_of_several_workers_are_added_up(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    variables = {
        "PROMETHEUS_MULTIPROC_DIR": str(shared),
        "RESIDENCY_PLUGINS": FAKES,
        "RESIDENCY_STRATEGIES": "[{strategy: persistent, loader: fake}]",
    }
    log = tmp_path / "log"
    with uvicorn(log, "--workers", "2", variables=variables) as client:
        url = str(client.base_url)

        def workers() -> set[str]:
            with connect(url, SECONDS) as fresh:  # whichever worker takes the connection
                fresh.get("/metrics")
            return set(metrics(client).get("residency_process_pss_bytes", {}))

        wait_for(lambda: len(workers()) == 2)
        wait_for(lambda: sum(metrics(client)["residency_loads_total"].values()) == 2)  # both are ready
        for _ in range(20):
            with connect(url, SECONDS) as fresh:
                assert fresh.post("/predict", json={"text": "good"}).status_code == 200
        for _ in range(5):
            with connect(url, SECONDS) as fresh:
                found = metrics(fresh)
                assert found["residency_requests_total"]["model=embedded,outcome=answered,strategy=persistent"] == 20


def test_a_missing_folder_for_the_workers_metrics_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "missing"))
    with pytest.raises(
        ResidencyError, match=r"PROMETHEUS_MULTIPROC_DIR names .*missing, which is not a writable folder"
    ):
        Service(Settings(), load_plugins([]))


def test_strategies_go_by_the_apps_prices_where_they_are_not_given_any() -> None:
    own = StrategyChoice(strategy="keep-alive", options={"cpu_hour": 3.0})
    settings = Settings(strategies=[own, StrategyChoice(strategy="persistent")], cost=Cost(memory_gib_hour=2.0))
    kept, persistent = Service(settings, load_plugins()).strategies
    assert kept.options == {"memory_gib_hour": 2.0, "cpu_hour": 3.0, "latency_hour": 0.0}
    assert persistent.options == {}
