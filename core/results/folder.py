"""The folder of a run, and its `samples.jsonl`: all measurements in the order in which they were made."""

from __future__ import annotations

import fcntl
import json
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Self

from pydantic import ValidationError

from ..errors import ResultsError
from ..names import COMMAND
from .header import RunHeader
from .records import RECORD, Machine, Measured, Record, Stop, TrialEnd

SAMPLES = "samples.jsonl"
SERVER_LOG = "server.log"
LATEST = "latest"  # a link in the folder of an experiment to its newest run


def new_folder(root: Path, name: str) -> Path:
    """Make the folder `<root>/<name>/<UTC time>`, and return it. Raises ResultsError."""
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
    """Replace the link atomically. Does nothing if links are not supported, or if another file has its name."""
    link, new = folder.parent / LATEST, folder.parent / f".{LATEST}-{os.getpid()}"
    if link.exists() and not link.is_symlink():
        return
    with suppress(OSError):
        new.unlink(missing_ok=True)
        new.symlink_to(folder.name)
        new.replace(link)


def resolve_link(folder: Path) -> Path:
    """The folder that a link such as `latest` points to now. Later runs may change the link."""
    return folder.resolve() if folder.is_symlink() else folder


class RecordWriter:
    """Appends records, one per line. Each survives a crash of this process once it is written.

    A lock admits one process at a time. The kernel releases it when the process ends.
    """

    def __init__(self, folder: Path) -> None:
        """Raises ResultsError if another process holds the lock, or if the folder cannot be written."""
        path = folder / SAMPLES
        self.folder = folder
        self._server_log = folder / SERVER_LOG
        try:
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise ResultsError(f"{path} cannot be written: {error.strerror}.") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise ResultsError(f"Another runner is writing to {folder}; wait until it has ended.") from error
        _cut_torn_line(path)

    def append(self, record: Record) -> None:
        """Write the fields that were set when the record was made. Raises ResultsError."""
        fields = {"kind": record.kind, **record.model_dump(by_alias=True, exclude_unset=True)}
        try:
            self._file.write(json.dumps(fields, ensure_ascii=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise ResultsError(
                f"{self._file.name} cannot be written: {error.strerror}. Earlier records are intact: free some space,"
                f" and continue with: {COMMAND} resume {Path(self._file.name).parent}."
            ) from error

    def append_log(self, number: int, label: str, text: str) -> None:
        """Append the log of a server in round `number` (from 0) to the folder's server.log, unless it is empty.

        Errors are ignored, because a run can go on without the log.
        """
        if text.strip():
            with suppress(OSError), self._server_log.open("a", encoding="utf-8") as file:
                file.write(f"== round {number + 1}, {label} ==\n{text.rstrip()}\n\n")

    def append_logs(self, text: str) -> None:
        """Append what another machine's server.log has. Errors are ignored, too."""
        if text:
            with suppress(OSError), self._server_log.open("a", encoding="utf-8") as file:
                file.write(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # every record was flushed, or its error was raised
            self._file.close()


def _cut_torn_line(path: Path) -> None:
    """Remove what follows the last newline, an incomplete record of a writer that was killed."""
    with path.open("rb+") as file:
        if size := os.fstat(file.fileno()).st_size:
            with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as content:
                end = content.rfind(b"\n") + 1
            file.truncate(end)


@dataclass(frozen=True)
class RunRecords:
    """All records of a run."""

    header: RunHeader
    measured: list[Measured]
    """In the order of the file."""

    @property
    def finished_trials(self) -> set[tuple[int, str]]:
        """(round, label) of each trial that finished. Resuming runs all others, including those that failed."""
        return {(record.round, record.trial) for record in self.measured if isinstance(record, TrialEnd)}

    @property
    def machines(self) -> dict[int, Machine]:
        """The latest machine of each round that ran on a machine of a cluster."""
        return {record.round: record for record in self.measured if isinstance(record, Machine)}

    @property
    def stop(self) -> Stop | None:
        """Why the run ended before its last planned round; None if it did not."""
        return next((record for record in self.measured if isinstance(record, Stop)), None)

    @property
    def rounds_due(self) -> int:
        """The number of rounds that the run needs: those that were planned, unless it stopped early."""
        return self.header.rounds if self.stop is None else self.stop.round + 1


def read_header(folder: Path) -> RunHeader:
    """The first record, without reading the others. Raises ResultsError if the folder does not contain a run."""
    with _open_samples(folder) as file:
        return parse_records(file.readline(), folder / SAMPLES).header


def read_records(folder: Path, rounds: int | None = None) -> RunRecords:
    """All complete records, or those of the first `rounds` rounds.

    Raises ResultsError if the folder does not contain a run, or if a line is not a record.
    """
    with _open_samples(folder) as file:
        records = parse_records(file.read(), folder / SAMPLES)
    if rounds is None:
        return records
    return RunRecords(records.header, [record for record in records.measured if record.round < rounds])


@contextmanager
def _open_samples(folder: Path) -> Iterator[BinaryIO]:
    try:
        with (folder / SAMPLES).open("rb") as file:
            yield file
    except OSError as error:
        raise ResultsError(f"{folder} contains no run: {SAMPLES} cannot be read ({error.strerror}).") from error


def parse_records(content: bytes, path: Path) -> RunRecords:
    """The records in a file's content. An incomplete last line, which a killed run leaves, is skipped.

    Raises ResultsError, which names file, line and field.
    """
    records = _parse_lines(content, path)
    _, header = next(records, (0, None))
    if not isinstance(header, RunHeader):
        raise ResultsError(f"{path}: the first line does not describe a run.")
    labels = {trial.label for trial in header.trials}
    measured: list[Measured] = []
    for number, record in records:
        if isinstance(record, RunHeader) or not (isinstance(record, Stop | Machine) or record.trial in labels):
            raise ResultsError(f"{path}:{number}: is not a record of this run.")
        measured.append(record)
    return RunRecords(header, measured)


def _parse_lines(content: bytes, path: Path) -> Iterator[tuple[int, Record]]:
    """Each record with its line number."""
    lines = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            record = RECORD.validate_json(line)
        except ValidationError as error:
            fault = _fault(path, number, error)
            if fault is None and number == len(lines):  # the last line is incomplete
                return
            raise fault or ResultsError(f"{path}:{number}: is not a record of a run.") from error
        yield number, record


def _fault(path: Path, number: int, error: ValidationError) -> ResultsError | None:
    """The error for a line; None if the line is not a record of any kind."""
    details = [detail for detail in error.errors(include_url=False) if detail["loc"]]
    if not details:
        return None
    kind = details[0]["loc"][0]
    fields = [".".join(map(str, detail["loc"][1:])) for detail in details]
    if kind == "run" and "schema" in fields:
        detail = details[fields.index("schema")]
        found = None if detail["type"] == "missing" else detail["input"]
        return ResultsError(f"{path} was written by another version (schema {found!r}).")
    lacking = [field for field, detail in zip(fields, details, strict=True) if detail["type"] == "missing"]
    if lacking:
        return ResultsError(f"{path}:{number}: this {kind} record lacks '{min(lacking)}'.")
    what = f"'{fields[0]}' of this {kind} record" if fields[0] else f"this {kind} record"
    why = details[0]["msg"]
    return ResultsError(f"{path}:{number}: is a record in another format: {what}: {why[:1].lower()}{why[1:]}.")
