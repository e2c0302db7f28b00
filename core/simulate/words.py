"""A plan as a table and in sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tabulate import tabulate

from ..decide.timeouts import POISSON_REGRET
from .setting import duration

WITHIN = 1.1  # times the best fixed setting in hindsight: what a choice by the first half is held to
MISSING = "n/a"
Row = Mapping[str, Any]


def table(plan: Row, style: str) -> str:
    """One row for each setting; `style` is tabulate's, `pipe` for Markdown."""
    separator = " " if style == "pipe" else "\n"
    rows = [[column(row) for column in COLUMNS.values()] for row in plan["settings"]]
    headers = [name.replace("|", separator) for name in COLUMNS]
    align = ("left", *("right" for _ in headers[1:]))
    return tabulate(rows, headers=headers, tablefmt=style, colalign=align, disable_numparse=True)


def sentences(plan: Row) -> list[str]:
    """The answer first, then what it rests on."""
    rows = {row["label"]: row for row in plan["settings"]}
    found = [*_recommendation(plan, rows), *_hindsight(plan), *_clock(plan), *_regret(plan, rows), *_eviction(plan)]
    found += [_theory(row, timeouts=plan["on_its_own_clock"]) for row in plan["theory"]]
    return [*found, _prices(plan["prices"]), *(f"Note: {note}" for note in plan["notes"])]


def _recommendation(plan: Row, rows: Mapping[str, Row]) -> Iterator[str]:
    chosen, other = rows.get(plan["recommended"]), rows.get(plan["runner_up"])
    traffic = f"For {plan['requests']} requests in {duration(plan['seconds'])} ({plan['traffic']})"
    if chosen is None:
        yield (
            f"{traffic} no setting is advised: each one exceeds its capacity or misses the target. Lower the rate, ease"
            " the target, or measure a faster loader."
        )
        return
    yield f"{traffic}, use {chosen['label']}: {_what_it_costs(chosen)}."
    if other is not None:
        yield f"The runner-up is {other['label']}: {_what_it_costs(other)}."
    exceeded = [row["label"] for row in plan["settings"] if row["capacity_exceeded"]]
    if exceeded:
        yield f"More than 128 requests would wait for one model, so that some get 503, under {', '.join(exceeded)}."


def _what_it_costs(row: Row) -> str:
    p99 = f", p99 {_milliseconds(row['p99_ms'])} ms" if row["p99_ms"] is not None else ""
    return (
        f"{money(row['cost_per_million'])} per million requests, mean {_milliseconds(row['mean_ms'])} ms{p99},"
        f" {row['cold_share']:.1%} cold, {row['mean_mib']:.0f} MiB on average"
    )


def _hindsight(plan: Row) -> Iterator[str]:
    found = plan["hindsight"]
    if found is None or plan["recommended"] is None:
        return
    if found["cost"] is None:
        yield (
            f"That was chosen by the first half of the requests. In the second half it exceeds its capacity or misses"
            f" the target, and {found['best']} would have been best: the two halves are not alike, so plan for a longer"
            " time."
        )
    elif found["ratio"] is not None:
        held = "within" if found["ratio"] <= WITHIN else "beyond"
        yield (
            f"That was chosen by the first half of the requests. In the second half it costs {found['ratio']:.2f} times"
            f" as much as the best setting in hindsight ({found['best']}), {held} the target of {WITHIN:g}; what every"
            " setting pays, an empty server and the forwards, is left out of that."
        )


def _clock(plan: Row) -> Iterator[str]:
    if not plan["on_its_own_clock"]:
        yield (
            "The trace is not on its own clock: 'speed' changes the gaps that a timeout waits for. So there is no"
            " advice on timeouts, and keep-alive is left out but for 0 and forever. Remove 'speed' to have it."
        )


def _regret(plan: Row, rows: Mapping[str, Row]) -> Iterator[str]:
    if plan["prices"]["billing"] == "peak":
        yield "There is no clairvoyant to compare with: under 'billing: peak' a timeout saves nothing."
        return
    chosen = rows.get(plan["recommended"])
    if chosen is not None and chosen["regret"] is not None:
        yield (
            f"Its cold starts and models in memory cost {chosen['regret']:.2f} times what a clairvoyant would pay, who"
            f" frees each model whenever that pays. That is no target: on Poisson requests at the break-even rate, who"
            f" does not know the future pays at least {POISSON_REGRET:.2f} times as much."
        )


def _eviction(plan: Row) -> Iterator[str]:
    for row in plan["eviction"]:
        but = "" if row["optimum"] else ", but no optimum of the cost, since cold starts differ in theirs"
        yield (
            f"With room for {row['capacity']}, the LRU loads {row['lru_loads']} times; who knew the future would load"
            f" {row['belady_loads']} times (Belady: the fewest possible{but})."
        )


def _theory(row: Row, *, timeouts: bool) -> str:
    start = (
        f"{row['model']} under {row['loader']}: {row['mib']:.0f} MiB cost {money(row['holding_per_hour'])} an hour, a"
        f" cold start {money(row['cold_start'])} (its caller waits {_milliseconds(row['cold_start_ms'])} ms longer)"
    )
    if not row["break_even_per_hour"] or not row["cold_start"]:
        return f"{start}; one of both is free, so there is no break-even rate."
    start = f"{start}. Keeping it pays from {row['break_even_per_hour']:.4g} requests an hour on"
    if not timeouts:
        return f"{start}."
    timeout = _timeout(row["timeout_s"])
    found = [f"{start}; freed after {timeout} of rest (k/m), it costs at most twice what a clairvoyant would pay."]
    if row["gaps"]:
        found.append(f"On its {row['gaps']} gaps here, the best timeout is {_timeout(row['best_timeout_s'])}.")
    if row["expected_timeout_s"] is not None:
        found.append(f"For arrivals of this kind and rate it is {_timeout(row['expected_timeout_s'])}.")
    return " ".join(found)


def _timeout(value: float | str) -> str:
    return value if isinstance(value, str) else duration(value)


def _prices(prices: Row) -> str:
    return (
        f"Prices: {prices['memory_gib_hour']:g} for a GiB and hour ({prices['charge']}, billed by {prices['billing']}),"
        f" {prices['cpu_hour']:g} for an hour of a core, {prices['latency_hour']:g} for an hour of callers' waiting."
    )


def money(value: float) -> str:
    """Four digits, of whatever currency the prices are in."""
    return f"{value:.4g}"


def _milliseconds(value: float | None) -> str:
    return MISSING if value is None else f"{value:.1f}" if value < 100 else f"{value:.0f}"


COLUMNS: dict[str, Callable[[Row], str]] = {  # | is a line break where there is room
    "setting": lambda row: str(row["label"]),
    "cold": lambda row: f"{row['cold_share']:.1%}",
    "loads": lambda row: str(row["loads"]),
    "mean|(ms)": lambda row: _milliseconds(row["mean_ms"]),
    "p50|(ms)": lambda row: _milliseconds(row["p50_ms"]),
    "p99|(ms)": lambda row: _milliseconds(row["p99_ms"]),
    "mean|(MiB)": lambda row: f"{row['mean_mib']:.0f}",
    "peak|(MiB)": lambda row: f"{row['peak_mib']:.0f}",
    "per hour": lambda row: money(row["cost_per_hour"]),
    "per million": lambda row: money(row["cost_per_million"]),
    "× the|clairvoyant": lambda row: MISSING if row["regret"] is None else f"{row['regret']:.2f}",
    "capacity": lambda row: "exceeded" if row["capacity_exceeded"] else f"{row['busy']:.0%} used",
}
