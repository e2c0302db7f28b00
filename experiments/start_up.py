"""How long is it from exec to the first answer, against a FastAPI app around `pipeline()`?

python experiments/start_up.py
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import httpx
from tabulate import tabulate

from core.bench.client import connect
from core.bench.server import ROOT, serve

BASELINE = "FastAPI and pipeline()"
LOADERS = ("onnxruntime", "transformers", "mapped", "subprocess")
TIMEOUT = 120.0  # seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, choices=range(1, 101), metavar="N", help="1 to 100")
    seconds: dict[str, list[float]] = {name: [] for name in (BASELINE, *LOADERS)}
    for _ in range(parser.parse_args().rounds):  # interleaved: the machine's speed drifts
        for name, measured in seconds.items():
            measured.append(first_answer(name))
    baseline = statistics.median(seconds[BASELINE])
    rows = [
        (name, statistics.median(s), min(s), max(s), statistics.median(s) / baseline) for name, s in seconds.items()
    ]
    headers = ("on-demand with the loader", "median (s)", "min", "max", "× the pipeline's")
    print(tabulate(rows, headers, floatfmt=".2f"))


def first_answer(name: str) -> float:
    """Seconds from exec to the first 200."""
    if name == BASELINE:
        app, folder, route, settings = "pipeline_app:app", Path(__file__).parent, "/predict", {}
    else:
        app, folder, route = "core.app:app", ROOT, "/predict-on-demand"
        settings = {"strategies": [{"strategy": "on-demand", "loader": name}]}
    with serve(settings, app, folder) as server, connect(server.url, TIMEOUT) as client:
        while not answers(client, route):
            if server.process.poll() is not None or time.perf_counter() - server.started > TIMEOUT:
                raise SystemExit(f"{name} did not start: {server.last_words()}")
            time.sleep(0.01)
        return time.perf_counter() - server.started


def answers(client: httpx.Client, route: str) -> bool:
    try:
        return client.post(route, json={"text": "I love it."}).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False  # it does not listen yet


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
