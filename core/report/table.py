"""The table of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from tabulate import tabulate
from wcwidth import wcswidth

from ..config.quantities import latency_target
from ..costs.economics import MILLION
from ..costs.prices import HOUR
from ..results.figures import ArrivalFigures, Latency, Part, TrialFigures
from ..results.summary import Summary
from .format import MISSING, NOTHING, amount, bare_milliseconds, decimals, share

NO_ARRIVAL = ArrivalFigures(
    warm_first_byte_ms=None, cold_first_byte_ms=None, gap_ms=None, longest_gap_ms=None, tokens_per_s=None
)
NARROWEST = 12  # characters of a label's line: the longest word of the labels that are made up


class Row(NamedTuple):
    """What a row of the table is made of."""

    trial: TrialFigures
    times_fastest: float | None
    """The ratio of its p50 to that of the fastest trial."""
    per_million: float | None
    """What a million requests cost; None if the trial is not priced."""


Column = Callable[[Row], str]


def table(summary: Summary, style: str, *, wide: bool = False, most: int | None = None) -> str:
    """One row for each trial, with the six columns that a choice needs, or with all.

    `style` is tabulate's, `pipe` for Markdown; `most` is how many characters a line may have, if that is known.
    A terminal is narrow: there, a column without a single figure is left out; the footnotes say why.
    """
    columns = all_columns(summary) if wide else first_columns(summary)
    cells = {name: [column(row) for row in rows(summary)] for name, column in columns.items()}
    if style != "pipe":
        cells = {name: column for name, column in cells.items() if not set(column) <= {MISSING, NOTHING}}
    shown = list(zip(*cells.values(), strict=True))
    text = aligned(list(cells), shown, style)
    beyond = max(map(wcswidth, text.splitlines())) - most if most is not None else 0
    if beyond <= 0:
        return text
    first = max(wcswidth(row[0]) for row in shown) - beyond
    if first >= NARROWEST:
        return aligned(list(cells), shown, style, first)
    return aligned([name.replace(" ", "|") for name in cells], shown, style, NARROWEST)


def aligned(heads: Sequence[str], cells: Sequence[Sequence[str]], style: str, first: int | None = None) -> str:
    """A table whose first column is text and whose others are figures. `|` in a head is a line break where there is
    room; `first` is how wide the first column may be.
    """
    headers = [head.replace("|", " " if style == "pipe" else "\n") for head in heads]
    align = ("left", *("right" for _ in heads[1:]))
    return tabulate(
        cells, headers=headers, tablefmt=style, colalign=align, disable_numparse=True,
        maxcolwidths=[first, *(None for _ in heads[1:])] if first else None,
    )  # fmt: skip


def rows(summary: Summary) -> list[Row]:
    """One for each trial."""
    ratios, millions = to_the_fastest(summary), per_million(summary)
    return [Row(trial, ratios.get(trial.label), millions.get(trial.label)) for trial in summary.trials]


def row_name(trial: TrialFigures) -> str:
    """The label, and the dtype if that is not float32 and the label does not say it."""
    is_named = trial.dtype in ("float32", *trial.label.replace(",", " ").split())
    return trial.label if is_named else f"{trial.label} ({trial.dtype})"


def all_columns(summary: Summary) -> dict[str, Column]:
    """All columns: those of every run, and those of this run's targets and streams."""
    return COLUMNS | target_columns(summary) | (ARRIVAL if _has_arrival(summary) else {})


def first_columns(summary: Summary) -> dict[str, Column]:
    """The columns that a choice needs."""
    return {name: COLUMNS[name] for name in NARROW} | (FIRST_OF_ARRIVAL if _has_arrival(summary) else {})


def _has_arrival(summary: Summary) -> bool:
    return any(trial.arrival for trial in summary.trials)


def target_columns(summary: Summary) -> dict[str, Column]:
    """Answers within each target of `slo`, per second; none without one."""

    def column(index: int) -> Column:
        return lambda row: decimals(row.trial.slo[index].goodput_rps, 1)

    slo = summary.slo or {}
    return {
        f"within {latency_target(seconds)}|({name}, 1/s)": column(i) for i, (name, seconds) in enumerate(slo.items())
    }


def _mean(latency: Latency) -> str:
    if latency.mean_ci95 is None:
        return bare_milliseconds(latency.mean)
    low, high = latency.mean_ci95
    return f"{bare_milliseconds(latency.mean)} ± {bare_milliseconds((high - low) / 2)}"


