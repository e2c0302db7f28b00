"""Nodes that somebody else runs: names and weights, and names that lead elsewhere after a while."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest
import yaml

from core.cli.commands import commands
from core.cluster.balancer import Balancer, stop
from core.cluster.homes import order
from core.cluster.other_nodes import OtherNodes, look_up
from core.cluster.runtime_api import RuntimeApi
from core.config.cluster import ClusterSettings
from core.config.settings import Settings
from core.errors import SettingsError
from tests.helpers.fake_nodes import free_port, need_haproxy
from tests.helpers.support import ROOT, SECONDS

PAGE = (ROOT / "docs" / "cluster.md").read_text()


def shown(first: str) -> str:
    """The YAML on the page that begins with this line."""
    [found] = [code for code in re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.S | re.M) if code.startswith(first)]
    return str(found)


@contextmanager
def pod(name: str) -> Iterator[int]:
    """A server whose answers name it. Gives its port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(name)))
            self.end_headers()
            self.wfile.write(name.encode())

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_a_name_that_leads_elsewhere_is_followed(tmp_path: Path) -> None:
    """Of a pod that is not there yet, that comes, and that is replaced."""
    need_haproxy()
    with ExitStack() as stack:
        first, second, other = (stack.enter_context(pod(name)) for name in ("first", "second", "other"))
        leads_to: dict[str, int | None] = {"pod-0": None, "pod-1": other}

        def resolve(host: str, port: int) -> str | None:
            found = leads_to[host]
            return None if found is None else f"127.0.0.1:{found}"

        nodes = OtherNodes(["pod-0:8001", "pod-1:8001"], resolve)
        port = free_port()
        settings = ClusterSettings.model_validate({"nodes": 2, "health": 0.1})
        balancer = Balancer(tmp_path, settings, nodes.addresses, "127.0.0.1", port, None, weights=nodes.weights)
        balancer.write()
        stack.callback(stop, balancer.start(), 0.0)
        api = RuntimeApi(tmp_path)
        weights = dict.fromkeys(nodes.addresses, 1.0)
        model = next(f"m{i}" for i in range(100) if order(f"m{i}", weights)[0] == "n1")

        async def answered(expected: str) -> None:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers={"X-Model": model}) as client:
                async with asyncio.timeout(SECONDS):
                    while await text_from(client) != expected:
                        await asyncio.sleep(0.01)

        async def text_from(client: httpx.AsyncClient) -> str:
            """What the cluster answers. A slot that is led elsewhere may break the connections that it has."""
            try:
                return (await client.get("/")).text
            except httpx.TransportError:
                return ""

        async def scenario() -> None:
            following = asyncio.create_task(nodes.follow(tmp_path, 0.01))
            await answered("other")
            assert api.states()["n1"].state == "maintenance"
            leads_to["pod-0"] = first
            await answered("first")
            leads_to["pod-0"] = second
            await answered("second")
            leads_to["pod-0"] = None  # for a moment, the name leads nowhere; the node may still be there
            await answered("second")
            following.cancel()

        asyncio.run(scenario())
        assert nodes.addresses["n1"] == f"127.0.0.1:{second}"


def test_names_are_looked_up_as_the_system_does() -> None:
    assert look_up("localhost", 80) in ("127.0.0.1:80", "[::1]:80")
    assert look_up("no-such-host.invalid", 80) is None
    assert look_up("::1", 80) == "[::1]:80"


def test_a_weight_follows_the_address(tmp_path: Path) -> None:
    nodes = OtherNodes(["127.0.0.1:1", "[::1]:2=3"])
    assert nodes.addresses == {"n1": "127.0.0.1:1", "n2": "[::1]:2"}
    assert nodes.weights == {"n1": 1, "n2": 3}
    settings = ClusterSettings.model_validate({"nodes": 2})
    config = Balancer(tmp_path, settings, nodes.addresses, "127.0.0.1", 80, None, weights=nodes.weights).render()
    assert '"n1=1,n2=3"' in config
    homes = Counter(order(f"model-{i}", nodes.weights)[0] for i in range(4000))
    assert homes["n2"] / homes["n1"] == pytest.approx(3, rel=0.15)


@pytest.mark.parametrize(
    "given", ["", "host", "host:", ":80", "host:0", "host:70000", "a:1=0", "a:1=x", "a:1=257", "a:1=2.5"]
)
def test_a_wrong_address_is_refused_in_a_sentence(given: str) -> None:
    with pytest.raises(SettingsError, match=r"^--node: .+\.$"):
        OtherNodes([given])


def test_the_manifest_for_kubernetes_fits_the_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its settings, its commands, and the addresses of its nodes."""
    objects = {each["kind"]: each for each in yaml.safe_load_all(shown("# kubernetes.yaml"))}
    (tmp_path / "app.yaml").write_text(objects["ConfigMap"]["data"]["app.yaml"])
    monkeypatch.setenv("RESIDENCY_CONFIG", str(tmp_path / "app.yaml"))
    monkeypatch.setenv("RESIDENCY_CLUSTER", "{nodes: 2, secret: sixteen characters}")
    cluster = Settings().cluster
    assert cluster is not None
    assert cluster.secret is not None
    pods, balancer = objects["StatefulSet"], objects["Deployment"]
    [node], [front] = (each["spec"]["template"]["spec"]["containers"] for each in (pods, balancer))
    assert node["command"][:2] == ["uvicorn", "core.app:app"]
    assert front["command"][:3] == ["python", "runner.py", "serve"]
    command = commands.commands["serve"]
    parsed = command.make_context("serve", front["command"][3:], resilient_parsing=True).params
    names = [f"{pods['metadata']['name']}-{i}.{pods['spec']['serviceName']}" for i in range(pods["spec"]["replicas"])]
    assert [each.rpartition(":")[0] for each in parsed["nodes"]] == names
    assert parsed["host"] == "0.0.0.0"
    OtherNodes(parsed["nodes"], lambda host, port: None)


def test_the_file_for_serve_deploy_is_understood() -> None:
    schema = pytest.importorskip("ray.serve.schema", reason="pip install -e '.[cluster]'")
    deploy = schema.ServeDeploySchema.model_validate(yaml.safe_load(shown("# serve.yaml")))
    [application] = deploy.applications
    assert application.import_path == "core.cluster:build"
    assert set(application.args) == {"config", "host", "port", "revision"}
