"""The tables of the report, each with its data as CSV to download."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import StringIO
from typing import Any, NamedTuple
from urllib.parse import quote

from ..report.format import number
from .figures import Latencies, phases
from .over_time import Part
from .table import (
    COLUMNS,
    MISSING,
    row_name,
    target_columns,
    to_the_fastest,
)

Summary = Mapping[str, Any]
PRICES = {
    "memory_gib_hour": "a GiB of memory for an hour",
    "cpu_hour": "a core for an hour",
    "latency_hour": "an hour of a caller's waiting",
    "charge": "charge:",
    "billing": "billing:",
}
OF_A_SIZE = ("memory_gib_hour", "cpu_hour", "charge")  # what its price has in it
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would compute


class Sheet(NamedTuple):
    """A table: the first cell of each row is its name."""

    name: str
    title: str
    header: list[str]
    rows: list[list[str]]
    data: str
    """A data: URI of CSV, in full precision."""


def main_sheet(summary: Summary) -> Sheet:
    """The run's table, a column for each trial: three of them fit a phone."""
    ratios = to_the_fastest(summary)
    columns = {name: column for name, column in (COLUMNS | target_columns(summary)).items() if name != "strategy"}
    rows = [
        [name.replace("|", " "), *(column(trial, ratios) for trial in summary["trials"])]
        for name, column in columns.items()
    ]
    rows = [row for row in rows if set(row[1:]) != {MISSING}]
    header = ["", *map(row_name, summary["trials"])]
    return Sheet("trials", "All figures", header, rows, csv_of(flat(trial) for trial in summary["trials"]))


def price_sheet(economics: Summary) -> Sheet:
    columns = {
        "holding, an hour": "holding_per_hour",
        "a million requests, without holding": "per_request",
        "a million requests, in all": "per_million",
        "as measured, an hour": "measured_per_hour",
        "MiB charged": "charged_mib",
        "capacity, requests/s": "capacity_rps",
    }
    trials = economics["trials"]
    scale = {"per_request": 1e6}
    rows = [[name, *(_cell(trial.get(key), scale.get(key, 1.0)) for trial in trials)] for name, key in columns.items()]
    header = ["", *(trial["label"] for trial in trials)]
    return Sheet("prices", "What each one costs", header, rows, csv_of(flat(trial) for trial in trials))


def prices_in_words(economics: Summary) -> str:
    prices = economics["prices"]
    sizes = [
        f"{each['memory_mib']:.0f} MiB and {each['cpu']:g} cores {each['hour']}" for each in prices.get("sizes", ())
    ]
    known = {key: name for key, name in PRICES.items() if not (sizes and key in OF_A_SIZE)}
    return ", ".join([*sizes, *(f"{name} {prices[key]}" for key, name in known.items() if key in prices)])


def break_even_sheet(economics: Summary) -> Sheet:
    pairs = economics["break_even"]
    header = ["", "requests an hour", "95 % interval", "cheaper below", "cheaper above", "remark"]
    rows = [
        [
            f"{pair['trial']} and {pair['against']}",
            _cell(pair["rate_per_hour"]),
            " to ".join(_cell(end) for end in pair["ci95"]) if pair["ci95"] else MISSING,
            *(pair[key] or MISSING for key in ("cheaper_below", "cheaper_above")),
            pair["reason"] or "",
        ]
        for pair in pairs
    ]
    return Sheet("break-even", "Where two cost the same", header, rows, csv_of(flat(pair) for pair in pairs))


def environment_sheet(environment: Summary) -> Sheet:
    known = flat(environment)
    rows = [
        [name.removeprefix("versions.").replace("_mib", " (MiB)").replace("_", " "), _text(value)]
        for name, value in known.items()
    ]
    return Sheet("environment", "Where it was measured", ["", ""], rows, csv_of([known]))


def latency_data(measured: Latencies) -> str:
    """Every answered request of the steady state, where there are not too many for a page: else their percentiles."""
    import numpy as np

    few = sum(len(values) for kinds in measured.values() for values in kinds.values()) <= 5000

    def rows() -> Iterator[dict[str, Any]]:
        for label, kinds in measured.items():
            for kind, values in kinds.items():
                for share in () if few or not values else range(101):
                    yield {"trial": label, "kind": kind, "percentile": share, "ms": float(np.percentile(values, share))}
                for ms in values if few else ():
                    yield {"trial": label, "kind": kind, "ms": ms}

    return csv_of(rows())


def waterfall_data(summary: Summary) -> str:
    return csv_of(
        {"trial": label, "phase": name, "ms": ms} for label, _, steps in phases(summary) for name, ms in steps
    )


def time_data(parts: Sequence[Part]) -> str:
    def rows() -> Iterator[dict[str, Any]]:
        for part in parts:
            place = {"trial": part.label, "round": part.round.number + 1}
            for at, mib in zip(part.memory.at, part.memory.rss_mib, strict=True):
                yield place | {"seconds": at, "rss_mib": mib}
            for event in part.events:
                told = {"event": event.event, "model": event.model, "reason": event.reason}
                yield place | {"seconds": event.at} | told

    return csv_of(rows())


def flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested names joined by dots."""
    found: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def csv_of(records: Iterable[Mapping[str, Any]]) -> str:
    """A data: URI; the columns are those that any record has. A text that looks like a formula is quoted."""
    rows = list(records)
    written = StringIO()
    writer = csv.DictWriter(written, list(dict.fromkeys(key for row in rows for key in row)))
    writer.writeheader()
    writer.writerows({key: _harmless(value) for key, value in row.items()} for row in rows)
    return f"data:text/csv;charset=utf-8,{quote(written.getvalue())}"


def _harmless(value: Any) -> Any:
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def _cell(value: float | None, scale: float = 1.0) -> str:
    return MISSING if value is None else number(value * scale)


def _text(value: Any) -> str:
    return MISSING if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
