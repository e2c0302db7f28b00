"""What a second uvicorn worker adds in memory: for `peers.py --workers`."""

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
from experiments.peers.served import (
    CONNECTIONS,
    TIMEOUT,
    Start,
    idle_pss,
    running,
    wait_for_answer,
)

LOADER = {"name": "onnxruntime", "pack": True}  # as a model ends that stays in memory
HEADERS = (
    "PSS (MiB)", "one worker", "two workers", "the second adds",
    "mapped weights, one worker", "two workers", "the second adds",
)  # fmt: skip


def second_worker(model: str, rounds: int) -> None:
    """PSS of the whole tree, with the model kept and with none, so that what Python and the engine take is known.

    A process elsewhere that maps the same checkpoint takes its part of the PSS: nothing else should.
    """
    rows: list[tuple[Any, ...]] = []
    for strategy, route in (("persistent", "/predict"), ("on-demand", "/predict-on-demand")):
        settings = {"strategies": [{"strategy": strategy, "loader": LOADER}], "models": {"model": model}}
        found: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
        for _ in range(rounds):
            for workers, measured in found.items():
                measured.append(pss(partial(serve, settings, workers=workers), route))
        everything, mapped = ([median(m[i] for m in measured) for measured in found.values()] for i in (0, 1))
        rows.append((strategy, *everything, everything[1] - everything[0], *mapped, mapped[1] - mapped[0]))
    print(tabulate(rows, HEADERS, floatfmt=".1f"))
    weights = sum(file.stat().st_size for file in resolve(model).glob("*.safetensors")) / 2**20
    (*_, kept, _, _, mapped_again), (*_, empty, _, _, _) = rows
    added = f"{kept - empty:.1f} MiB, {(kept - empty) / weights:.1%}"
    print(
        f"Of {weights:.0f} MiB of weights, a second worker maps {mapped_again / weights:.1%} anew. Above one that keeps"
        f" no model it adds {added}: what the engine computes with, and what batches have left in the heap."
    )


def pss(start: Start, route: str) -> tuple[float, float]:
    """In MiB, idle, after many requests: of everything, and of mapped weights."""
    with running(start, route) as (server, _), ThreadPoolExecutor(CONNECTIONS) as pool:

        def ask(_: int) -> None:
            with connect(server.url, TIMEOUT) as client:  # a new connection, which any worker may accept
                wait_for_answer(server, client, route)  # also one that is still starting

        list(pool.map(ask, range(20 * CONNECTIONS)))
        found = idle_pss(server)
        if found is None:
            raise TrialFailed("this system does not tell a process's PSS")
        main = psutil.Process(server.pid)
        return found, sum(of_weights(process.pid) for process in [main, *main.children(recursive=True)])


def of_weights(pid: int) -> float:
    """PSS in MiB of the checkpoint's file, and of packed weights."""
    maps = Path(f"/proc/{pid}/smaps").read_text()
    files = r"(?:\.safetensors|/onnx/packed-[^/\n]*/[^/\n]*)"
    sizes = re.findall(rf"^[0-9a-f]+-[0-9a-f]+ .*{files}\n(?:(?!Pss:).*\n)*Pss:\s+(\d+) kB", maps, re.MULTILINE)
    return sum(map(int, sizes)) / 1024
