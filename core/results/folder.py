"""The folder of a run, and `samples.jsonl` in it: everything that was measured, in the order in which it was."""

from __future__ import annotations

import fcntl
import json
import mmap
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from pydantic import ValidationError

from ..errors import ResultsError
from ..names import COMMAND
from .header import RunHeader
from .records import (
    RECORD,
    Measured,
    Record,
    Stop,
    TrialEnd,
)

SAMPLES = "samples.jsonl"
SERVER_LOG = "server.log"
LATEST = "latest"  # a link in the folder of an experiment to its newest run


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

    def append(self, record: Record) -> None:
        """Write the fields that the record was made with. Raises ResultsError."""
        fields = {"kind": record.kind, **record.model_dump(by_alias=True, exclude_unset=True)}
        try:
            self._file.write(json.dumps(fields, ensure_ascii=False) + "\n")
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


@dataclass(frozen=True)
class RunRecords:
    """The records of a run."""

    header: RunHeader
    measured: list[Measured]
    """In the order of the file."""

    @property
    def settled(self) -> set[tuple[int, str]]:
        """(round, label) of each trial that was measured to its end; what failed is run again, and what is lacking."""
        return {(record.round, record.trial) for record in self.measured if isinstance(record, TrialEnd)}

    @property
    def stop(self) -> Stop | None:
        """Why the run ended before its last planned round; None if it did not."""
        return next((record for record in self.measured if isinstance(record, Stop)), None)

    @property
    def rounds_due(self) -> int:
        """How many rounds there are to be: those that were planned, unless the run was found to need no more."""
        return self.header.rounds if self.stop is None else self.stop.round + 1


def read_records(folder: Path, rounds: int | None = None) -> RunRecords:
    """Every whole record, or those of the first `rounds`.

    Raises ResultsError when the folder holds no run, or a line that is none of ours.
    """
    path = folder / SAMPLES
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ResultsError(f"{folder} holds no run: {path.name} cannot be read ({error.strerror}).") from error
    records = parse_records(content, path)
    if rounds is None:
        return records
    return RunRecords(records.header, [record for record in records.measured if record.round < rounds])


def parse_records(content: bytes, path: Path) -> RunRecords:
    """The records of a file's content. A torn last line, left by a killed run, is passed over.

    Raises ResultsError, whose sentence names file, line and field.
    """
    records = _numbered(content, path)
    _, header = next(records, (0, None))
    if not isinstance(header, RunHeader):
        raise ResultsError(f"{path}: the first line does not describe a run.")
    labels = {trial.label for trial in header.trials}
    measured: list[Measured] = []
    for number, record in records:
        if isinstance(record, RunHeader) or not (isinstance(record, Stop) or record.trial in labels):
            raise ResultsError(f"{path}:{number}: is no record of this run.")
        measured.append(record)
    return RunRecords(header, measured)


def _numbered(content: bytes, path: Path) -> Iterator[tuple[int, Record]]:
    """Each record with the number of its line."""
    lines = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            record = RECORD.validate_json(line)
        except ValidationError as error:
            fault = _fault(path, number, error)
            if fault is None and number == len(lines):  # what follows the last newline was not finished
                return
            raise fault or ResultsError(f"{path}:{number}: is no record of a run.") from error
        yield number, record


def _fault(path: Path, number: int, error: ValidationError) -> ResultsError | None:
    """What is wrong with the line; None if it is not a record of any kind."""
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
    return ResultsError(f"{path}:{number}: is a record of another form: {what}: {why[:1].lower()}{why[1:]}.")
