"""How fast are embeddings over HTTP, compared with a bare loop of the same loader, and with infinity?

python -m experiments.peers.embeddings ./all-MiniLM-L6-v2
python -m experiments.peers.embeddings ./all-MiniLM-L6-v2 --infinity ~/infinity/bin/infinity_emb --engine torch

All are measured in turn in each round, and asked with the same text: over HTTP by 16 connections, in the loop 16 at a
time. infinity (PyPI: infinity-emb) needs an environment of its own, because it requires older packages.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tabulate import tabulate

from core.bench.server import ServerProcess, launch, serve
from core.plugins import load_plugins
from core.system.threads import limit_torch
from experiments.peers.served import CONNECTIONS, TEXT, load, running

LOADERS = ("onnxruntime", "openvino", "mapped")
ROUTE = "/v1/embeddings"
BODY = {"model": "model", "input": TEXT, "encoding_format": "base64"}
LOOP = "import sys; from experiments.peers.embeddings import loop; loop(*sys.argv[1:])"


class Figures(NamedTuple):
    """Texts a second together, and milliseconds for one text alone."""

    rate: float
    alone_ms: float


def loop(loader: str, checkpoint: str, seconds: str) -> None:
    """Print how fast a model of the loader is in a loop, without a server."""
    limit_torch()
    made = load_plugins().loader(loader).cls(**({"pack": True} if loader == "onnxruntime" else {}))
    made.prepare(Path(checkpoint))
    model = made.load(Path(checkpoint))
    medians = []
    for size in (CONNECTIONS, 1):
        laps: list[float] = []
        began = time.perf_counter()
        while time.perf_counter() - began < float(seconds):
            lap = time.perf_counter()
            model.predict([TEXT] * size)
            laps.append(time.perf_counter() - lap)
        medians.append(median(laps[len(laps) // 5 :]))  # without the first ones, which warm it up
    print(json.dumps([CONNECTIONS / medians[0], medians[1] * 1e3]))


def measure_loop(loader: str, checkpoint: Path, seconds: int) -> Figures:
    command = [sys.executable, "-c", LOOP, loader, str(checkpoint), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Figures(*json.loads(done.stdout.splitlines()[-1]))


def measure_server(start: Callable[[], AbstractContextManager[ServerProcess]], seconds: int) -> Figures:
    with running(start, ROUTE, BODY) as (server, _):
        url = server.url + ROUTE
        load(url, CONNECTIONS, seconds, BODY)  # warm-up; `onnxruntime` packs its weights meanwhile
        together = load(url, CONNECTIONS, seconds, BODY)
        return Figures(together["requests"] / together["seconds"], load(url, 1, seconds, BODY)["p50"])


def ours(loader: str, checkpoint: Path) -> Callable[[int], Figures]:
    settings = {"models": {"model": str(checkpoint)}, "strategies": [{"strategy": "persistent", "loader": loader}]}
    return partial(measure_server, partial(serve, settings))


def infinity(command: str, engine: str, checkpoint: Path) -> Callable[[int], Figures]:
    words = [command, "v2", "--model-id", str(checkpoint), "--served-model-name", "model", "--engine", engine]
    words += ["--device", "cpu", "--url-prefix", "/v1", "--host", "127.0.0.1"]
    quiet = {"DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0", "HF_HUB_OFFLINE": "1"}
    return partial(measure_server, partial(launch, words, os.environ | quiet))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="the directory of an embedder")
    parser.add_argument("--infinity", metavar="PATH", help="its command infinity_emb")
    parser.add_argument("--engine", default="torch", help="of infinity")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=6, help="for each measurement")
    flags = parser.parse_args()
    checkpoint = flags.checkpoint.resolve()
    competitors: dict[str, Callable[[int], Figures]] = {}
    for loader in LOADERS:
        competitors[f"bare {loader}"] = partial(measure_loop, loader, checkpoint)
        competitors[f"residency {loader}"] = ours(loader, checkpoint)
    if flags.infinity:
        competitors["infinity"] = infinity(str(Path(flags.infinity).expanduser()), flags.engine, checkpoint)
    figures = defaultdict[str, list[Figures]](list)
    order = random.Random(0)
    for number in range(flags.rounds):  # interleaved, because the machine's speed drifts
        for name in order.sample(list(competitors), len(competitors)):
            figures[name].append(competitors[name](flags.seconds))
            print(f"round {number + 1}, {name}: {figures[name][-1].rate:.1f}/s", file=sys.stderr)
    rows = [(name, *(median(column) for column in zip(*figures[name], strict=True))) for name in competitors]
    print(tabulate(rows, ("", f"texts/s at {CONNECTIONS}", "one text (ms)"), floatfmt=".2f"))
    pairs = [(f"residency {loader}", f"bare {loader}") for loader in LOADERS]
    pairs += [(f"residency {loader}", "infinity") for loader in LOADERS if flags.infinity]
    for one, other in pairs:
        ratio = median(a.rate / b.rate for a, b in zip(figures[one], figures[other], strict=True))
        print(f"{one} / {other}: {ratio:.2f}")


if __name__ == "__main__":
    main()
