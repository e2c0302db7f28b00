"""A run's data for other tools: its requests as tidy CSV, its figures as SVG and PDF, its table as LaTeX."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..results.records import Arrival
from ..results.summary import Summary
from .figures import cost_curves, distributions, latencies, load_waterfall
from .html import rates
from .sheets import Value
from .table import table

if TYPE_CHECKING:
    from ..stats.rounds import Run

OF_A_SAMPLE = {"model", "text", "first", "cold", "status", "ms"}
COLUMNS = ("round", "trial", "strategy", "loader", "model", "text", "first", "cold", "status", "ms")
OF_ARRIVAL = tuple(Arrival.model_fields)  # columns of runs with `requests`
PHASES = ("queue", "load", "inference")  # ms, of the answer's Server-Timing
FORMATS = ("svg", "pdf")


def export(run: Run, summary: Summary, folder: Path) -> list[Path]:
    """Write the files into `folder`. Returns their paths."""
    requests, latex = folder / "requests.csv", folder / "table.tex"
    with requests.open("w", encoding="utf-8", newline="") as file:
        further = ("apart", *OF_ARRIVAL) if any(trial.arrival for trial in summary.trials) else ()
        columns = [*COLUMNS, *(f"{phase}_ms" for phase in PHASES), *further]
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(_requests(run))
    latex.write_text(table(summary, "latex_booktabs", wide=True) + "\n", encoding="utf-8")
    return [requests, latex, *_figures(run, summary, folder)]


def _requests(run: Run) -> Iterator[dict[str, Value]]:
    """One row for each request of the rounds that were finished; rounds are counted from 1."""
    for label in run.labels:
        spec = run.spec(label)
        known = {"trial": label, "strategy": spec.strategy, "loader": spec.loader}
        for each in run.finished(label):
            for sample in each.samples:
                yield {
                    "round": each.number + 1,
                    **known,
                    **sample.model_dump(include=OF_A_SAMPLE),
                    **{f"{phase}_ms": sample.timing.get(phase) for phase in PHASES},
                    "apart": sample.apart,
                    **(sample.arrival.model_dump() if sample.arrival else {}),
                }


def _figures(run: Run, summary: Summary, folder: Path) -> Iterator[Path]:
    economics = summary.economics
    costs = cost_curves(economics, rates(summary.card)) if economics else None
    for drawing in (distributions(latencies(run)), load_waterfall(summary), costs):
        for suffix in FORMATS if drawing is not None else ():
            assert drawing is not None
            path = folder / f"{drawing.name}.{suffix}"
            drawing.save(path)
            yield path
