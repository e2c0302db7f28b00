"""Starting, measuring and ending servers of any kind, for the scripts of this folder."""

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
from core.system.memory import pss_and_private

TEXT = "The seats were narrow, but the crew was kind and we landed an hour early."  # 20 tokens with special ones
CONNECTIONS = 16
Json = dict[str, str]
BODY: Json = {"text": TEXT}
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
def running(start: Start, route: str, body: Json | None = None) -> Iterator[tuple[ServerProcess, float]]:
    """Run a server. Yields it with the seconds from exec to its first answer.

    Kills its workers at the end, because some servers leave them running.
    """
    children: list[psutil.Process] = []
    try:
        with start() as server, connect(server.url, TIMEOUT) as client:
            try:
                yield server, wait_for_answer(server, client, route, body)
            finally:
                with suppress(psutil.NoSuchProcess):
                    children = psutil.Process(server.pid).children(recursive=True)
    finally:
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()


def wait_for_answer(server: ServerProcess, client: httpx.Client, route: str, body: Json | None = None) -> float:
    """Wait until the server answers, and return the seconds since exec. Raises TrialFailed."""
    while not is_answering(client, route, body or BODY):
        if server.process.poll() is not None or time.perf_counter() - server.started > TIMEOUT:
            raise TrialFailed(f"it did not start: {server.failure_reason()}")
        time.sleep(0.01)
    return time.perf_counter() - server.started


def idle_pss(server: ServerProcess) -> float | None:
    """Wait, then return the PSS of the process tree in MiB; None if the system does not report it."""
    time.sleep(IDLE_SECONDS)
    return pss_and_private(server.pid)[0]


def is_answering(client: httpx.Client, route: str, body: Json) -> bool:
    """Whether the server answers a request with a label, or with vectors."""
    try:
        response = client.post(route, json=body)
    except httpx.TransportError:
        return False  # the server does not listen yet
    return response.status_code == httpx.codes.OK and ("label" in response.text or "embedding" in response.text)


def load(url: str, connections: int, seconds: int, body: Json | None = None) -> dict[str, float]:
    """Post the body, by default the text alone, for `seconds` with wrk, which itself takes little CPU time.

    Returns what wrk measured. Raises TrialFailed if a request failed.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT % json.dumps(body or BODY))
        script.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"--timeout={TIMEOUT:.0f}s", "-s", script.name]
        done = subprocess.run([*command, url], capture_output=True, text=True, check=False)
    if done.returncode:
        raise TrialFailed(f"wrk ended with status {done.returncode}: {done.stdout}{done.stderr}")
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    if measured["refused"] or measured["lost"] or not measured["requests"]:
        raise TrialFailed(f"requests failed: {measured}")
    return measured
