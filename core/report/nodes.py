"""What each node of a cluster did, as a table: only of runs that have a cluster."""

from __future__ import annotations

from collections.abc import Iterator

from ..results.figures import NodeFigures
from ..results.summary import Summary
from .format import NOTHING, decimals, share
from .sheets import Sheet, csv_of, flat
from .table import aligned

TITLE = "By node"
HEADS = ("", "requests", "of all", "loads", "at the end|(MiB)", "at most|(MiB)", "of its|budget")


def node_table(summary: Summary, style: str) -> str:
    """A row for each node; empty if no trial has nodes. `style` is tabulate's."""
    cells = [_cells(label, figures) for label, figures in _nodes(summary)]
    return aligned(HEADS, cells, style) if cells else ""


def node_sheet(summary: Summary) -> Sheet | None:
    """The same for the page."""
    found = list(_nodes(summary))
    if not found:
        return None
    header = [head.replace("|", " ") for head in HEADS]
    data = csv_of({"trial": label, **flat(figures)} for label, figures in found)
    return Sheet("nodes", TITLE, header, [_cells(label, figures) for label, figures in found], data)


def _nodes(summary: Summary) -> Iterator[tuple[str, NodeFigures]]:
    for trial in summary.trials:
        for figures in trial.nodes or ():
            yield trial.label, figures


def _cells(label: str, figures: NodeFigures) -> list[str]:
    return [
        f"{label}: {figures.node}",
        str(figures.requests),
        share(figures.share),
        str(figures.loads),
        decimals(figures.end_mib, 0),
        decimals(figures.most_mib, 0),
        NOTHING if figures.budget_mib is None else share(figures.most_of_budget),
    ]
