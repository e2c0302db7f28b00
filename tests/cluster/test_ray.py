"""A cluster on Ray Serve: what clients see while replicas, machines and settings come and go."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import httpx
import psutil
import pytest
import yaml

from core.bench.client import connect
from tests.helpers.support import ROOT

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install -e '.[cluster]'"),
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]

CLIENTS = 8
SECONDS = 180.0  # until a test gives up
MACHINES = 3  # each with room for one node; a replacement starts before what it replaces has ended
OBJECT_STORE = 80 << 20  # bytes; Ray wants at least 75 MiB
MODELS = dict.fromkeys("abcdef", "embedded")
BODY = {"text": "The crew was kind and we landed an hour early."}
CLUSTER = {"nodes": 2, "resources": {"num_cpus": 1}, "health": 0.5}
SETTINGS: dict[str, Any] = {
    "models": MODELS,
    "strategies": [{"strategy": "lru-cached", "options": {"capacity": 3}}],
    "cluster": CLUSTER,
}


def wait_for(condition: Callable[[], bool]) -> None:
    """Poll what only Ray can change. On a busy machine, a replica takes its time."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


class Running(NamedTuple):
    """Ray on this machine: a head without room for nodes, and two others."""

    cluster: Any
    folder: Path
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def deploy(self, scaling: Mapping[str, float] | None = None, **changes: Any) -> None:
        """Deploy the settings with some changes, and wait until Ray has done so. Does little if they are in use."""
        from ray import serve

        from core.cluster.blueprint import read_blueprint
        from core.cluster.front import Listen
        from core.cluster.ray import application

        config = self.folder / "app.yaml"
        config.write_text(yaml.safe_dump(SETTINGS | changes))
        blueprint = read_blueprint(config)
        serve.run(application(blueprint, Listen("127.0.0.1", self.port), scaling), route_prefix="/")
        if scaling is None:
            self.wait_for_nodes(blueprint.cluster.nodes.min)

    def nodes_up(self) -> set[str]:
        """The names of the nodes that answer."""
        with connect(self.url, 10) as client:
            answer = client.get("/strategies")
            return {each["node"] for each in answer.json()["strategies"]} if answer.is_success else set()

    def wait_for_nodes(self, count: int) -> None:
        wait_for(lambda: len(self.nodes_up()) == count)


def _variables(folder: Path) -> dict[str, str]:
    return {
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5",
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def on_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    import ray
    from ray import serve
    from ray.cluster_utils import Cluster

    folder = Path("/tmp") / f"r{os.getpid()}"  # the paths of sockets are limited
    (folder / "ray").mkdir(mode=0o700, parents=True)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _variables(folder).items():
            patch.setenv(name, value)
        options = {"object_store_memory": OBJECT_STORE}
        head = {**options, "num_cpus": 0, "include_dashboard": False, "temp_dir": str(folder / "ray")}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            for _ in range(MACHINES):
                cluster.add_node(num_cpus=1, **options)
            ray.init(address=cluster.address, namespace="serve", log_to_driver=False, logging_level="ERROR")
            serve.start(proxy_location="Disabled")
            running = Running(cluster, folder, _free_port())
            running.deploy()
            yield running
            serve.shutdown()
        finally:
            ray.shutdown()
            cluster.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


class Seen(NamedTuple):
    """What clients saw."""

    statuses: Counter[str]
    slowest: float
    """Seconds."""


@contextmanager
def load(url: str, pause: float = 0.05) -> Iterator[Callable[[], Seen]]:
    """Send requests until the end of the context, or until the function is called, which returns what was seen.

    Each client rests for `pause` seconds after an answer, so that what is tested has the machine to itself.
    """
    ended = Event()

    def ask(number: int) -> tuple[Counter[str], float]:
        statuses, slowest = Counter[str](), 0.0
        with connect(url, 30) as client:
            while not ended.wait(pause):
                number += 1
                began = time.monotonic()
                try:
                    body = BODY | {"model": "abcdef"[number % 6]}
                    status = str(client.post("/predict-lru-cached", json=body).status_code)
                except httpx.TransportError as error:
                    status = repr(error)
                statuses[status] += 1
                slowest = max(slowest, time.monotonic() - began)
        return statuses, slowest

    with ThreadPoolExecutor(CLIENTS) as pool:
        futures = [pool.submit(ask, number) for number in range(CLIENTS)]

        def end() -> Seen:
            ended.set()
            results = [future.result(60) for future in futures]
            return Seen(sum((each for each, _ in results), Counter[str]()), max(slowest for _, slowest in results))

        try:
            yield end
        finally:
            ended.set()


NODE, BALANCER = "ray::ServeReplica:default:Nodes", "ray::ServeReplica:default:Balancer"


def _replicas(title: str = NODE) -> set[psutil.Process]:
    """The processes of this title, which Ray gives to replicas."""
    return {each for each in psutil.process_iter(["cmdline"]) if title in " ".join(each.info["cmdline"] or [])}


def test_all_nodes_answer_and_are_told_apart(on_ray: Running) -> None:
    on_ray.deploy()
    with connect(on_ray.url, 30) as client:
        answers = [client.post("/predict-lru-cached", json=BODY | {"model": name}) for name in MODELS]
        residency = client.get("/residency").json()
        metrics = client.get("/metrics").text
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["x-residency-node"] for answer in answers} <= {"n1", "n2"}
    assert {each["node"] for each in residency["strategies"]} == {"n1", "n2"}
    assert all(f'node="{node}"' in metrics for node in ("n1", "n2"))


