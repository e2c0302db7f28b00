"""Records the times and model ids of requests in a file, as a trace."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

from ..errors import SettingsError

log = logging.getLogger("residency")


class Capture:
    """Appends a line `{"time": <unix seconds>, "model": "<id>"}` for each request. Several workers may share a file.

    If the file is renamed or deleted (logrotate), a new one is made at its path. If it is truncated, it is appended to.
    """

    def __init__(self, path: Path, now: Callable[[], float] = time.time) -> None:
        """`now` returns unix seconds. Raises SettingsError if the file cannot be written."""
        self._now = now
        self._path = path.absolute()
        self._failed = False
        self._closed = False
        try:
            self._file = _open(self._path)
        except OSError as error:
            raise SettingsError(f"capture: {path} cannot be written: {error.strerror}.") from error

    def record(self, model_id: str) -> None:
        """Append a line. A failure is logged once, and not raised."""
        if self._closed:
            return
        line = json.dumps({"time": round(self._now(), 6), "model": model_id}).encode() + b"\n"
        try:
            try:
                self._reopen_if_replaced()
            finally:  # if a new file cannot be made, into the old one
                self._append(line)
            while not os.fstat(self._file).st_nlink and self._reopen_if_replaced():  # it was deleted with the line
                self._append(line)
            self._failed = False
        except OSError as error:
            if not self._failed:
                log.error("%s cannot be written, so requests are missing in it: %s", self._path, error.strerror)
            self._failed = True

    def _reopen_if_replaced(self) -> bool:
        """Open the file that is at the path now, if it is another one. Returns whether it is."""
        try:
            current = self._path.stat()
        except FileNotFoundError:
            current = None
        mine = os.fstat(self._file)
        if current is not None and (current.st_dev, current.st_ino) == (mine.st_dev, mine.st_ino):
            return False
        old, self._file = self._file, _open(self._path)
        os.close(old)
        return True

    def _append(self, line: bytes) -> None:
        """Write the whole line or, if the disk is full, nothing of it."""
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            written = os.write(self._file, line)
            if written < len(line):
                os.ftruncate(self._file, os.fstat(self._file).st_size - written)
                raise OSError(0, "the disk is full")
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            os.close(self._file)


def _open(path: Path) -> int:
    """Open a file to append to. Raises OSError, also if it is not a regular file."""
    # Without O_NONBLOCK, a FIFO that nobody reads would block the start.
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o600)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(0, "it is not a regular file")
    return file
