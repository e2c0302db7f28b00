"""How long does it take from exec to the first answer, compared with a FastAPI app around `pipeline()`?

python -m experiments.peers.start_up
"""

from __future__ import annotations

import argparse
import statistics
import sys
from functools import partial
from pathlib import Path

from tabulate import tabulate

from core.bench.server import serve
from core.errors import TrialFailed
from experiments.peers.served import running

BASELINE = "FastAPI and pipeline()"
LOADERS = ("onnxruntime", "transformers", "mapped", "subprocess")
PEERS = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, choices=range(1, 101), metavar="N", help="1 to 100")
    seconds: dict[str, list[float]] = {name: [] for name in (BASELINE, *LOADERS)}
    for _ in range(parser.parse_args().rounds):  # interleaved, because the machine's speed drifts
        for name, measured in seconds.items():
            measured.append(first_answer(name))
    baseline = statistics.median(seconds[BASELINE])
    rows = [
        (name, statistics.median(s), min(s), max(s), statistics.median(s) / baseline) for name, s in seconds.items()
    ]
    headers = ("on-demand with the loader", "median (s)", "min", "max", "× the pipeline's")
    print(tabulate(rows, headers, floatfmt=".2f"))


def first_answer(name: str) -> float:
    """The seconds from exec to the first answer."""
    if name == BASELINE:
        start, route = partial(serve, {}, "pipeline_app:app", PEERS), "/predict"
    else:
        settings = {"strategies": [{"strategy": "on-demand", "loader": name}]}
        start, route = partial(serve, settings), "/predict-on-demand"
    try:
        with running(start, route) as (_, seconds):
            return seconds
    except TrialFailed as error:
        raise SystemExit(f"{name}: {error}") from error


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