def test_killed_replica_is_replaced_and_nobody_notices(on_ray: Running) -> None:
    on_ray.deploy()
    before = _replicas()
    victim = min(before, key=lambda each: each.pid)
    node = next(child for child in victim.children() if "uvicorn" in " ".join(child.cmdline()))
    with load(on_ray.url) as end:
        victim.kill()
        wait_for(lambda: not node.is_running())  # it ends with its replica
        wait_for(lambda: len(_replicas() - before) == 1)
        on_ray.wait_for_nodes(2)
        seen = end()
    assert seen.statuses.keys() == {"200"}


def test_killed_machine_is_replaced_and_nobody_notices(on_ray: Running) -> None:
    on_ray.deploy()
    machine, replica = next(
        (machine, replica)
        for machine in on_ray.cluster.worker_nodes
        for replica in _replicas()
        if replica.ppid() == machine.all_processes["raylet"][0].process.pid
    )
    nodes = replica.children(recursive=True)
    with load(on_ray.url) as end:
        on_ray.cluster.remove_node(machine, allow_graceful=False)  # kills it
        on_ray.cluster.add_node(num_cpus=1, object_store_memory=OBJECT_STORE)
        wait_for(lambda: not any(each.is_running() for each in [replica, *nodes]))
        on_ray.wait_for_nodes(2)
        seen = end()
    assert seen.statuses.keys() == {"200"}


def test_changed_settings_reach_all_nodes_and_nobody_notices(on_ray: Running) -> None:
    on_ray.deploy()
    before = _replicas()
    with load(on_ray.url, pause=0.2) as end, connect(on_ray.url, 30) as client:
        on_ray.deploy(models=MODELS | {"new": "embedded"})
        answer = client.post("/predict-lru-cached", json=BODY | {"model": "new"})
        assert (answer.status_code, _replicas()) == (200, before)  # nodes change models as they run
        on_ray.deploy(max_text=1000)
        on_ray.wait_for_nodes(2)
        seen = end()
        refused = client.post("/predict-lru-cached", json={"text": "x" * 1001, "model": "a"})
    assert refused.status_code == 422
    assert seen.statuses.keys() == {"200"}
    assert _replicas().isdisjoint(before)


@pytest.mark.slow
def test_balancer_is_replaced_and_nobody_notices(on_ray: Running) -> None:
    on_ray.deploy()
    [before], nodes = _replicas(BALANCER), _replicas()
    with load(on_ray.url) as end:
        on_ray.deploy(cluster=CLUSTER | {"queue": 7})
        wait_for(lambda: not before.is_running())
        seen = end()
    assert seen.statuses.keys() == {"200"}
    assert _replicas() == nodes


