"""The table of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tabulate import tabulate

from ..config.quantities import limit
from ..costs.limit import floor_in_words

Trial = Mapping[str, Any]
MISSING = "n/a"
Ratios = Mapping[str, float | None]
"""The ratio of each trial's p50 to that of the fastest, by label."""
Column = Callable[[Trial, Ratios], str]
NULLS = {"p50": "p50", "p99": "p99"}  # by the key of a latency
WIDE_NULLS = NULLS | {"p95": "p95", "mean_ci95": "interval"}


def table(summary: Mapping[str, Any], style: str, *, wide: bool = False) -> str:
    """One row for each trial, with the seven columns that a choice needs, or with all.

    `style` is tabulate's, `pipe` for Markdown.
    A terminal is narrow: there, a column without a single figure is left out; the footnotes say why.
    """
    ratios = to_the_fastest(summary)
    columns = COLUMNS | target_columns(summary) if wide else {name: COLUMNS[name] for name in NARROW}
    cells = {name: [column(trial, ratios) for trial in summary["trials"]] for name, column in columns.items()}
    if style != "pipe":
        cells = {name: column for name, column in cells.items() if set(column) != {MISSING}}
    separator = " " if style == "pipe" else "\n"
    headers = [name.replace("|", separator) for name in cells]
    align = ("left", *("right" for _ in headers[1:]))
    rows = list(zip(*cells.values(), strict=True))
    return tabulate(rows, headers=headers, tablefmt=style, colalign=align, disable_numparse=True)


def row_name(trial: Trial) -> str:
    """The label, and the dtype if that is not float32 and the label does not say it."""
    is_named = trial["dtype"] in ("float32", *trial["label"].replace(",", " ").split())
    return str(trial["label"]) if is_named else f"{trial['label']} ({trial['dtype']})"


def target_columns(summary: Mapping[str, Any]) -> dict[str, Column]:
    """Answers within each target of `slo`, per second; none without one."""

    def column(index: int) -> Column:
        return lambda trial, _: _number(trial["slo"][index]["goodput_rps"], 1)

    slo = summary["slo"] or {}
    return {f"within {limit(seconds)}|({name}, 1/s)": column(i) for i, (name, seconds) in enumerate(slo.items())}


def footnotes(summary: Mapping[str, Any], *, wide: bool = False) -> list[str]:
    """How the table's figures were made, and why some are missing."""
    how = (
        "Latencies are of the steady state, after the first request. cold: the share of the requests that waited for a"
        " load; the other ones are warm. PSS includes mapped weights; a page that n processes map counts 1/n. Private"
        " memory is what the server alone has written. Each round is a server process of its own."
    )
    more = "The mean is given with its 95 % interval over rounds." if wide else "--wide shows the other columns."
    missing = WIDE_NULLS if wide else NULLS
    whose: dict[tuple[str, str], list[str]] = {}
    for trial in summary["trials"]:
        for key, reason in trial["latency_ms"]["null_because"].items():
            if key in missing:
                whose.setdefault((missing[key], reason), []).append(trial["label"])
    lacking = [f"No {what} for {'; '.join(labels)}: it {why}." for (what, why), labels in whose.items()]
    least = [floor_in_words(summary)] if summary.get("limit") or summary.get("floor") else []
    return [f"{how} {more}", *least, *_generator(summary), *lacking]


def _generator(summary: Mapping[str, Any]) -> list[str]:
    """The load generator's worst figures over all trials; summary.json has those of each trial."""
    known = [trial["generator"] for trial in summary["trials"] if trial["generator"]]
    if not known:
        return []
    lag, late, cores = (max(each[key] for each in known) for key in ("lag_p99_ms", "late_share", "cores"))
    figures = (
        f"took up to {cores:.2f} cores; the p99 of its lag was {lag:.2g} ms, and {late:.2%} of the sends were late"
    )
    return [f"The load generator {figures}."]


def _number(value: float | None, digits: int) -> str:
    return MISSING if value is None else f"{value:.{digits}f}"


def milliseconds(value: float | None) -> str:
    """Without the unit."""
    return _number(value, 1 if value is not None and value < 100 else 0)


def _mean(trial: Trial) -> str:
    latency = trial["latency_ms"]
    if latency["mean_ci95"] is None:
        return milliseconds(latency["mean"])
    low, high = latency["mean_ci95"]
    return f"{milliseconds(latency['mean'])} ± {milliseconds((high - low) / 2)}"


def to_the_fastest(summary: Mapping[str, Any]) -> Ratios:
    """The ratios as in the words: paired by rounds, not those of the figures in the table."""
    known = {trial["label"]: trial["latency_ms"]["p50"] for trial in summary["trials"] if trial["latency_ms"]["p50"]}
    if not known:
        return {}
    fastest = min(known, key=lambda label: known[label])
    ratios: dict[str, float | None] = {fastest: 1.0}
    for pair in summary["comparisons"]:
        if fastest in (pair["trial"], pair["against"]) and (ratio := pair["statistics"]["p50"]["ratio"]) is not None:
            is_ours = pair["against"] == fastest
            ratios[pair["trial"] if is_ours else pair["against"]] = ratio if is_ours else 1 / ratio
    return ratios


def _times_fastest(trial: Trial, ratios: Ratios) -> str:
    return _number(ratios.get(trial["label"]), 2)


def _share(value: float | None) -> str:
    return MISSING if value is None else f"{value:.0%}" if value in (0, 1) else f"{value:.1%}"


COLUMNS: dict[str, Column] = {  # | is a line break where there is room
    "strategy": lambda trial, _: row_name(trial),
    "exec →|ready (s)": lambda trial, _: _number(trial["ready_s"], 2),
    "exec → first|answer (s)": lambda trial, _: _number(trial["first_answer_s"], 2),
    "first|request (ms)": lambda trial, _: milliseconds(trial["first_request_ms"]),
    "cold": lambda trial, _: _share(trial["cold"]["share"]),
    "warm p50|(ms)": lambda trial, _: milliseconds(trial["warm"]["latency_ms"]["p50"]),
    "cold p50|(ms)": lambda trial, _: milliseconds(trial["cold"]["latency_ms"]["p50"]),
    "p50|(ms)": lambda trial, _: milliseconds(trial["latency_ms"]["p50"]),
    "p95|(ms)": lambda trial, _: milliseconds(trial["latency_ms"]["p95"]),
    "p99|(ms)": lambda trial, _: milliseconds(trial["latency_ms"]["p99"]),
    "mean ± 95 %|(ms)": lambda trial, _: _mean(trial),
    "× the|fastest": _times_fastest,
    "requests/s": lambda trial, _: _number(trial["throughput_rps"], 1),
    "idle PSS|(MiB)": lambda trial, _: _number(trial["memory_mib"]["idle_pss"], 0),
    "idle private|(MiB)": lambda trial, _: _number(trial["memory_mib"]["idle_private"], 0),
    "peak RSS|(MiB)": lambda trial, _: _number(trial["memory_mib"]["peak_rss"], 0),
    "loads": lambda trial, _: str(trial["loads"]),
    "errors": lambda trial, _: str(trial["errors"]),
}
NARROW = ("strategy", "exec → first|answer (s)", "cold", "p50|(ms)", "p99|(ms)", "requests/s", "idle PSS|(MiB)")
