"""The card of a run, as text."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import indent
from typing import Any

from tabulate import tabulate

from ..costs.prices import HOUR
from ..report.format import number, rate
from .table import milliseconds, row_name

MILLION = 1e6
HEADERS = ("strategy", "memory|(MiB)", "holding|(an hour)", "a million|requests", "p50|(ms)", "p99|(ms)")


def card(summary: Mapping[str, Any], style: str) -> str:
    """What to use, what each trial costs, and the settings; `style` is tabulate's, `pipe` for Markdown."""
    markdown, found = style == "pipe", summary["card"]
    sentences = list(found["sentences"])
    if found["settles"]:
        sentences.insert(0, "No recommendation yet.")
        if found["settles"] not in " ".join(found["sentences"]):
            sentences.append(f"What would settle it: {found['settles']}")
    parts = ["\n".join(f"- {sentence}" if markdown else sentence for sentence in sentences)]
    if summary["economics"]:
        parts.append(_costs(summary, style))
    yamls = [each["yaml"] for each in found["settings"]]
    parts += [f"```yaml\n{text}```" if markdown else indent(text.rstrip(), "  ") for text in yamls]
    return "\n\n".join([f"{'## ' if markdown else ''}What to use", *parts])


def _costs(summary: Mapping[str, Any], style: str) -> str:
    """A row for each trial that can be priced; a million requests at the run's own rate, or without the holding."""
    trials = {trial["label"]: trial for trial in summary["trials"]}
    rows = []
    stated = summary.get("rate")
    measured = any(each["per_million"] is not None for each in summary["economics"]["trials"])
    for each in summary["economics"]["trials"]:
        besides = each["per_request"] * MILLION
        held = each["holding_per_hour"] / HOUR / stated * MILLION if stated else 0.0
        million = each["per_million"] if measured else besides + held
        rows.append(
            (
                row_name(trials[each["label"]]),
                f"{each['charged_mib']:.0f}",
                number(each["holding_per_hour"]),
                number(million),
                *(milliseconds(trials[each["label"]]["latency_ms"][q]) for q in ("p50", "p99")),
            )
        )
    separator = " " if style == "pipe" else "\n"
    headers = [name.replace("|", separator) for name in HEADERS]
    where = f"at {rate(stated * HOUR)}" if stated else "at the rate of this run"
    holding = "the cost of holding the models"
    includes = f"includes {holding}, {where}" if stated or measured else f"excludes {holding}"
    note = f"'A million requests' {includes}."
    align = ("left", *("right" for _ in headers[1:]))
    shown = tabulate(rows, headers=headers, tablefmt=style, colalign=align, disable_numparse=True)
    return f"{shown}\n\n{note}"
