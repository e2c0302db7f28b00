"""Several uvicorn workers: no load makes the supervisor think that one of them is dead."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from core.bench.client import connect
from core.checkpoints.references import resolve
from tests.helpers.support import SECONDS, uvicorn, wait_for


def workers() -> list[psutil.Process]:
    """The server processes under the supervisor that this process has started."""
    [supervisor] = [p for p in psutil.Process().children() if "uvicorn" in " ".join(p.cmdline())]
    return [p for p in supervisor.children() if "multiprocessing.spawn" in " ".join(p.cmdline())]


def ask(url: str, route: str) -> httpx.Response:
    with connect(url, SECONDS) as fresh:  # whichever worker takes the connection
        return fresh.post(route, json={"text": "good"})


def ready(url: str) -> bool:
    with connect(url, SECONDS) as fresh:
        return fresh.get("/readyz").status_code == httpx.codes.OK


@pytest.mark.slow
def test_loads_never_starve_the_supervisors_ping(tmp_path: Path) -> None:
    """BERT-large by the stock path, over and over, in both workers; who misses a ping of one second is killed."""
    variables = {
        "RESIDENCY_MODELS": '{large: "synthetic:bert-large"}',
        "RESIDENCY_STRATEGIES": "on-demand",
    }
    resolve("synthetic:bert-large")
    flags = ("--workers", "2", "--timeout-worker-healthcheck", "1")
    with uvicorn(tmp_path / "log", *flags, variables=variables) as client, ThreadPoolExecutor(4) as pool:
        url = str(client.base_url)
        wait_for(lambda: all(ready(url) for _ in range(20)))
        before = {worker.pid for worker in workers()}
        end = time.monotonic() + 20
        while time.monotonic() < end:
            answers = list(pool.map(lambda _: ask(url, "/predict-on-demand"), range(4)))
            assert {answer.status_code for answer in answers} == {200}
        assert {worker.pid for worker in workers()} == before
