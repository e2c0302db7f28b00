"""A cluster on Ray Serve, which starts, replaces, scales and updates nodes. Requests pass through HAProxy, never Ray.

serve run core.cluster:build config=app.yaml host=127.0.0.1 port=8001

There are two deployments. A replica of `Nodes` is a node: it runs the app as a child process. The replica of `Balancer`
runs HAProxy and the placer on the head of the Ray cluster. It asks Ray which replicas there are, and tells HAProxy.

Nothing else uses parts of Ray's API that are alpha or private.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import ray
from ray import serve
from ray.experimental import internal_kv
from ray.serve.config import AutoscalingConfig, AutoscalingContext, AutoscalingPolicy
from ray.serve.context import _get_global_client
from starlette.requests import Request
from starlette.responses import Response

from ..config.choices import Cost
from ..config.cluster import ClusterSettings, Resources
from ..config.settings import Settings
from ..config.variables import residency_variables
from ..errors import NodeFailed, ResidencyError, SettingsError
from ..http.problems import problem
from ..system.memory import cpu_seconds
from .blueprint import Blueprint, digest, read_blueprint, write_settings
from .front import Front, Listen
from .node import KILL_AFTER, UNIX, NodeProcess, connect, node_variables, secret_of, token_of
from .run_folder import run_folder
from .scaling import ColdStarts, NodeLoad, Totals, node_hour, nodes_wanted, remember
from .slots import Replica

log = logging.getLogger("ray.serve")
HOST, PORT = "127.0.0.1", 8001
ARGUMENTS = {
    "config": "the file of settings",
    "host": "where HAProxy listens",
    "port": "its port",
    "revision": "any text: Ray builds the application again when an argument changes",
}
START_SECONDS = 3600.0  # a node may download its models
NOTICE_PERIODS = 4  # health periods between Ray's decision to stop a node and its end, for the balancer to hear of it
HEAD = "node:__internal_head__"  # a resource of the head of every Ray cluster
PORT_TRIES = 3
MEASURE_SECONDS = 2.0  # at least, between two measurements of a node: each takes it milliseconds
ELSEWHERE = "Ask {url}: HAProxy listens there, and takes each request to a node. Nothing passes through Ray."


class WrongSettings(click.ClickException, ResidencyError):
    """Settings that a cluster cannot be built from. Ray's command prints the sentence, without a traceback."""


def build(args: Mapping[str, Any]) -> serve.Application:
    """The application for `serve run` and `serve deploy`, from `config=FILE` and optionally `host=` and `port=`.

    Raises WrongSettings.
    """
    try:
        listen = _listen(args)
        return application(read_blueprint(Path(str(args["config"])).expanduser().absolute()), listen)
    except ResidencyError as error:
        raise WrongSettings(str(error)) from None


def _listen(args: Mapping[str, Any]) -> Listen:
    if unknown := sorted(set(args) - set(ARGUMENTS)):
        allowed = ", ".join(f"{name} ({meaning})" for name, meaning in ARGUMENTS.items())
        raise SettingsError(f"'{unknown[0]}' is not an argument; allowed: {allowed}.")
    if not args.get("config"):
        raise SettingsError("Name the file of settings: config=app.yaml.")
    port = str(args.get("port", PORT))
    if not (port.isdecimal() and 0 < int(port) < 1 << 16):
        raise SettingsError(f"port={port[:20]} is not a port; name one from 1 to 65535.")
    return Listen(str(args.get("host", HOST)), int(port))


def application(blueprint: Blueprint, listen: Listen, scaling: Mapping[str, Any] | None = None) -> serve.Application:
    """The application of a cluster. `scaling` overrides options of Ray's AutoscalingConfig."""
    cluster, settings = blueprint.cluster, blueprint.settings
    notice = NOTICE_PERIODS * cluster.health
    scale = _scale(cluster, settings.cost, scaling or {})
    resources = {"num_cpus": cluster.resources.num_cpus}
    if cluster.resources.memory:
        resources["memory"] = int(cluster.resources.memory)
    common = {
        "health_check_period_s": cluster.health,
        "graceful_shutdown_wait_loop_s": notice,
        "max_surge_percent": 1,  # rounded up to one replica: a new one is ready before an old one is stopped
        "_internal": True,  # or `version`, by which Ray decides whether replicas must be replaced, is refused
    }
    nodes = serve.deployment(NodeReplica).options(
        name="Nodes",
        # A replica must report its load from its start on, or not at all.
        version=digest(blueprint.version, "autoscaling_config" in scale),
        user_config=dict(blueprint.changeable),
        ray_actor_options=resources,
        graceful_shutdown_timeout_s=notice + settings.shutdown_timeout + 2 * KILL_AFTER,
        **scale,
        **common,
    )
    balancer = serve.deployment(BalancerReplica).options(
        name="Balancer",
        version=digest(blueprint.for_balancer, listen),
        ray_actor_options={"num_cpus": 0, "resources": {HEAD: 0.001}},
        graceful_shutdown_timeout_s=notice + settings.shutdown_timeout + KILL_AFTER,
        **common,
    )
    return balancer.bind(nodes.bind(blueprint.fixed, cluster.resources), blueprint.for_balancer, listen)


