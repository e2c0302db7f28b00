"""Reading a trace, the times and models of recorded requests, from a CSV or JSONL file."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import FileError
from ..system.files import read_text, split_lines
from .workload import TraceChoice

MAX_TRACE_FILE = 64 << 20  # bytes
LATEST = 1e11  # seconds since 1970: the year 5138
UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
UNIT_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}


class Row(NamedTuple):
    """An arrival: seconds on the file's own clock, the model id if the file has one, and the line number."""

    time: float
    model: str | None
    line: int


def read_trace(path: Path, choice: TraceChoice) -> list[Row]:
    """All rows, in the order of their times. Raises FileError, which names file and line."""
    model, unit = choice.columns.model or "model", choice.unit or "s"
    rows = [_row(path, line, fields, choice.columns.time, model, unit) for line, fields in read_lines(path, "a trace")]
    if not rows:
        raise FileError(f"{path}: contains no arrivals.")
    without = [row for row in rows if row.model is None]
    if without and (choice.columns.model or len(without) < len(rows)):
        raise FileError(f"{path}:{without[0].line}: names no model under '{model}'.")
    return sorted(rows, key=lambda row: row.time)


def read_lines(path: Path, what: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The number of each line of a CSV or JSONL file, and its fields by column or key; `what` the file is, in words.

    Raises FileError, which names file and line.
    """
    lines = {".csv": _csv_lines, ".jsonl": _jsonl_lines}.get(path.suffix.lower())
    if lines is None:
        raise FileError(f"{path}: {what} is a .csv or a .jsonl file.")
    return lines(path, read_text(path, MAX_TRACE_FILE, "split it"))


def columns_in_words(fields: Mapping[str, Any]) -> str:
    """The names of the first columns of a line."""
    return ", ".join(repr(key)[1:-1] for key in list(fields)[:20] if key)


def _csv_lines(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.reader((f"{line}\n" for line in split_lines(text)), strict=True)
    try:
        rows = filter(None, reader)  # drops blank lines
        header = next(rows, [])
        for values in rows:
            if len(values) != len(header):
                kind = "short" if len(values) < len(header) else "long"
                raise FileError(
                    f"{path}:{reader.line_num}: is a {kind} row: it has {_fields(len(values))}, but the header has"
                    f" {len(header)}."
                )
            yield reader.line_num, dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise FileError(f"{path}:{reader.line_num}: is not valid CSV; look for a quote that is not closed.") from error


def _fields(count: int) -> str:
    return "1 field" if count == 1 else f"{count} fields"


def _jsonl_lines(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(split_lines(text), start=1):
        if line.strip():
            try:
                fields = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise FileError(f"{path}:{number}: is not valid JSON.") from error
            if not isinstance(fields, dict):
                raise FileError(f'{path}:{number}: must be an object such as {{"time": 12.5}}.')
            yield number, fields


def _row(path: Path, line: int, fields: dict[str, Any], time: str, model: str, unit: str) -> Row:
    value, model_id = fields.get(time), fields.get(model)
    if value is None:
        has = columns_in_words(fields)
        raise FileError(f"{path}:{line}: has no '{time}'; it has {has}. Name the column under 'columns'.")
    seconds = _seconds(value, unit)
    if seconds is None:
        raise FileError(
            f"{path}:{line}: {str(value)[:60]!r} is not a time; write a number of seconds, or 2023-11-16 18:17:03.98."
        )
    if abs(seconds) > LATEST:
        raise FileError(
            f"{path}:{line}: {str(value)[:60]} cannot be a time in {UNIT_NAMES[unit]}: that would be after the year"
            f" 5000. {_remedy(seconds / UNITS[unit])}"
        )
    if not isinstance(model_id, str | None):
        raise FileError(f"{path}:{line}: '{model}' must be a model id, not {str(model_id)[:60]}.")
    return Row(seconds, model_id or None, line)


def _seconds(value: Any, unit: str) -> float | None:
    """The seconds of a number in that unit, or of an ISO time since 1970, in UTC if it has no zone; else None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        seconds = float(value) * UNITS[unit]
    except OverflowError:
        return None
    except ValueError:
        try:
            moment = datetime.fromisoformat(str(value).strip())
        except ValueError:
            return None
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return seconds if math.isfinite(seconds) else None


def _remedy(number: float) -> str:
    """A sentence with the unit in which the number would be a plausible time."""
    for unit in ("ms", "us", "ns"):
        if abs(number) * UNITS[unit] <= LATEST:
            return f"If it is in {UNIT_NAMES[unit]}, write 'unit: {unit}' under 'trace'."
    return "Write seconds, or name the unit under 'trace'."