@pytest.mark.slow
def test_as_many_nodes_as_the_load_wants(on_ray: Running) -> None:
    scaled = CLUSTER | {"nodes": {"min": 1, "max": 2}, "queue": 2}  # so many requests of a node are enough
    on_ray.deploy({"upscale_delay_s": 0.0, "downscale_delay_s": 0.0, "look_back_period_s": 2.0}, cluster=scaled)
    on_ray.wait_for_nodes(1)
    with load(on_ray.url, pause=0) as end:
        on_ray.wait_for_nodes(2)
        seen = end()
    on_ray.wait_for_nodes(1)
    assert seen.statuses.keys() == {"200"}


def test_command_of_ray_serves_a_file(on_ray: Running, tmp_path: Path) -> None:
    _serve_a_file(on_ray, tmp_path, then_deploys=False)


@pytest.mark.slow
def test_configuration_of_ray_replaces_nodes(on_ray: Running, tmp_path: Path) -> None:
    _serve_a_file(on_ray, tmp_path, then_deploys=True)


def _serve_a_file(on_ray: Running, tmp_path: Path, *, then_deploys: bool) -> None:
    """By `serve run core.cluster:build`, and then by a file for `serve deploy`, whose settings refuse a text."""
    on_ray.deploy()
    port = _free_port()
    half = {"num_cpus": 0.5}  # the machine that is left has room for a node and its replacement
    settings = SETTINGS | {"cluster": CLUSTER | {"nodes": 1, "resources": half}}
    (tmp_path / "app.yaml").write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "ray.serve.scripts", "run", f"--address={on_ray.cluster.address}"]
    build = ["--name=second", "--route-prefix=/second", "core.cluster:build", "config=app.yaml", f"port={port}"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([*command, *build], cwd=tmp_path, stdout=log, stderr=log)
    try:
        wait_for(lambda: _is_ready(port) or process.poll() is not None)
        assert _status(port, "a text") == 200
        if not then_deploys:
            return
        process.kill()  # the application goes on

        (tmp_path / "app.yaml").write_text(yaml.safe_dump(settings | {"max_text": 5}))
        arguments = {"config": str(tmp_path / "app.yaml"), "port": port, "revision": "2"}
        application = {"name": "second", "route_prefix": "/second", "import_path": "core.cluster:build"}
        deployed = {"proxy_location": "Disabled", "applications": [application | {"args": arguments}]}
        (tmp_path / "serve.yaml").write_text(yaml.safe_dump(deployed))
        subprocess.run([*command, "--non-blocking", "serve.yaml"], cwd=tmp_path, capture_output=True, check=True)
        wait_for(lambda: _status(port, "a text") == 422)
    finally:
        process.kill()
        process.wait()
        from ray import serve

        serve.delete("second")


def _status(port: int, text: str) -> int:
    with connect(f"http://127.0.0.1:{port}", 30) as client:
        return client.post("/predict-lru-cached", json={"text": text, "model": "a"}).status_code


def _is_ready(port: int) -> bool:
    with connect(f"http://127.0.0.1:{port}", 30) as client:
        try:
            return client.get("/readyz").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False


WRONG = [
    ("models: {a: embedded}", {}, "app.yaml: has no 'cluster'"),
    ("cluster: {nodes: 2, quue: 3}", {}, "app.yaml:1:21: cluster.quue: is not a known key"),
    ("cluster: {nodes: 2}\nstrategies: [nosuch]", {}, "nosuch"),
    ("cluster: {nodes: 2}\nstrategies: [{strategy: lru-cached, options: {capcity: 2}}]", {}, "capcity"),
    ("cluster: {nodes: 2}", {"port": "many"}, "port=many is not a port"),
    ("cluster: {nodes: 2}", {"prot": "8001"}, "'prot' is not an argument; allowed: config"),
]


@pytest.mark.parametrize(("settings", "arguments", "sentence"), WRONG)
def test_wrong_settings_end_in_a_sentence(
    settings: str, arguments: dict[str, str], sentence: str, tmp_path: Path
) -> None:
    from click.testing import CliRunner
    from ray.serve.scripts import cli

    (tmp_path / "app.yaml").write_text(settings)
    given = [f"{name}={value}" for name, value in {"config": str(tmp_path / "app.yaml"), **arguments}.items()]
    result = CliRunner().invoke(cli, ["run", "core.cluster:build", *given])
    assert result.exit_code == 1
    assert sentence in result.output
    assert "Traceback" not in result.output
