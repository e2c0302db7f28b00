"""What clients see when a part of a cluster fails or changes under load: as a rule, nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from core.cluster.node import NodeProcess
from core.cluster.nodes import Nodes
from tests.helpers.clusters import (
    CONNECTIONS,
    TOKEN,
    RunningCluster,
    alive,
    cluster,
    free_port,
    need_haproxy,
    under_load,
)
from tests.helpers.relay import relay
from tests.helpers.support import SECONDS, wait_for

need_haproxy()

HEALTH = 0.5  # seconds
PATH = "/predict-lru-cached"
MODELS = [f"m{number}" for number in range(6)]
SETTINGS: dict[str, Any] = {
    "models": dict.fromkeys(MODELS, "embedded"),
    "strategies": ["lru-cached"],
    "token": TOKEN,
    "shutdown_timeout": 5,
    "cluster": {"nodes": 2, "health": HEALTH},
}
DONE = "All nodes have the settings"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    with cluster(tmp_path_factory.mktemp("shared"), SETTINGS) as running:
        yield running


@pytest.fixture
def two(shared: RunningCluster) -> RunningCluster:
    """Two nodes that are up, and the placer."""
    shared.wait_until_up("n1", "n2")
    wait_for(lambda: shared.has_child("core.cluster.placer"))
    return shared


def test_a_killed_node_costs_no_request(two: RunningCluster) -> None:
    with under_load(two.port, PATH, MODELS) as load:
        load.wait_for_answers(500)
        usual = max(load.seconds)  # on a busy machine a request may take as long as this anyway
        two.child("n1.sock").kill()
        load.wait_for_answers(1500)
    assert load.errors == []
    assert max(load.seconds) <= usual + 3 * HEALTH
    two.wait_until_up("n1", "n2")


def test_without_the_placer_homes_stay_and_it_comes_back(two: RunningCluster) -> None:
    placer = two.child("core.cluster.placer")
    api = two.api
    with under_load(two.port, PATH, MODELS) as load:
        load.wait_for_answers(50)
        placer.suspend()  # so that it changes nothing in the meantime
        homes = api.homes() | {"m0": ("n2",)}
        api.set_homes(homes)
        placer.kill()
        wait_for(lambda: not alive([placer]))
        load.wait_for_answers(100)
        assert api.homes() == homes
        wait_for(lambda: two.has_child("core.cluster.placer"))
    assert load.errors == []
    wait_for(lambda: two.ask("GET", "/strategies")[0] == 200)


def test_a_killed_haproxy_comes_back_with_its_homes(two: RunningCluster) -> None:
    api = two.api
    homes = api.homes()
    with under_load(two.port, PATH, MODELS) as load:
        load.wait_for_answers(50)
        two.child("haproxy").kill()
        load.wait_for_answers(100)
    assert load.statuses == []
    assert load.broken
    assert homes.items() <= api.homes().items()


def test_a_node_that_hangs_costs_the_requests_that_it_has(two: RunningCluster) -> None:
    node = two.child("n2.sock")
    with under_load(two.port, PATH, MODELS) as load:
        load.wait_for_answers(50)
        node.suspend()
        try:
            wait_for(lambda: two.states()["n2"] == "down")
            assert len(load.errors) <= CONNECTIONS
            load.forget()
            load.wait_for_answers(100)
            assert load.nodes == {"n1"}
        finally:
            node.resume()
        two.wait_until_up("n1", "n2")
        wait_for(lambda: "n2" in load.nodes)
    assert load.errors == []


def test_nodes_join_and_leave_without_a_failed_request(two: RunningCluster) -> None:
    with under_load(two.port, PATH, MODELS) as load:
        two.change(two.settings | {"cluster": {"nodes": 3, "health": HEALTH}}, DONE)
        two.wait_until_up("n1", "n2", "n3")
        assert {each["node"] for each in two.get("/strategies")["strategies"]} == {"n1", "n2", "n3"}
        two.change(two.settings | {"cluster": SETTINGS["cluster"]}, DONE)
    assert load.errors == []
    assert not two.has_child("n3.sock")


def test_models_change_without_a_failed_request(two: RunningCluster) -> None:
    models = SETTINGS["models"] | {"new": "embedded"}
    nodes = {two.child("n1.sock").pid, two.child("n2.sock").pid}
    with under_load(two.port, PATH, MODELS) as load:
        load.wait_for_answers(50)
        two.change(two.settings | {"models": models}, DONE)
        assert two.ask("POST", PATH, {"text": "good", "model": "new"})[0] == 200
        two.configure(two.settings | {"models": SETTINGS["models"]})
        assert two.ask("POST", "/reload")[0] == 200
        assert two.ask("POST", PATH, {"text": "good", "model": "new"})[0] == 404
    assert load.errors == []
    assert nodes == {two.child("n1.sock").pid, two.child("n2.sock").pid}


def test_a_change_that_restarts_nodes_costs_no_request(two: RunningCluster) -> None:
    nodes = {two.child("n1.sock").pid, two.child("n2.sock").pid}
    with under_load(two.port, PATH, MODELS) as load:
        load.wait_for_answers(50)
        two.change(two.settings | {"max_text": 100}, DONE)
    assert load.errors == []
    assert nodes.isdisjoint({two.child("n1.sock").pid, two.child("n2.sock").pid})
    assert two.ask("POST", PATH, {"text": "x" * 101, "model": "m0"})[0] == 422


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"modelz": {}}, "modelz: is not a known key"),
        ({"cluster": {"nodes": 2, "queue": 9, "health": HEALTH}}, "cluster.queue: restart the cluster to change it."),
        ({"strategies": [{"strategy": "lru-cached", "options": {"capacity": 0}}]}, "Node n1: "),
    ],
)
def test_a_wrong_file_changes_nothing(two: RunningCluster, change: dict[str, Any], reason: str) -> None:
    right = two.settings
    two.change(right | change, "\nERROR:    The settings stay as they are: ")
    assert reason in next(line for line in reversed(two.log.splitlines()) if line.startswith("ERROR:    The settings"))
    assert [two.ask("POST", PATH, {"text": "good", "model": model})[0] for model in MODELS] == [200] * len(MODELS)
    two.configure(right)


def test_a_node_that_is_started_again_does_not_read_a_file_that_nobody_has_accepted(two: RunningCluster) -> None:
    right, node = two.settings, two.child("n1.sock")
    two.configure({"modelz": {}})
    node.kill()
    wait_for(lambda: two.states() != {"n1": "up", "n2": "up"})  # HAProxy has seen it
    two.wait_until_up("n1", "n2")
    two.configure(right)


def test_what_one_node_is_asked_is_not_answered_by_another(two: RunningCluster) -> None:
    nodes = Nodes(two.folder)
    assert nodes.get("n1", "/readyz").headers["X-Residency-Node"] == "n1"
    assert nodes.ask_all(["n1", "n2", "n9"], nodes.strategies).keys() == {"n1", "n2"}
    nodes.close()


def test_an_operator_loads_a_model_at_a_node(two: RunningCluster) -> None:
    """As the page does, whose tables show the models of each node."""
    body = {"strategy": "lru-cached"}
    for node in ("n1", "n2"):
        for action, state in (("load", "resident"), ("unload", "absent")):
            status, text = two.ask("POST", f"/models/m0/{action}", body, {"X-Residency-Node": node})
            assert (status, json.loads(text)["state"]) == (200, state)
            [strategy] = [each for each in two.get("/residency")["strategies"] if each["node"] == node]
            assert strategy["models"][0]["state"] == state
    assert two.ask("POST", "/models/m0/load", body, {"X-Residency-Node": "n9"})[0] == 503


def test_nothing_outlives_a_killed_cluster(tmp_path: Path) -> None:
    small = SETTINGS | {"cluster": {"nodes": 1, "health": HEALTH}}
    with cluster(tmp_path, small) as running:
        folder, children = running.folder, running.children()
        assert folder.stat().st_mode & 0o777 == 0o700
        assert len(children) == 3
        running.process.kill()
        wait_for(lambda: not alive(children))
    with cluster(tmp_path, small) as running, under_load(running.port, PATH, MODELS) as load:
        assert not folder.exists()
        folder, children = running.folder, running.children()
        load.wait_for_answers(50)
        running.process.terminate()
        assert running.process.wait(60) == 0
        assert load.statuses == []
    assert not alive(children)
    assert not folder.exists()
    # A port or a connection that is closed is told in many ways, but no answer is cut off.
    assert not [error for error in load.broken if "IncompleteRead" in error]


def test_a_cut_network_costs_the_requests_on_it(tmp_path: Path) -> None:
    secret = "a secret of the cluster"
    settings = SETTINGS | {"cluster": SETTINGS["cluster"] | {"secret": secret}}
    config = tmp_path / "node.yaml"
    config.write_text(yaml.safe_dump(settings))
    ports = [free_port(), free_port()]
    nodes = [
        NodeProcess(f"n{number}", config, f"127.0.0.1:{port}", tmp_path, {}, secret=secret)
        for number, port in enumerate(ports, 1)
    ]
    with ExitStack() as stack:
        for node in nodes:
            node.start()
            stack.callback(node.kill)
        for node in nodes:
            node.wait_until_ready(SECONDS)
        link = stack.enter_context(relay(ports[1]))
        flags = [f"--node=127.0.0.1:{port}" for port in (ports[0], link.port)]
        running = stack.enter_context(cluster(tmp_path, settings, *flags))
        running.wait_until_up("n1", "n2")
        with under_load(running.port, PATH, MODELS) as load:
            wait_for(lambda: load.nodes == {"n1", "n2"})
            link.cut()
            wait_for(lambda: running.states()["n2"] == "down")
            assert len(load.errors) <= CONNECTIONS
            load.forget()
            load.wait_for_answers(100)
            assert load.nodes == {"n1"}
            link.mend()
            wait_for(lambda: "n2" in load.nodes)
        assert load.errors == []
        running.change(settings | {"models": {"m0": "embedded"}}, "All nodes have read their settings again.")
        assert all(node.is_alive for node in nodes)
        assert httpx.get(f"http://127.0.0.1:{ports[0]}/strategies").status_code == 401


def test_no_node_is_ever_over_its_budget(two: RunningCluster) -> None:
    """With many models, of which two fit into a node's budget."""
    right = two.settings
    models = [f"many{number}" for number in range(12)]
    strategy = {"strategy": "lru-cached", "options": {"memory_budget": "80MiB"}}
    many = {"models": dict.fromkeys((*MODELS, *models), "embedded"), "strategies": [strategy]}
    two.change(right | many, DONE)
    seen: list[dict[str, Any]] = []
    with under_load(two.port, PATH, models) as load:
        while len(load.seconds) < 300:
            seen += two.get("/residency?history=0")["strategies"]
    two.change(right, DONE)
    assert load.errors == []
    assert {each["node"] for each in seen} == {"n1", "n2"}
    assert 0.5 < max(each["resident_bytes"] / each["budget_bytes"] for each in seen) <= 1.0
