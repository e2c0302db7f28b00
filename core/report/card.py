"""The card of a run, as text."""

from __future__ import annotations

from textwrap import indent

from ..costs.prices import HOUR
from ..results.economics import Economics, TrialCosts
from ..results.summary import Summary
from .format import amount, bare_milliseconds, decimals, number, rate
from .prose.card import card_in_words
from .table import Row, aligned, row_name, rows

HEADERS = ("strategy", "memory|(MiB)", "holding|(an hour)", "a million|requests", "p50|(ms)", "p99|(ms)")


def card(summary: Summary, style: str) -> str:
    """What to use, what each trial costs, and the settings; `style` is tabulate's, `pipe` for Markdown."""
    markdown, told = style == "pipe", card_in_words(summary)
    sentences = list(told.sentences)
    if summary.card.settles:
        sentences.insert(0, "No recommendation yet.")
    if told.settles:
        sentences.append(f"What would settle it: {told.settles}")
    parts = ["\n".join(f"- {sentence}" if markdown else sentence for sentence in sentences)]
    if summary.economics:
        parts.append(_costs(summary, summary.economics, style))
    yamls = [each.yaml for each in told.settings]
    parts += [f"```yaml\n{text}```" if markdown else indent(text.rstrip(), "  ") for text in yamls]
    return "\n\n".join([f"{'## ' if markdown else ''}What to use", *parts])


def _costs(summary: Summary, economics: Economics, style: str) -> str:
    """A row for each trial that can be priced; a million requests at the run's own rate, or without the holding."""
    known = {row.trial.label: row for row in rows(summary)}
    cells = [_cells(known[each.label], each) for each in economics.trials]
    where = "at the rate of this run" if summary.rate is None else f"at {rate(summary.rate * HOUR)}"
    holding = "the cost of holding the models"
    measured = any(each.per_million is not None for each in economics.trials)
    includes = f"includes {holding}, {where}" if summary.rate or measured else f"excludes {holding}"
    return f"{aligned(HEADERS, cells, style)}\n\n'A million requests' {includes}."


def _cells(row: Row, costs: TrialCosts) -> tuple[str, ...]:
    latency = row.trial.latency_ms
    return (
        row_name(row.trial),
        decimals(costs.charged_mib, 0),
        number(costs.holding_per_hour),
        amount(row.per_million),
        *map(bare_milliseconds, (latency.p50, latency.p99)),
    )
