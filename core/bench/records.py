"""The folder of a run, and `samples.jsonl` in it: everything that was measured, in the order it was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import ResultsError

SAMPLES = "samples.jsonl"
SCHEMA = 2  # 1: private memory counted what a process alone maps
REQUIRED = {
    "run": {"experiment", "question", "started", "rounds", "models", "trials"},
    "sample": {"round", "trial", "model", "text", "first", "ms", "status"},
    "trial": {"round", "trial", "ready_s", "first_answer_s", "steady_s", "memory_mib", "loads"},
    "failure": {"round", "trial", "reason"},
}


def new_folder(root: Path, name: str) -> Path:
    """`<root>/<name>/<UTC time>`, made. Raises ResultsError when it cannot be."""
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    for suffix in ("", *(f"-{n}" for n in range(2, 100))):
        folder = root / name / f"{stamp}{suffix}"
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            if not folder.is_dir():
                break
        except OSError as error:
            raise ResultsError(f"Cannot write results to {folder}: {error.strerror}. Name another --output.") from error
    raise ResultsError(f"Cannot write results to {root}. Name another --output.")


class Records:
    """Appends records, one line each; what is written survives the death of this process."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / SAMPLES).open("a", encoding="utf-8")

    def append(self, kind: str, **fields: Any) -> None:
        try:
            self._file.write(json.dumps({"kind": kind, **fields}, ensure_ascii=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise ResultsError(
                f"{self._file.name} cannot be written: {error.strerror}. What was written before is whole."
            ) from error

    def close(self) -> None:
        with suppress(OSError):  # every record was flushed, or its failure was told
            self._file.close()


def read_records(folder: Path) -> list[dict[str, Any]]:
    """Every whole record. A torn last line, left by a killed run, is passed over.

    Raises ResultsError when the folder holds no run, or a line that is none of ours.
    """
    path = folder / SAMPLES
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        raise ResultsError(f"{folder} holds no run: {path.name} cannot be read ({error.strerror}).") from error
    records = list(_parse(path, lines))
    if not records or records[0].get("kind") != "run":
        raise ResultsError(f"{path}: the first line does not describe a run.")
    if records[0].get("schema") != SCHEMA:
        raise ResultsError(f"{path} was written by another version (schema {records[0].get('schema')!r}).")
    return records


def _parse(path: Path, lines: list[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            record = json.loads(line)
            lacking = sorted(REQUIRED[record["kind"]] - set(record))
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):  # what follows the last newline was not finished
                return
            raise ResultsError(f"{path}:{number}: is no record of a run.") from error
        if lacking:
            raise ResultsError(f"{path}:{number}: this {record['kind']} record lacks '{lacking[0]}'.")
        yield record
