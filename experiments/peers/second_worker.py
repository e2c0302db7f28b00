"""How much memory does a second uvicorn worker add? For `python -m experiments.peers --workers`."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from tabulate import tabulate

from core.bench.client import connect
from core.bench.server import serve
from core.checkpoints.references import resolve
from core.errors import TrialFailed
from experiments.peers.served import CONNECTIONS, TIMEOUT, Start, idle_pss, running, wait_for_answer

LOADER = {"name": "onnxruntime", "pack": True}  # the state that a model reaches if it stays in memory
HEADERS = (
    "PSS (MiB)", "one worker", "two workers", "the second adds",
    "mapped weights, one worker", "two workers", "the second adds",
)  # fmt: skip


def measure_second_worker(model: str, rounds: int) -> None:
    """Print the PSS of one and of two workers, with the model in memory and without any.

    The difference between the two rows is what the model takes, without Python and the engine. No other process should
    map the same checkpoint, because it would share the PSS.
    """
    rows: list[tuple[Any, ...]] = []
    for strategy, route in (("persistent", "/predict"), ("on-demand", "/predict-on-demand")):
        settings = {"strategies": [{"strategy": strategy, "loader": LOADER}], "models": {"model": model}}
        by_workers: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
        for _ in range(rounds):
            for workers, measured in by_workers.items():
                measured.append(pss(partial(serve, settings, workers=workers), route))
        everything, mapped = ([median(m[i] for m in measured) for measured in by_workers.values()] for i in (0, 1))
        rows.append((strategy, *everything, everything[1] - everything[0], *mapped, mapped[1] - mapped[0]))
    print(tabulate(rows, HEADERS, floatfmt=".1f"))
    weights = sum(file.stat().st_size for file in resolve(model).glob("*.safetensors")) / 2**20
    (*_, kept, _, _, mapped_again), (*_, empty, _, _, _) = rows
    added = f"{kept - empty:.1f} MiB, {(kept - empty) / weights:.1%}"
    print(
        f"Of {weights:.0f} MiB of weights, a second worker adds {mapped_again / weights:.1%}. Compared with a worker"
        f" without a model it adds {added}: the engine's buffers, and what batches left in the heap."
    )


def pss(start: Start, route: str) -> tuple[float, float]:
    """The PSS of the idle server after many requests, in MiB: of all memory, and of mapped weights."""
    with running(start, route) as (server, _), ThreadPoolExecutor(CONNECTIONS) as pool:

        def ask(_: int) -> None:
            with connect(server.url, TIMEOUT) as client:  # a new connection, which any worker may accept
                wait_for_answer(server, client, route)  # the worker may still be starting

        list(pool.map(ask, range(20 * CONNECTIONS)))
        total = idle_pss(server)
        if total is None:
            raise TrialFailed("this system does not report the PSS of a process")
        main = psutil.Process(server.pid)
        return total, sum(weights_pss(process.pid) for process in [main, *main.children(recursive=True)])


def weights_pss(pid: int) -> float:
    """The PSS of the checkpoint's file and of packed weights in MiB."""
    maps = Path(f"/proc/{pid}/smaps").read_text()
    files = r"(?:\.safetensors|/onnx/packed-[^/\n]*/[^/\n]*)"
    sizes = re.findall(rf"^[0-9a-f]+-[0-9a-f]+ .*{files}\n(?:(?!Pss:).*\n)*Pss:\s+(\d+) kB", maps, re.MULTILINE)
    return sum(map(int, sizes)) / 1024