def _scale(cluster: ClusterSettings, cost: Cost | None, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """How many replicas there are: a number, or as many as `Policy` wants."""
    if cluster.nodes.min == cluster.nodes.max:
        return {"num_replicas": cluster.nodes.min}
    kwargs = {"queue": cluster.queue, "node_hour": node_hour(cluster.resources, cost) if cost else None}
    policy = AutoscalingPolicy(policy_function=Policy, policy_kwargs=kwargs)
    limits = {"min_replicas": cluster.nodes.min, "max_replicas": cluster.nodes.max}
    return {"autoscaling_config": AutoscalingConfig(policy=policy, **limits, **overrides)}


class Policy:
    """Ray's autoscaling policy, called in its controller: `nodes_wanted`, with what nodes report."""

    def __init__(self, queue: int, node_hour: float | None) -> None:
        self._queue = queue
        self._node_hour = node_hour

    def __call__(self, context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        metrics = context.aggregated_metrics or {}
        of_each = [metrics.get(field, {}) for field in NodeLoad._fields]
        loads = [NodeLoad(*(values.get(each, 0.0) for values in of_each)) for each in context.running_replicas]
        now = context.current_time or 0.0
        known: dict[int, ColdStarts] = context.policy_state.get("cold", {})
        if loads:
            known = remember(known, len(loads), sum(load.cold_hour for load in loads), now)
        hours = {count: each.hour for count, each in known.items()}
        return nodes_wanted(loads, self._queue, self._node_hour, hours), {"cold": known}


class NodeReplica:
    """A replica: a node in a child process, which ends with it."""

    def __init__(self, fixed: str, resources: Resources) -> None:
        _forget_variables()
        self._fixed: dict[str, Any] = json.loads(fixed)
        self._settings = Settings(**self._fixed)
        self._resources = resources
        self._cost: Cost | None = None
        self._secret = secret_of(self._settings)
        self._host = next(iter(self._settings.allowed_hosts), None)
        self._token = _shared_token(self._settings)
        self._stack = ExitStack()
        self._folder = self._stack.enter_context(run_folder())
        self._config = self._folder / "settings.yaml"
        self._node: NodeProcess | None = None
        self._totals: Totals | None = None
        self._load = NodeLoad(0.0, 0.0)
        _check_machine(self._secret)

    async def reconfigure(self, changeable: dict[str, Any]) -> None:
        """Start the node, or have it change models and strategies while requests run. Raises NodeFailed."""
        write_settings(self._config, self._fixed | changeable)
        self._cost = Cost.model_validate(changeable["cost"]) if changeable.get("cost") else None
        if self._node is None:
            self._node = await asyncio.to_thread(self._start)
            _write(f"nodes/{_replica_name()}", self._node.address)
        else:
            await asyncio.to_thread(self._reload, self._node)

    def _start(self) -> NodeProcess:
        """A node that is ready."""
        name, rank = _replica_name(), serve.get_replica_context().rank
        # Files that a node keeps for the next one: Ray gives the rank of a replica that has gone to a new one.
        variables = node_variables(self._settings, f"n{rank.rank + 1 if rank else 1}", self._token)
        for tries_left in reversed(range(PORT_TRIES)):
            address = self._free_address()
            node = NodeProcess(
                name, self._config, address, self._folder, variables, secret=self._secret, host=self._host
            )
            node.start()
            try:
                node.wait_until_ready(START_SECONDS)
                return node
            except NodeFailed as error:
                node.kill()
                if not tries_left or "address already in use" not in str(error):
                    raise
        raise AssertionError

    def _free_address(self) -> str:
        if not self._secret:
            return f"{UNIX}{self._folder / 'node.sock'}"
        host = ray.util.get_node_ip_address()
        with socket.create_server((host, 0)) as probe:
            return f"{host}:{probe.getsockname()[1]}"

    def _reload(self, node: NodeProcess) -> None:
        with connect(node.address, self._secret, START_SECONDS, self._host) as client:
            answer = client.post("/reload", headers={"Authorization": f"Bearer {self._token}"})
        if answer.is_error:
            raise NodeFailed(f"Node {node.slot} keeps its settings: {answer.json()['detail']}")

    def check_health(self) -> None:
        """Raise NodeFailed if the node has ended. After the third time, Ray replaces the replica."""
        if self._node is not None and not self._node.is_alive:
            raise NodeFailed(f"Node {self._node.slot} ended with {self._node.status()}: {self._node.reason()}")

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What the node did of late, for `Policy`. Ray takes it for the metrics of the replica."""
        if self._totals is None or time.monotonic() > self._totals.at + MEASURE_SECONDS:
            self._load = await asyncio.to_thread(self._measure)
        return dict(self._load._asdict())

    def _measure(self) -> NodeLoad:
        """The load since the last measurement."""
        node, before = self._node, self._totals
        if node is None or node.pid is None:
            return NodeLoad(0.0, 0.0)
        with connect(node.address, self._secret, host=self._host) as client:
            metrics = client.get("/metrics").text
        self._totals = Totals.read(metrics, time.monotonic(), cpu_seconds(node.pid) or 0.0)
        return (before or self._totals).until(self._totals, self._resources, self._cost)

    def __del__(self) -> None:
        """End the node after its accepted requests. Ray calls this when it stops the replica."""
        if self._node is not None:
            self._node.stop(self._settings.shutdown_timeout + KILL_AFTER)
            internal_kv._internal_kv_del(_key(f"nodes/{_replica_name()}"))
        self._stack.close()


class BalancerReplica:
    """The replica that runs HAProxy and the placer. It finds the nodes in what Ray says of the other deployment."""

    def __init__(self, nodes: object, values: str, listen: Listen) -> None:
        """`nodes` is Ray's handle, which makes the other deployment a part of the application."""
        _forget_variables()
        settings = Settings(**json.loads(values))
        assert settings.cluster
        self._listen = listen
        self._period = settings.cluster.health
        self._grace = settings.shutdown_timeout
        taken = json.loads(_read("slots") or "{}")
        self._front = Front(json.loads(values), listen, _shared_token(settings), taken)
        self._front.update(_replicas())  # before it listens: another balancer may still do so at the same port
        self._front.start()
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        """Tell HAProxy which nodes there are, as long as the replica runs."""
        while True:
            await asyncio.sleep(self._period)
            try:
                replicas = await asyncio.to_thread(_replicas)
            except Exception as error:  # Ray's controller is away: everything stays as it is
                log.warning("Ray does not say which nodes there are: %s", error)
                continue
            if self._front.update(replicas):
                _write("slots", json.dumps(self._front.taken))

    def check_health(self) -> None:
        """Raise what has ended the watch."""
        if self._watching.done():
            self._watching.result()

    async def __call__(self, request: Request) -> Response:
        """What Ray's own proxy answers."""
        return problem(421, ELSEWHERE.format(url=self._listen.url))

    async def __del__(self) -> None:
        """End HAProxy after the requests that it has. Ray calls this when it stops the replica."""
        self._watching.cancel()
        await self._front.stop(self._grace)


def _forget_variables() -> None:
    """Settings are those of the cluster, not of this machine."""
    for name in residency_variables() - {"RESIDENCY_CACHE"}:
        del os.environ[name]


def _replicas() -> list[Replica]:
    """The replicas whose nodes are or were ready."""
    context = serve.get_replica_context()
    details = _get_global_client().get_serve_details()
    found = details["applications"][context.app_name]["deployments"].get("Nodes", {}).get("replicas", [])
    known = {replica["replica_id"]: replica["state"] for replica in found}
    replicas = []
    for key in internal_kv._internal_kv_list(_key("nodes/")):
        name = key.decode().rpartition("/")[2]
        address = internal_kv._internal_kv_get(key)
        if name in known and address is not None:
            replicas.append(Replica(name, address.decode(), known[name] == "STOPPING"))
    return replicas


def _check_machine(secret: str | None) -> None:
    """Raise SettingsError on another machine than the balancer's, to which a Unix socket does not lead."""
    if secret:
        return
    own = ray.get_runtime_context().get_node_id()
    addresses = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
    heads = {node["NodeManagerAddress"] for node in ray.nodes() if HEAD in node["Resources"]}
    if addresses.get(own) not in heads:
        raise SettingsError(
            f"The node at {addresses.get(own)} is on another machine than the balancer, where only a node with a secret"
            " may listen: set 'secret' in 'cluster', at least 16 characters."
        )


def _shared_token(settings: Settings) -> str:
    """The operator's token, or one that the first replica has drawn for all of the application."""
    if settings.token is None:
        internal_kv._internal_kv_put(_key("token"), token_of(settings), overwrite=False)
        return _read("token") or ""
    return token_of(settings)


def _replica_name() -> str:
    return str(serve.get_replica_context().replica_id.unique_id)


def _key(name: str) -> str:
    return f"residency/{serve.get_replica_context().app_name}/{name}"


def _read(name: str) -> str | None:
    value = internal_kv._internal_kv_get(_key(name))
    return None if value is None else value.decode()


def _write(name: str, value: str) -> None:
    internal_kv._internal_kv_put(_key(name), value, overwrite=True)
