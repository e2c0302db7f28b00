"""A trace: when requests arrived, and for which models, from a CSV or JSONL file."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import FileError
from ..files import read_text
from .workload import Columns

MAX_TRACE_FILE = 64 << 20  # bytes


class Row(NamedTuple):
    """An arrival: seconds on the file's own clock, and the model id where the file has one."""

    time: float
    model: str | None
    line: int


def read_trace(path: Path, columns: Columns) -> list[Row]:
    """All rows, in the order of their times. Raises FileError, which names file and line."""
    lines = {".csv": _csv_lines, ".jsonl": _jsonl_lines}.get(path.suffix.lower())
    if lines is None:
        raise FileError(f"{path}: a trace is a .csv or a .jsonl file.")
    model = columns.model or "model"
    text = read_text(path, MAX_TRACE_FILE).removeprefix("\ufeff")
    rows = [_row(path, line, fields, columns.time, model) for line, fields in lines(path, text)]
    if not rows:
        raise FileError(f"{path}: holds no arrivals.")
    without = [row for row in rows if row.model is None]
    if without and (columns.model or len(without) < len(rows)):
        raise FileError(f"{path}:{without[0].line}: names no model under '{model}'.")
    return sorted(rows, key=lambda row: row.time)


def _csv_lines(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for fields in reader:
            yield reader.line_num, fields
    except csv.Error as error:
        raise FileError(f"{path}:{reader.line_num}: is no valid CSV: {error}.") from error


def _jsonl_lines(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                fields = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise FileError(f"{path}:{number}: is no valid JSON.") from error
            if not isinstance(fields, dict):
                raise FileError(f'{path}:{number}: must be an object such as {{"time": 12.5}}.')
            yield number, fields


def _row(path: Path, line: int, fields: dict[str, Any], time: str, model: str) -> Row:
    value, model_id = fields.get(time), fields.get(model)
    if value is None:
        there = ", ".join(repr(key)[1:-1] for key in list(fields)[:20] if key)
        raise FileError(f"{path}:{line}: has no '{time}', but {there}; say under 'columns' what yours are called.")
    seconds = _seconds(value)
    if seconds is None:
        raise FileError(f"{path}:{line}: {str(value)[:60]!r} is no time; write seconds, or 2023-11-16 18:17:03.98.")
    if not isinstance(model_id, str | None):
        raise FileError(f"{path}:{line}: '{model}' must be a model id, not {str(model_id)[:60]}.")
    return Row(seconds, model_id or None, line)


def _seconds(value: Any) -> float | None:
    """A number as it is, an ISO time as seconds since 1970; one without a zone is UTC. None for neither."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    except ValueError:
        try:
            moment = datetime.fromisoformat(str(value).strip())
        except ValueError:
            return None
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return seconds if math.isfinite(seconds) else None
