"""SIGTERM and Ctrl-C: the server ends within its time, and whoever was accepted is answered."""

from __future__ import annotations

import select
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from core.bench.server import ServerProcess
from tests.helpers.raw import BODY, MAX_QUEUE, WHOLE, answer, connected, rest, sent, status
from tests.helpers.support import FAKES, SECONDS, checkpoint_in, gated, running, wait_for

GRACE = 0.5
LITTLE = 1.5  # seconds, for a process to end on a machine that does other things, too


def settings(checkpoint: Path, strategy: str = "on-demand", **more: Any) -> Mapping[str, Any]:
    return {
        "strategies": [{"strategy": strategy, "loader": "fake"}],
        "models": {"a": str(checkpoint)},
        "plugins": [FAKES],
        "max_queue": MAX_QUEUE,
        "shutdown_timeout": GRACE,
        **more,
    }


def ends(server: ServerProcess, within: float, number: int = signal.SIGTERM) -> None:
    """Once interrupted, in time, alone, and without a word that a deliberate end does not need."""
    children = psutil.Process(server.pid).children(recursive=True)
    began = time.monotonic()
    server.process.send_signal(number)
    assert server.process.wait(SECONDS) in (0, -number)
    assert time.monotonic() - began < within
    wait_for(lambda: not any(lives(child) for child in children))
    assert "Traceback" not in server.log()


def lives(process: psutil.Process) -> bool:
    try:
        return bool(
            process.status() != psutil.STATUS_ZOMBIE
        )  # whether anybody reaps an orphan is not the server's doing
    except psutil.NoSuchProcess:
        return False


def waiting(server: ServerProcess, target: bytes = WHOLE) -> list[Any]:
    """As many requests as the queue holds; all are accepted, for one more is refused."""
    connections = [sent(server, target) for _ in range(MAX_QUEUE + 1)]
    [refused] = select.select(connections, [], [], SECONDS)[0]
    assert status(answer(refused)) == 503
    refused.close()
    connections.remove(refused)
    return connections


@pytest.mark.parametrize("protocol", ["httptools", "h11"])
def test_idle_and_slow_connections_hold_up_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    monkeypatch.setenv("UVICORN_HTTP", protocol)
    kept = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    with running(settings(checkpoint_in(tmp_path / "a"), receive_timeout=0.5)) as (server, client):
        silent = [connected(server) for _ in range(4)]
        slow = [sent(server, part) for part in (kept[:-1], WHOLE[:-1]) for _ in range(4)]
        idle = [sent(server, kept) for _ in range(4)]
        assert [status(answer(connection)) for connection in idle] == [200] * 4
        idle[0].sendall(kept[:9])  # and the beginning of another request
        assert client.get("/healthz").status_code == 200
        ends(server, LITTLE)
        assert {status(rest(connection)) for connection in silent + slow + idle} <= {0, 408}


@pytest.mark.parametrize(("number", "strategy"), [(signal.SIGTERM, "lru-cached"), (signal.SIGINT, "on-demand")])
def test_a_hanging_load_ends_with_the_grace_time(tmp_path: Path, number: int, strategy: str) -> None:
    """Those who wait for it are told so; and Python waits for the thread neither, as it does after Ctrl-C."""
    model = checkpoint_in(tmp_path / "a")
    with gated(model) as gate, running(settings(model, strategy)) as (server, _):
        connections = waiting(server, WHOLE.replace(b"on-demand", strategy.encode()))
        gate.wait_for_load()
        ends(server, GRACE + LITTLE, number)
        for connection in connections:
            heard = rest(connection)
            assert status(heard) == 503
            assert b"The server is shutting down." in heard


def test_a_hanging_start_up_load_ends_at_once(tmp_path: Path) -> None:
    model = checkpoint_in(tmp_path / "a")
    with gated(model) as gate, running(settings(model, "persistent"), ready=False) as (server, _):
        gate.wait_for_load()
        ends(server, LITTLE)


def test_all_that_were_accepted_are_answered(tmp_path: Path) -> None:
    model = checkpoint_in(tmp_path / "a")
    with gated(model) as gate, running(settings(model, shutdown_timeout=SECONDS)) as (server, _):
        late = sent(server, WHOLE.removesuffix(BODY).replace(b"Host", b"Expect: 100-continue\r\nHost"))
        assert status(late.recv(1 << 16)) == 100  # so it is accepted, too, and its body awaited
        connections = waiting(server)
        gate.wait_for_load()
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: refuses(server))
        gate.open()
        assert [status(rest(connection)) for connection in connections] == [200] * MAX_QUEUE
        late.sendall(BODY)
        assert status(rest(late)) == 200
        ends(server, LITTLE)


def refuses(server: ServerProcess) -> bool:
    try:
        connected(server).close()
    except ConnectionError:
        return True
    return False


def test_the_processes_of_models_end_with_the_server() -> None:
    strategies = [{"strategy": "on-demand", "loader": "subprocess"}]
    with running({"strategies": strategies, "shutdown_timeout": 10}) as (server, client):
        assert client.post("/predict-on-demand", json={"text": "good"}).status_code == httpx.codes.OK
        assert psutil.Process(server.pid).children(recursive=True)
        connections = [sent(server, WHOLE) for _ in range(8)]
        assert select.select(connections, [], [], SECONDS)[0]  # some are being computed, some wait
        ends(server, 10)
        answers = [status(rest(connection)) for connection in connections]
        assert answers == [200] * 8, server.log()
