"""A plan as text: a row for each setting, what to use, the settings to paste, and the basis of the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from textwrap import indent
from typing import Any

from tabulate import tabulate

from ..report.format import number
from .table import MISSING, milliseconds

Row = Mapping[str, Any]


def plan_text(plan: Row, style: str) -> str:
    """`style` is tabulate's, `pipe` for Markdown."""
    markdown = style == "pipe"
    parts = [f"# {plan['plan']}"] if markdown else []
    parts.append(_table(plan, style))
    if plan["confirmed"]:
        parts.append(_listed("As measured", plan["confirmed"]["sentences"], markdown=markdown))
    parts.append(_listed("What to use", plan["answer"], markdown=markdown))
    if plan["yaml"]:
        parts.append(f"```yaml\n{plan['yaml']}```" if markdown else indent(plan["yaml"].rstrip(), "  "))
    parts.append(_listed("Basis of this answer", plan["grounds"], markdown=markdown))
    return "\n\n".join(parts)


def _listed(title: str, sentences: list[str], *, markdown: bool) -> str:
    listed = "\n".join(f"- {sentence}" if markdown else sentence for sentence in sentences)
    return f"{'## ' if markdown else ''}{title}\n\n{listed}"


def _table(plan: Row, style: str) -> str:
    separator = " " if style == "pipe" else "\n"
    rows = [[column(row) for column in COLUMNS.values()] for row in plan["settings"]]
    headers = [name.replace("|", separator) for name in COLUMNS]
    align = ("left", *("right" for _ in headers[1:]))
    return tabulate(rows, headers=headers, tablefmt=style, colalign=align, disable_numparse=True)


COLUMNS: dict[str, Callable[[Row], str]] = {  # | is a line break where there is room
    "setting": lambda row: str(row["label"]),
    "cold": lambda row: f"{row['cold_share']:.1%}",
    "loads": lambda row: str(row["loads"]),
    "mean|(ms)": lambda row: milliseconds(row["mean_ms"]),
    "p50|(ms)": lambda row: milliseconds(row["p50_ms"]),
    "p99|(ms)": lambda row: milliseconds(row["p99_ms"]),
    "mean|(MiB)": lambda row: f"{row['mean_mib']:.0f}",
    "peak|(MiB)": lambda row: f"{row['peak_mib']:.0f}",
    "per hour": lambda row: number(row["cost_per_hour"], 4),
    "per million": lambda row: number(row["cost_per_million"], 4),
    "× clairvoyant|minimum": lambda row: MISSING if row["regret"] is None else f"{row['regret']:.2f}",
    "capacity": lambda row: "exceeded" if row["capacity_exceeded"] else f"{row['busy']:.0%} used",
}
