"""Servers of any kind, started, asked and ended: for `peers.py` and `start_up.py`."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

import httpx
import psutil

from core.bench.client import connect
from core.bench.server import ServerProcess
from core.bench.trial import IDLE_SECONDS
from core.errors import TrialFailed
from core.system.memory import at_rest

TEXT = "The seats were narrow, but the crew was kind and we landed an hour early."  # 20 tokens with the two around
CONNECTIONS = 16
TIMEOUT = 120.0  # seconds, for a start and for each answer
Start = Callable[[], AbstractContextManager[ServerProcess]]
SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = [[%s]]
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format('\\n{"seconds": %%f, "requests": %%d, "refused": %%d, "lost": %%d, "p50": %%f, "p99": %%f}\\n',
    summary.duration / 1e6, summary.requests, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"""


@contextmanager
def running(start: Start, route: str) -> Iterator[tuple[ServerProcess, float]]:
    """A server that has answered, and the seconds from exec to that answer; at the end its workers are gone, too, which
    not every server sees to.
    """
    children: list[psutil.Process] = []
    try:
        with start() as server, connect(server.url, TIMEOUT) as client:
            try:
                yield server, wait_for_answer(server, client, route)
            finally:
                with suppress(psutil.NoSuchProcess):
                    children = psutil.Process(server.pid).children(recursive=True)
    finally:
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()


def wait_for_answer(server: ServerProcess, client: httpx.Client, route: str) -> float:
    """Seconds from exec until it has answered. Raises TrialFailed."""
    while not answers(client, route):
        if server.process.poll() is not None or time.perf_counter() - server.started > TIMEOUT:
            raise TrialFailed(f"it did not start: {server.last_words()}")
        time.sleep(0.01)
    return time.perf_counter() - server.started


def idle_pss(server: ServerProcess) -> float | None:
    """In MiB, of the whole tree, some time after the last request; None where the system does not tell it."""
    time.sleep(IDLE_SECONDS)
    return at_rest(server.pid)[0]


def answers(client: httpx.Client, route: str) -> bool:
    try:
        response = client.post(route, json={"text": TEXT})
    except httpx.TransportError:
        return False  # it does not listen yet
    return response.status_code == httpx.codes.OK and "label" in response.text


def load(url: str, connections: int, seconds: int) -> dict[str, float]:
    """Post the text for so long by wrk, which takes little of the processor from what it measures.

    Raises TrialFailed if any request was not answered with success.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT % json.dumps({"text": TEXT}))
        script.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"--timeout={TIMEOUT:.0f}s", "-s", script.name]
        done = subprocess.run([*command, url], capture_output=True, text=True, check=False)
    if done.returncode:
        raise TrialFailed(f"wrk ended with status {done.returncode}: {done.stdout}{done.stderr}")
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    if measured["refused"] or measured["lost"] or not measured["requests"]:
        raise TrialFailed(f"requests failed: {measured}")
    return measured
