"""The folder of a run, and `samples.jsonl` in it: everything that was measured, in the order it was."""

from __future__ import annotations

import fcntl
import json
import mmap
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from ..errors import ResultsError
from ..names import COMMAND

Record = dict[str, Any]
SAMPLES = "samples.jsonl"
SERVER_LOG = "server.log"
LATEST = "latest"  # a link in the folder of an experiment to its newest run
# 5: no loads by themselves, no peak of the start; 4: not whether models expire; 3: no processor time; 2: no attempts,
# targets or workload; 1: private memory counted mapped pages.
SCHEMA = 6
REQUIRED = {
    "run": {"experiment", "question", "started", "rounds", "models", "trials", "slo", "precision"},
    "begin": {"round", "trial"},
    "sample": {"round", "trial", "model", "text", "first", "ms", "status"},
    "trial": {"round", "trial", "ready_s", "first_answer_s", "steady_s", "memory_mib", "loads", "least_keep"},
    "load": {"round", "trial", "page_cache", "ms", "processor_s"},
    "failure": {"round", "trial", "reason"},
    "stop": {"round", "reason"},
}


def new_folder(root: Path, name: str) -> Path:
    """`<root>/<name>/<UTC time>`, made. Raises ResultsError when it cannot be."""
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    for suffix in ("", *(f"-{n}" for n in range(2, 100))):
        folder = root / name / f"{stamp}{suffix}"
        try:
            folder.mkdir(parents=True)
            _point_latest_to(folder)
            return folder
        except FileExistsError:
            if not folder.is_dir():
                break
        except OSError as error:
            raise ResultsError(f"Cannot write results to {folder}: {error.strerror}. Name another --output.") from error
    raise ResultsError(f"Cannot write results to {root}. Name another --output.")


def _point_latest_to(folder: Path) -> None:
    """Replace the link in one step. Where there can be none, or something else has its name, all goes on without."""
    link, new = folder.parent / LATEST, folder.parent / f".{LATEST}-{os.getpid()}"
    if link.exists() and not link.is_symlink():
        return
    with suppress(OSError):
        new.unlink(missing_ok=True)
        new.symlink_to(folder.name)
        new.replace(link)


def behind_link(folder: Path) -> Path:
    """The run that `latest` means now; the link may move on while the run is worked with."""
    return folder.resolve() if folder.is_symlink() else folder


class Records:
    """Appends records, one line each; what is written survives the death of this process.

    One process at a time: the lock goes with the process that holds it, however that ends.
    """

    def __init__(self, folder: Path) -> None:
        """Raises ResultsError while another process appends, or where the folder cannot be written to."""
        path = folder / SAMPLES
        self._server_log = folder / SERVER_LOG
        try:
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise ResultsError(f"{path} cannot be written: {error.strerror}.") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise ResultsError(f"Another runner is at work in {folder}; wait until it has ended.") from error
        _cut_torn_line(path)

    def append(self, kind: str, **fields: Any) -> None:
        try:
            self._file.write(json.dumps({"kind": kind, **fields}, ensure_ascii=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise ResultsError(
                f"{self._file.name} cannot be written: {error.strerror}. What was written before is whole: make room"
                f" and continue with: {COMMAND} resume {Path(self._file.name).parent}."
            ) from error

    def keep_log(self, number: int, label: str, text: str) -> None:
        """Append what a server said in that round (from 0) to the folder's server.log, if it said anything.

        A disk that has no room for it ends no run.
        """
        if text.strip():
            with suppress(OSError), self._server_log.open("a", encoding="utf-8") as file:
                file.write(f"== round {number + 1}, {label} ==\n{text.rstrip()}\n\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # every record was flushed, or its failure was told
            self._file.close()


def _cut_torn_line(path: Path) -> None:
    """Drop what follows the last newline: a record that was not finished when its writer was killed."""
    with path.open("rb+") as file:
        if size := os.fstat(file.fileno()).st_size:
            with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as content:
                end = content.rfind(b"\n") + 1
            file.truncate(end)


def settled(records: Iterable[Record]) -> set[tuple[int, str]]:
    """(round, label) of each trial that was measured to its end; what failed is run again, and what is lacking."""
    return {(record["round"], record["trial"]) for record in records if record["kind"] == "trial"}


def rounds_due(records: Sequence[Record], planned: int) -> int:
    """How many rounds there are to be: those that were planned, unless the run was found to need no more."""
    return next((int(record["round"]) + 1 for record in records if record["kind"] == "stop"), planned)


def read_records(folder: Path, rounds: int | None = None) -> list[Record]:
    """Every whole record, or those of the first `rounds`. A torn last line, left by a killed run, is passed over.

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
    return [record for record in records if rounds is None or record.get("round", 0) < rounds]


def _parse(path: Path, lines: list[str]) -> Iterator[Record]:
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
