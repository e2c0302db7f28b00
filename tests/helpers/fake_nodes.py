"""Nodes that record what they are asked, and answer as a test tells them, behind a real HAProxy."""

from __future__ import annotations

import json
import socket
import socketserver
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from core.cluster.balancer import Balancer, RuntimeApi, binary, stop
from core.config.cluster import ClusterSettings
from core.config.engines import EngineChoice
from core.errors import BalancerFailed
from tests.helpers.support import SECONDS, wait_for

HEALTH = 0.1  # seconds


class Received(NamedTuple):
    """A request that reached a node; the names of headers are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeNode

    def do_GET(self) -> None:
        node = self.server
        if self.path == "/readyz":
            node.checks.append({name.lower(): value for name, value in self.headers.items()})
            self._answer(200 if node.ready else 503, b"{}")
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        node.received.append(Received(self.command, self.path, headers, self._body()))
        assert node.gate.wait(SECONDS)
        if node.empty_answers > 0:
            node.empty_answers -= 1
            self.close_connection = True
        elif self.path == "/stream":
            self._stream()
        else:
            self._answer(node.status, json.dumps({"node": node.name}).encode())

    do_POST = do_PUT = do_GET  # noqa: N815 (the base class wants these names)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's name)
        pass

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Residency-Node", "a lie")
        self.end_headers()
        self.wfile.write(body)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for i in range(3):
            assert self.server.next_chunk.acquire(timeout=SECONDS)
            self.wfile.write(b"7\r\nchunk %d\r\n" % i)
        self.wfile.write(b"0\r\n\r\n")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body


class FakeNode(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """A node on a Unix socket, or on a TCP port if it has only a name.

    While `gate` is closed, it answers nothing. Then `empty_answers` requests get no answer.
    """

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, place: Path | str) -> None:
        self.place, self.name = place, Path(place).stem
        self.received: list[Received] = []
        self.checks: list[dict[str, str]] = []
        self.gate = threading.Event()
        self.next_chunk = threading.Semaphore(0)
        self._connections: list[socket.socket] = []
        self.reset()
        if isinstance(place, Path):
            place.unlink(missing_ok=True)
            self.address_family = socket.AF_UNIX
            super().__init__(str(place), _Handler)  # type: ignore[arg-type]  # the stubs know the internet only
        else:
            super().__init__(("127.0.0.1", 0), _Handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def reset(self) -> None:
        """Answer everything again."""
        self.received.clear()
        self.checks.clear()
        self.gate.set()
        self.ready, self.status, self.empty_answers = True, 200, 0

    def wait_for_requests(self, count: int) -> None:
        """Wait until the node has received so many requests since it was reset."""
        wait_for(lambda: len(self.received) >= count)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self._connections.append(connection)
        return connection, address or ("", 0)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that break are nothing to write about."""

    @property
    def address(self) -> str:
        """Where it listens, for HAProxy."""
        return f"unix@{self.place}" if isinstance(self.place, Path) else f"localhost:{self.server_address[1]}"

    def kill(self) -> None:
        """End as a process does that is killed."""
        self.shutdown()
        self.server_close()
        self._thread.join(SECONDS)
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self.gate.set()


class Balanced(NamedTuple):
    """HAProxy, its nodes, and clients of both of its doors."""

    folder: Path
    nodes: dict[str, FakeNode]
    client: httpx.Client
    internal: httpx.Client
    api: RuntimeApi
    process: subprocess.Popen[bytes]

    def node_of(self, answer: httpx.Response) -> str:
        """The node that answered, which the balancer says, and the node itself."""
        assert answer.status_code == 200, answer.text
        assert answer.headers.get_list("x-residency-node") == [answer.json()["node"]]
        name: str = answer.json()["node"]
        return name

    def ask(self, model: str) -> str:
        """The node that answers a request for the model."""
        return self.node_of(self.client.post("/predict", json={"text": "a", "model": model}))

    def reset(self) -> None:
        """Everything as at the start: all nodes are up, no model has an entry in the map."""
        for node in self.nodes.values():
            node.reset()
        self.api.set_homes({})
        for name in self.nodes:
            self.api.use(name)
        self.wait_for_states(**dict.fromkeys(self.nodes, "up"))

    def wait_for_states(self, **states: str) -> None:
        """Wait until HAProxy sees these slots in these states."""
        wait_for(lambda: {name: self.api.states()[name].state for name in states} == states)


@contextmanager
def balanced(
    folder: Path,
    *,
    nodes: int = 3,
    unused: int = 1,
    default_model: str | None = None,
    only_model: bool = False,
    weights: Mapping[str, int] | None = None,
    one_node: bool = False,
    hosts: Sequence[str] = (),
    models: Mapping[str, str | EngineChoice] | None = None,
    **settings: Any,
) -> Iterator[Balanced]:
    """Fake nodes n1, n2 … on Unix sockets behind HAProxy, which takes all of them for up.

    With `one_node`, all slots lead to the first.
    """
    need_haproxy()
    values = {"nodes": nodes + unused, "health": HEALTH} | settings
    with ExitStack() as stack:
        running = {f"n{i}": FakeNode(folder / f"n{i}.sock") for i in range(1, 1 + (1 if one_node else nodes))}
        for node in running.values():
            stack.callback(node.kill)
        slots = {
            f"n{i}": f"unix@{folder}/n{1 if one_node else i}.sock" if i <= nodes else None
            for i in range(1, nodes + unused + 1)
        }
        port = free_port()
        options = ClusterSettings.model_validate(values)
        balancer = Balancer(
            folder,
            options,
            slots,
            "127.0.0.1",
            port,
            default_model,
            weights=weights,
            only_model=only_model,
            hosts=hosts,
            models=models,
        )
        balancer.write()
        process = balancer.start(assume_up=True)
        stack.callback(stop, process, 0.0)
        client = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=SECONDS))
        transport = httpx.HTTPTransport(uds=str(folder / "internal.sock"))
        internal = stack.enter_context(httpx.Client(base_url="http://nodes", transport=transport, timeout=SECONDS))
        yield Balanced(folder, running, client, internal, RuntimeApi(folder), process)


def need_haproxy() -> None:
    """Skip the test without HAProxy."""
    try:
        binary()
    except BalancerFailed as error:
        pytest.skip(str(error))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
