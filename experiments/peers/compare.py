"""How fast are answers over HTTP, compared with other servers and with bare forwards, measured in interleaved rounds?

python -m experiments.peers
python -m experiments.peers --only "pipeline,fastapi onnxruntime,residency mapped"
python -m experiments.peers --workers    # measures the memory that a second worker adds instead

Peers with an ONNX graph read a plain export of the same checkpoint, which is made once per run.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from tabulate import tabulate

from core.bench.run import resolve_in_process
from core.errors import ResidencyError, TrialFailed
from experiments.peers.competitors import (
    CONFIGURATIONS,
    Competitor,
    Figures,
    competitors,
    missing_requirement,
    run_script,
)
from experiments.peers.second_worker import measure_second_worker
from experiments.peers.served import CONNECTIONS

MODEL = "synthetic:minilm-l6"
SEED = 0
HEADERS = (
    "server", "requests/s", "p50 (ms)", "p99 (ms)", "p50 at 1\nconnection (ms)",
    "exec → first\nanswer (s)", "PSS at rest\n(MiB)", "× bare", "over the bare\nforward (ms)",
)  # fmt: skip
RATIO_HEADERS = (
    "median of the rounds' ratios",
    f"requests/s at {CONNECTIONS} connections\n(above 1: the first is faster)",
    "p50 at 1 connection\n(below 1: the first is faster)",
)
RATIOS = (
    ("residency onnxruntime", "fastapi onnxruntime"),
    ("residency onnxruntime", "litserve onnxruntime"),
    ("residency onnxruntime", "pipeline"),
    ("residency onnxruntime int8", "fastapi onnxruntime int8"),
    ("residency openvino", "fastapi openvino"),
    ("residency openvino bfloat16", "fastapi openvino bfloat16"),
    ("residency mapped", "litserve"),
    ("residency mapped", "pipeline"),
)
Rounds = Mapping[str, Mapping[int, Figures]]


def paired_median(
    rounds: Rounds, name: str, other: str | None, compare: Callable[[Figures, Figures], float]
) -> float | None:
    """The median of `compare` over the rounds that measured both; None if there is none."""
    ours, theirs = rounds.get(name, {}), rounds.get(other or "", {})
    return median(compare(ours[n], theirs[n]) for n in both) if (both := ours.keys() & theirs.keys()) else None


def table(rounds: Rounds, bare_of: Mapping[str, str | None]) -> str:
    """A table of medians over rounds. `bare_of` names the bare forward of each competitor."""
    rows = []
    for name, bare in bare_of.items():
        if figures := rounds.get(name):
            columns = zip(*figures.values(), strict=True)
            row: list[Any] = [name, *(None if None in column else median(column) for column in columns)]
            row.append(paired_median(rounds, name, bare, lambda x, y: x.rate / y.rate))
            rows.append([*row, paired_median(rounds, name, bare, lambda x, y: x.alone - y.alone)])
    return tabulate(rows, HEADERS, floatfmt=("", ".1f", ".1f", ".1f", ".2f", ".2f", ".0f", ".2f", ".2f"))


def ratios(rounds: Rounds) -> list[tuple[str, float, float]]:
    """(names, ratio of rates, ratio of latencies) of each pair in `RATIOS` that was measured.

    Of a peer's configurations, the better one counts for each figure.
    """
    rows = []
    for name, peer in RATIOS:
        configurations = CONFIGURATIONS.get(peer, (peer,))
        rates = [paired_median(rounds, name, each, lambda x, y: x.rate / y.rate) for each in configurations]
        times = [paired_median(rounds, name, each, lambda x, y: x.alone / y.alone) for each in configurations]
        if any(rates):
            rows.append((f"{name} / {peer}", min(filter(None, rates)), max(filter(None, times))))
    return rows


def available(chosen: Mapping[str, Competitor]) -> dict[str, Competitor]:
    """The competitors that can be measured here. Prints why the others cannot."""
    usable = {}
    for name, competitor in chosen.items():
        if reason := missing_requirement(competitor):
            print(f"{name} is left out: {reason}", file=sys.stderr)
        else:
            usable[name] = competitor
    return usable


def compare(chosen: Mapping[str, Competitor], count: int, seconds: int) -> int:
    """Measure the competitors in `count` rounds, print the tables, and return the exit status."""
    rounds: dict[str, dict[int, Figures]] = defaultdict(dict)
    order = random.Random(SEED)
    failed = 0
    for number in range(count):  # interleaved, because the machine's speed drifts
        for name in order.sample(list(chosen), len(chosen)):
            try:
                rounds[name][number] = chosen[name].measure(seconds)
                print(f"round {number + 1} of {count}, {name}: {rounds[name][number].rate:.1f}/s", file=sys.stderr)
            except TrialFailed as error:
                failed = 1
                print(f"round {number + 1} of {count}, {name}: {error}", file=sys.stderr)
    print(table(rounds, {name: competitor.bare for name, competitor in chosen.items()}))
    if rows := ratios(rounds):
        print("\n" + tabulate(rows, RATIO_HEADERS, floatfmt=".2f"))
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, choices=range(1, 101), metavar="N", help="1 to 100")
    parser.add_argument(
        "--seconds", type=int, default=8, choices=range(1, 601), metavar="N", help="for each measurement, 1 to 600"
    )
    parser.add_argument("--only", metavar="NAME,…", help="measure only these competitors")
    parser.add_argument(
        "--peer-python", default=sys.executable, metavar="PATH", help="an interpreter with litserve and onnxruntime"
    )
    parser.add_argument("--workers", action="store_true", help="measure only the memory of a second worker")
    arguments = parser.parse_args()
    checkpoint = resolve_in_process(MODEL)
    if arguments.workers:
        measure_second_worker(MODEL, arguments.rounds)
        return 0
    with TemporaryDirectory(prefix="residency-") as folder:
        every = competitors(MODEL, checkpoint, Path(folder), arguments.peer_python)
        names = arguments.only.split(",") if arguments.only else list(every)
        if unknown := set(names) - set(every):
            parser.error(f"there is no {', '.join(sorted(unknown))}; there are: {', '.join(every)}")
        chosen = available({name: every[name] for name in every if name in names})
        if not chosen:
            raise ResidencyError("Nothing is left to measure.")
        if any(competitor.reads_graph for competitor in chosen.values()):
            run_script("export_onnx.py", str(checkpoint), folder)
        return compare(chosen, arguments.rounds, arguments.seconds)
