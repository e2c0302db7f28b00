"""What do `ttl: learned` and `cached` cost, compared to `ttl: auto`, LRU and the best in hindsight?

python -m experiments.policies --out policies
python -m experiments.policies --only few,sparse --days 1
python -m experiments.policies --only "" --trace ours=requests.csv --sizes models.csv --out policies
python -m experiments.policies --drawn-from policies/results.csv --out policies    # only the figures

A trace has the columns `time` (in seconds) and `model`; the sizes have `model` and `mib`, or the column that is named
after a colon: `models.csv:average_memory_mb`.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean

from tabulate import tabulate

from core.errors import FileError
from experiments.policies import compare
from experiments.policies.compare import AUTO, BEST, CLAIRVOYANT, LEARNED, LRU, RULES, Cell, Ratios, ratios
from experiments.policies.figures import figures
from experiments.policies.traffic import DAYS, DRAWN, Traffic, draw, read


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status, after the comparison is printed and written: 1 if a policy costs more than its bound, else 0."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if len(given.trace) != len(given.sizes):
        parser.error("each --trace needs a --sizes, in the same order")
    if not 0 < given.days < math.inf:
        parser.error("--days must be more than 0")
    if not (given.only or given.trace or given.drawn_from):
        parser.error('--only "" leaves nothing to compare; add --trace and --sizes')
    if unknown := set(given.only) - DRAWN.keys():
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are: {', '.join(DRAWN)}")
    if given.out:
        try:
            given.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(
                f"{given.out}: cannot be made a folder ({error.strerror}); name another under --out."
            ) from error
    if given.drawn_from:
        cells = compare.read(given.drawn_from)
    else:
        cells = [cell for traffic in _traffic(given) for cell in compare.compare(traffic)]
    found = ratios(cells)
    print(tables(found))
    if given.out:
        _write(cells, given.out)
    excesses = [sentence for each in found if (sentence := each.excess)]
    print("\n" + ("\n".join(excesses) or "No cell is above its bound."))
    return 1 if excesses else 0


def tables(found: Sequence[Ratios]) -> str:
    """The cost of `learned` divided by that of `auto`, and of `best` by that of LRU, with a row for each traffic."""
    timeouts, evictions = (_rows(found, policy) for policy in (AUTO, LRU))
    made = []
    if timeouts:
        costs = [each.costs for each in next(iter(timeouts.values()))]
        headers = ["traffic", *costs, *(f"cold, {name}" for name in costs)]
        rows = [
            [name, *(f"{each.of(LEARNED, AUTO):.3f}" for each in row), *(_cold(each, AUTO, LEARNED) for each in row)]
            for name, row in timeouts.items()
        ]
        made += [tabulate(rows, headers, tablefmt="pipe", disable_numparse=True), _hindsight(timeouts)]
    if evictions:
        headers = ["traffic", *(f"{each.budget:.0%}" for each in next(iter(evictions.values())))]
        headers += [f"{rule}, worst" for rule in RULES[1:]]
        rows = [
            [name, *(f"{each.of(BEST, LRU):.3f}" for each in row), *(_worst(row, rule) for rule in RULES[1:])]
            for name, row in evictions.items()
        ]
        made.append(tabulate(rows, headers, tablefmt="pipe", disable_numparse=True))
    return "\n\n".join(made)


def _rows(found: Sequence[Ratios], policy: str) -> dict[str, list[Ratios]]:
    """The cells with the policy, by traffic."""
    rows: dict[str, list[Ratios]] = {}
    for each in found:
        if policy in each.cells:
            rows.setdefault(each.traffic, []).append(each)
    return rows


def _cold(each: Ratios, before: str, after: str) -> str:
    return f"{100 * each.cells[before].cold:.3g} → {100 * each.cells[after].cold:.3g} %"


def _worst(row: Sequence[Ratios], rule: str) -> str:
    return f"{max(each.of(rule, LRU) for each in row):.3f}"


def _hindsight(timeouts: Mapping[str, Sequence[Ratios]]) -> str:
    """How far both policies are from the least possible cost, as a sentence."""
    parts = []
    for policy in (AUTO, LEARNED):
        times = [each.of(policy, CLAIRVOYANT) for row in timeouts.values() for each in row]
        parts.append(f"{policy} {mean(times):.2f} on average, {max(times):.2f} at most")
    return f"Cost divided by the least possible with all requests known beforehand: {'; '.join(parts)}."


def _traffic(given: argparse.Namespace) -> Iterator[Traffic]:
    for name in given.only:
        yield draw(name, given.days, given.seed)
    for trace, sizes in zip(given.trace, given.sizes, strict=True):
        name, _, path = trace.partition("=")
        file, _, column = sizes.partition(":")
        yield read(name, Path(path or name), Path(file), column or "mib")


def _write(cells: Sequence[Cell], folder: Path) -> None:
    compare.write(cells, folder / "results.csv")
    for drawing in figures(ratios(cells)):
        drawing.save(folder / f"{drawing.name}.svg")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.policies",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only",
        type=lambda text: text.split(",") if text else [],
        default=list(DRAWN),
        metavar="NAME,…",
        help=f"draw only these kinds of traffic; none if empty, all by default: {', '.join(DRAWN)}",
    )
    parser.add_argument(
        "--days", type=float, default=DAYS, help=f"the length of drawn traffic in days, {DAYS:g} by default"
    )
    parser.add_argument("--seed", type=int, default=0, help="the seed of drawn traffic, 0 by default")
    parser.add_argument("--trace", action="append", default=[], metavar="NAME=CSV", help="a file of requests")
    parser.add_argument(
        "--sizes", action="append", default=[], metavar="CSV", help="a file of the sizes of their models"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to write results.csv and the figures")
    parser.add_argument(
        "--drawn-from", type=Path, metavar="CSV", help="draw the figures of this results.csv, and compare nothing"
    )
    return parser
