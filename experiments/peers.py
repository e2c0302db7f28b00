"""How fast are answers over HTTP, against other servers and the bare forward, measured in the same minutes?

python experiments/peers.py
python experiments/peers.py --workers    # what a second worker adds in memory, instead
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from second_worker import second_worker
from served import CONNECTIONS, TEXT, Start, load, running
from tabulate import tabulate

from core.bench.server import launch, serve
from core.errors import ResidencyError, TrialFailed
from core.models.references import resolve

HERE = Path(__file__).resolve().parent
MODEL = "synthetic:minilm-l6"
SEED = 0
HEADERS = (
    "server", "requests/s", "p50 (ms)", "p99 (ms)", "p50 at 1 connection (ms)",
    "× pipeline", "× litserve", "× bare", "over the bare forward (ms)",
)  # fmt: skip


class Figures(NamedTuple):
    """One round of one competitor; milliseconds."""

    rate: float
    p50: float | None
    p99: float | None
    alone: float  # p50 with one connection; of the bare forward, its time for one text


class Competitor(NamedTuple):
    """How it is measured for some seconds, and the bare loop whose forward is to be compared."""

    measure: Callable[[int], Figures]
    bare: str = "bare"


def competitors(checkpoint: Path, peer_python: str) -> dict[str, Competitor]:
    def ours(strategy: str, loader: Mapping[str, Any] | str, **options: Any) -> Callable[[int], Figures]:
        chosen = [{"strategy": strategy, "loader": loader, "options": options}]
        route = "/predict" if strategy == "persistent" else f"/predict-{strategy}"
        return partial(served, lambda: serve({"strategies": chosen, "models": {"model": MODEL}}), route)

    def pipeline(**variables: str) -> Callable[[int], Figures]:
        variables["PIPELINE_MODEL"] = str(checkpoint)
        return partial(served, lambda: serve({}, "pipeline_app:app", HERE, variables=variables), "/predict")

    litserve = [peer_python, str(HERE / "litserve_app.py"), str(checkpoint)]
    halved, packed = {"dtype": "bfloat16"}, {"pack": True}
    return {
        "bare": Competitor(partial(bare, checkpoint, {})),
        "bare packed": Competitor(partial(bare, checkpoint, packed), "bare packed"),
        "bare bfloat16": Competitor(partial(bare, checkpoint, halved), "bare bfloat16"),
        "pipeline": Competitor(pipeline()),
        "pipeline on demand": Competitor(pipeline(PIPELINE_PER_REQUEST="1")),
        "litserve": Competitor(partial(served, lambda: launch(litserve, os.environ), "/predict")),
        "residency transformers": Competitor(ours("persistent", "transformers")),
        "residency mapped": Competitor(ours("persistent", "mapped")),
        "residency packed": Competitor(ours("persistent", {"name": "mapped", **packed}), "bare packed"),
        "residency bfloat16": Competitor(ours("persistent", {"name": "mapped", **halved}), "bare bfloat16"),
        "on-demand mapped": Competitor(ours("on-demand", "mapped")),
        "on-demand mapped share": Competitor(ours("on-demand", "mapped", share=True)),
    }


def bare(checkpoint: Path, options: Mapping[str, Any], seconds: int) -> Figures:
    command = [sys.executable, str(HERE / "bare_forward.py"), str(checkpoint), json.dumps(options), TEXT, str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TrialFailed(f"the loop ended with status {done.returncode}: {done.stderr[-300:]}")
    measured = json.loads(done.stdout)
    return Figures(measured["texts_per_second"], None, None, measured["one_text_ms"])


def served(start: Start, route: str, seconds: int) -> Figures:
    with running(start, route) as server:
        load(server.url + route, CONNECTIONS, min(seconds, 2))  # the warm-up
        together = load(server.url + route, CONNECTIONS, seconds)
        alone = load(server.url + route, 1, seconds)
        return Figures(together["requests"] / together["seconds"], together["p50"], together["p99"], alone["p50"])


def available(names: list[str], peer_python: str) -> list[str]:
    """What can be measured here; of the rest it is said what is missing."""
    if not shutil.which("wrk"):
        print("wrk is missing, so nothing that is served is measured: install it (apt install wrk).", file=sys.stderr)
        return [name for name in names if name.startswith("bare")]
    if "litserve" in names and not can_import(peer_python, "litserve"):
        remedy = "pip install litserve, or name an interpreter that has it by --peer-python"
        print(f"litserve is missing for {peer_python}: {remedy}.", file=sys.stderr)
        names.remove("litserve")
    return names


def can_import(python: str, module: str) -> bool:
    find = f"import sys, importlib.util; sys.exit(importlib.util.find_spec('{module}') is None)"
    return shutil.which(python) is not None and subprocess.run([python, "-c", find], check=False).returncode == 0


def table(rounds: dict[str, dict[int, Figures]], bare_of: Mapping[str, str]) -> str:
    """Medians of the rounds; a ratio or a difference is taken within each round first."""

    def against(name: str, other: str, compare: Callable[[Figures, Figures], float]) -> float | None:
        both = rounds[name].keys() & rounds.get(other, {}).keys()
        return median(compare(rounds[name][n], rounds[other][n]) for n in both) if both else None

    rows = []
    for name in (name for name in bare_of if rounds.get(name)):
        figures = list(rounds[name].values())
        row: list[Any] = [name, *(None if None in column else median(column) for column in zip(*figures, strict=True))]
        row += [against(name, o, lambda x, y: x.rate / y.rate) for o in ("pipeline", "litserve", bare_of[name])]
        rows.append([*row, against(name, bare_of[name], lambda x, y: x.alone - y.alone)])
    return tabulate(rows, HEADERS, floatfmt=("", ".1f", ".1f", ".1f", ".2f", ".2f", ".2f", ".2f", ".2f"))


def compare(chosen: dict[str, Competitor], count: int, seconds: int) -> int:
    rounds: dict[str, dict[int, Figures]] = defaultdict(dict)
    order = random.Random(SEED)
    failed = 0
    for number in range(count):  # interleaved: the machine's speed drifts
        for name in order.sample(list(chosen), len(chosen)):
            try:
                rounds[name][number] = chosen[name].measure(seconds)
                print(f"round {number + 1} of {count}, {name}: {rounds[name][number].rate:.1f}/s", file=sys.stderr)
            except TrialFailed as error:
                failed = 1
                print(f"round {number + 1} of {count}, {name}: {error}", file=sys.stderr)
    print(table(rounds, {name: competitor.bare for name, competitor in chosen.items()}))
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, choices=range(1, 101), metavar="N", help="1 to 100")
    parser.add_argument(
        "--seconds", type=int, default=8, choices=range(1, 601), metavar="N", help="of each measurement, 1 to 600"
    )
    parser.add_argument("--only", metavar="NAME,…", help="some of the competitors")
    parser.add_argument("--peer-python", default=sys.executable, metavar="PATH", help="an interpreter with litserve")
    parser.add_argument("--workers", action="store_true", help="measure the memory of a second worker, nothing else")
    arguments = parser.parse_args()
    checkpoint = resolve(MODEL)
    if arguments.workers:
        second_worker(MODEL, arguments.rounds)
        return 0
    everyone = competitors(checkpoint, arguments.peer_python)
    names = arguments.only.split(",") if arguments.only else list(everyone)
    if unknown := set(names) - set(everyone):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are: {', '.join(everyone)}")
    names = available(names, arguments.peer_python)
    return compare({name: everyone[name] for name in everyone if name in names}, arguments.rounds, arguments.seconds)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except ResidencyError as error:
        sys.exit(str(error))
