"""Is a home for each model better than the routing of Ray Serve's `@serve.multiplexed`? Simulated, on drawn traffic.

python -m experiments.routing --seeds 10 --out routing
python -m experiments.routing --nodes 10 --models 300 --rate 25,40 --requests 30000
python -m experiments.routing --read routing/results.csv    # only the tables

Ray limits the number of models on a node, not their bytes: here, to as many as would fit if all had the average size;
and to so many fewer that the fullest node has about as many bytes as its share of the room.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tabulate import tabulate

from core.errors import FileError
from experiments.routing import compare
from experiments.routing.compare import RAY, WAYS, Case, Cell, Difference, difference

HEADERS = [
    "", "cold", "against Ray", "p50 (ms)", "p99 (ms)", "against Ray", "busiest node / mean", "most bytes / budget",
    "models in memory", "simulated in (s)",
]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status, 0, after the comparison is printed and written."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if min(given.nodes, given.models, given.requests, given.seeds, *given.rate) <= 0 or given.nodes < 2:
        parser.error("--nodes must be 2 or more, and the other numbers more than 0")
    cells: list[Cell] = []
    if given.read:
        cells = compare.read(given.read)
    else:
        for rate in given.rate:
            cells += compare.compare(Case(given.nodes, given.models, rate, given.requests), given.seeds)
    print(tables(cells))
    if given.out:
        try:
            given.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(
                f"{given.out}: cannot be made a folder ({error.strerror}); name another under --out."
            ) from error
        compare.write(cells, given.out / "results.csv")
    return 0


def tables(cells: Sequence[Cell]) -> str:
    """A table for each case: the means over seeds, and differences from Ray's rule with their intervals."""
    made = []
    for case in dict.fromkeys(cell.case for cell in cells):
        own = [cell for cell in cells if cell.case == case]
        rows = [_row(own, way) for way in WAYS if any(cell.way == way for cell in own)]
        seeds = len({cell.seed for cell in own})
        title = f"{case}, {case.requests:,} requests, {seeds} {'seed' if seeds == 1 else 'seeds'}"
        made.append(f"{title}\n\n{tabulate(rows, HEADERS, tablefmt='pipe', disable_numparse=True)}")
    return "\n\n".join(made)


def _row(cells: Sequence[Cell], way: str) -> list[str]:
    own = [cell for cell in cells if cell.way == way]

    def mean(figure: str) -> float:
        return float(np.mean([getattr(cell, figure) for cell in own]))

    return [
        way,
        f"{mean('cold'):.1%}",
        _shown(difference(cells, way, "cold"), way),
        f"{mean('p50_ms'):.1f}",
        f"{mean('p99_ms'):.0f}",
        _shown(difference(cells, way, "p99_ms"), way),
        f"{mean('busiest'):.1f}",
        f"{max(cell.room for cell in own):.2f}",
        f"{mean('distinct'):,.0f}",
        f"{mean('seconds'):.1f}",
    ]


def _shown(found: Difference | None, way: str) -> str:
    if way == RAY or found is None:
        return ""
    return f"{found.mean:+.1%} ({found.low:+.1%} to {found.high:+.1%})"


def _rates(text: str) -> list[float]:
    return [float(each) for each in text.split(",")]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.routing", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=100, help="100 by default")
    parser.add_argument("--models", type=int, default=10_000, help="10000 by default")
    parser.add_argument(
        "--rate",
        type=_rates,
        default=[25.0, 40.0],
        metavar="NUMBER,…",
        help="requests/s for each node; 25,40 by default",
    )
    parser.add_argument("--requests", type=int, default=300_000, help="300000 by default")
    parser.add_argument("--seeds", type=int, default=10, help="10 by default")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to write results.csv")
    parser.add_argument(
        "--read", type=Path, metavar="CSV", help="print the tables of this results.csv, and simulate nothing"
    )
    return parser
