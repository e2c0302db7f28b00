"""The tables of the report, each with its data as CSV to download."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from io import StringIO
from typing import NamedTuple
from urllib.parse import quote

from pydantic import BaseModel, JsonValue

from ..costs.economics import MILLION
from ..results.economics import Economics, PricesUsed, TrialCosts
from ..results.environment import Environment
from ..results.summary import Summary
from .figures import Latencies
from .format import MISSING, NOTHING, amount, value_text
from .over_time import Part
from .prose.sentences import say
from .table import all_columns, first_columns, row_name, rows
from .waterfall import cold_starts

Value = str | float | bool | None
"""A cell of CSV."""
GIB_HOUR, CORE_HOUR = "a GiB of memory for an hour", "a core for an hour"
OF_SIZE = (GIB_HOUR, CORE_HOUR, "charge:")  # what the price of a size includes
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would compute


class Sheet(NamedTuple):
    """A table: the first cell of each row is its name."""

    name: str
    title: str
    header: list[str]
    rows: list[list[str]]
    data: str
    """A data: URI of CSV, in full precision; empty where another table has the same."""


def first_sheet(summary: Summary) -> Sheet:
    """The columns that a choice needs, a row for each trial: six of them fit a phone."""
    names, columns = zip(*first_columns(summary).items(), strict=True)
    cells = [[column(row) for column in columns] for row in rows(summary)]
    return Sheet("first", "At a glance", ["", *(name.replace("|", " ") for name in names[1:])], cells, "")


def main_sheet(summary: Summary) -> Sheet:
    """All figures, a column for each trial."""
    trials = rows(summary)
    columns = {name: column for name, column in all_columns(summary).items() if name != "strategy"}
    cells = [[name.replace("|", " "), *map(column, trials)] for name, column in columns.items()]
    cells = [row for row in cells if not set(row[1:]) <= {MISSING, NOTHING}]
    header = ["", *map(row_name, summary.trials)]
    return Sheet("trials", "All figures", header, cells, csv_of(map(flat, summary.trials)))


def price_sheet(economics: Economics) -> Sheet:
    """What each trial costs, a column for each."""
    columns: dict[str, Callable[[TrialCosts], float | None]] = {
        "holding, an hour": lambda trial: trial.holding_per_hour,
        "a million requests, without holding": lambda trial: trial.per_request * MILLION,
        "a million requests, in all": lambda trial: trial.per_million,
        "as measured, an hour": lambda trial: trial.measured_per_hour,
        "MiB charged": lambda trial: trial.charged_mib,
        "capacity, requests/s": lambda trial: trial.capacity_rps,
    }
    trials = economics.trials
    cells = [[name, *(amount(column(trial)) for trial in trials)] for name, column in columns.items()]
    header = ["", *(trial.label for trial in trials)]
    return Sheet("prices", "What each one costs", header, cells, csv_of(map(flat, trials)))


def prices_in_words(prices: PricesUsed) -> str:
    """The prices in a list; a size's price includes those of memory and cores."""
    sizes = [f"{each.memory_mib:.0f} MiB and {each.cpu:g} cores {each.hour}" for each in prices.sizes]
    known = {
        GIB_HOUR: prices.memory_gib_hour,
        CORE_HOUR: prices.cpu_hour,
        "an hour of a caller's waiting": prices.latency_hour,
        "charge:": prices.charge,
        "billing:": prices.billing,
    }
    return ", ".join([*sizes, *(f"{name} {price}" for name, price in known.items() if not (sizes and name in OF_SIZE))])


def break_even_sheet(economics: Economics) -> Sheet:
    """The rates at which two trials cost the same, a row for each pair."""
    header = ["", "requests an hour", "95 % interval", "cheaper below", "cheaper above", "remark"]
    cells = [
        [
            f"{pair.trial} and {pair.against}",
            amount(pair.rate_per_hour),
            " to ".join(map(amount, pair.ci95)) if pair.ci95 else MISSING,
            pair.cheaper_below or MISSING,
            pair.cheaper_above or MISSING,
            "" if pair.reason is None else say(pair.reason),
        ]
        for pair in economics.break_even
    ]
    return Sheet("break-even", "Where two cost the same", header, cells, csv_of(map(flat, economics.break_even)))


def environment_sheet(environment: Environment) -> Sheet:
    """A row for each value that is known."""
    cells = [
        [name.replace("_mib", " (MiB)").replace("_", " "), value_text(value)]
        for name, value in environment.values.items()
    ]
    return Sheet("environment", "Where it was measured", ["", ""], cells, csv_of([flat(environment)]))


def latency_data(measured: Latencies) -> str:
    """Every answered request of the steady state, where there are not too many for a page: else their percentiles."""
    import numpy as np

    few = sum(len(values) for kinds in measured.values() for values in kinds.values()) <= 5000

    def points() -> Iterator[dict[str, Value]]:
        for label, kinds in measured.items():
            for kind, values in kinds.items():
                for share in () if few or not values else range(101):
                    yield {"trial": label, "kind": kind, "percentile": share, "ms": float(np.percentile(values, share))}
                for ms in values if few else ():
                    yield {"trial": label, "kind": kind, "ms": ms}

    return csv_of(points())


def waterfall_data(summary: Summary) -> str:
    return csv_of(
        {"trial": start.label, "phase": name, "ms": ms} for start in cold_starts(summary) for name, ms in start.phases
    )


def time_data(parts: Sequence[Part]) -> str:
    def points() -> Iterator[dict[str, Value]]:
        for part in parts:
            place: dict[str, Value] = {"trial": part.label, "round": part.round.number + 1}
            for at, mib in zip(part.memory.at, part.memory.rss_mib, strict=True):
                yield {**place, "seconds": at, "rss_mib": mib}
            for each in part.events:
                yield {**place, "seconds": each.at, "event": each.event, "model": each.model, "reason": each.reason}

    return csv_of(points())


def flat(record: BaseModel) -> dict[str, Value]:
    """The fields of a record, nested names joined by dots; a list stays one value, as JSON."""
    return dict(_flat(record.model_dump(mode="json")))


def _flat(fields: Mapping[str, JsonValue], prefix: str = "") -> Iterator[tuple[str, Value]]:
    for key, value in fields.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value


def csv_of(records: Iterable[Mapping[str, Value]]) -> str:
    """A data: URI; the columns are those that any record has. A text that looks like a formula is quoted."""
    lines = list(records)
    written = StringIO()
    writer = csv.DictWriter(written, list(dict.fromkeys(key for line in lines for key in line)))
    writer.writeheader()
    writer.writerows({key: _harmless(value) for key, value in line.items()} for line in lines)
    return f"data:text/csv;charset=utf-8,{quote(written.getvalue())}"


def _harmless(value: Value) -> Value:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