def _arrival(row: Row) -> ArrivalFigures:
    """The trial's figures of arrival; without a value if it answered nothing."""
    return row.trial.arrival or NO_ARRIVAL


def _median(part: Part) -> str:
    return bare_milliseconds(part.latency_ms.p50) if part.count else NOTHING


def to_the_fastest(summary: Summary) -> dict[str, float | None]:
    """The ratio of each trial's p50 to that of the fastest, by label: paired by rounds, as in the words, and not the
    ratio of the figures in the table.
    """
    known = {trial.label: trial.latency_ms.p50 for trial in summary.trials if trial.latency_ms.p50}
    if not known:
        return {}
    fastest = min(known, key=lambda label: known[label])
    ratios: dict[str, float | None] = {fastest: 1.0}
    for pair in summary.comparisons:
        if fastest in (pair.trial, pair.against) and (ratio := pair.statistics["p50"].ratio) is not None:
            is_ours = pair.against == fastest
            ratios[pair.trial if is_ours else pair.against] = ratio if is_ours else 1 / ratio
    return ratios


def per_million(summary: Summary) -> dict[str, float | None]:
    """What a million requests cost, by label: at the rate for which the card answers, at the rate of the run, or, if
    there is neither, without what holding the models costs.
    """
    priced = summary.economics.trials if summary.economics else []
    if any(each.per_million is not None for each in priced):
        return {each.label: each.per_million for each in priced}
    hours = MILLION / summary.rate / HOUR if summary.rate else 0.0
    return {each.label: each.per_request * MILLION + each.holding_per_hour * hours for each in priced}


COLUMNS: dict[str, Column] = {  # | is a line break where there is room
    "strategy": lambda row: row_name(row.trial),
    "exec →|ready (s)": lambda row: decimals(row.trial.ready_s, 2),
    "exec → first|answer (s)": lambda row: decimals(row.trial.first_answer_s, 2),
    "first|request (ms)": lambda row: bare_milliseconds(row.trial.first_request_ms),
    "cold": lambda row: share(row.trial.cold.share),
    "warm p50|(ms)": lambda row: _median(row.trial.warm),
    "cold p50|(ms)": lambda row: _median(row.trial.cold),
    "p50|(ms)": lambda row: bare_milliseconds(row.trial.latency_ms.p50),
    "p95|(ms)": lambda row: bare_milliseconds(row.trial.latency_ms.p95),
    "p99|(ms)": lambda row: bare_milliseconds(row.trial.latency_ms.p99),
    "mean ± 95 %|(ms)": lambda row: _mean(row.trial.latency_ms),
    "× the|fastest": lambda row: decimals(row.times_fastest, 2),
    "requests/s": lambda row: decimals(row.trial.throughput_rps, 1),
    "idle PSS|(MiB)": lambda row: decimals(row.trial.memory_mib.idle_pss, 0),
    "idle private|(MiB)": lambda row: decimals(row.trial.memory_mib.idle_private, 0),
    "peak RSS|(MiB)": lambda row: decimals(row.trial.memory_mib.peak_rss, 0),
    "a million|requests": lambda row: amount(row.per_million),
    "loads": lambda row: str(row.trial.loads),
    "errors": lambda row: str(row.trial.errors),
}
FIRST_OF_ARRIVAL: dict[str, Column] = {
    "warm first|byte (ms)": lambda row: bare_milliseconds(_arrival(row).warm_first_byte_ms),
    "cold first|byte (ms)": lambda row: bare_milliseconds(_arrival(row).cold_first_byte_ms),
    "tokens/s": lambda row: decimals(_arrival(row).tokens_per_s, 1),
}
ARRIVAL: dict[str, Column] = FIRST_OF_ARRIVAL | {
    "gap p50|(ms)": lambda row: bare_milliseconds(_arrival(row).gap_ms),
    "longest|gap (ms)": lambda row: bare_milliseconds(_arrival(row).longest_gap_ms),
}
"""Of runs with `requests`: when the parts of answers arrived."""
NARROW = ("strategy", "warm p50|(ms)", "cold p50|(ms)", "idle PSS|(MiB)", "a million|requests", "loads")
"""What it costs to wait, what it holds, what it costs, and how often a model is loaded."""
