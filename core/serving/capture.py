"""A trace of the requests that were sent here: their times and model ids, and nothing else of them."""

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
    """Appends a line `{"time": <unix seconds>, "model": "<id>"}` for each arrival; several workers may share a file.

    A file that is renamed or deleted meanwhile (logrotate) is begun anew at its path; one that is cut is appended to.
    """

    def __init__(self, path: Path, now: Callable[[], float] = time.time) -> None:
        """`now` gives unix seconds. Raises SettingsError."""
        self._now = now
        self._path = path.absolute()
        self._failed = False
        self._closed = False
        try:
            self._file = _open(self._path)
        except OSError as error:
            raise SettingsError(f"capture: {path} cannot be written: {error.strerror}.") from error

    def arrived(self, model_id: str) -> None:
        """A failure is told once, and ends nothing."""
        if self._closed:
            return
        line = json.dumps({"time": round(self._now(), 6), "model": model_id}).encode() + b"\n"
        try:
            try:
                self._follow()
            finally:  # what cannot be begun anew is in the old file
                self._append(line)
            while not os.fstat(self._file).st_nlink and self._follow():  # it was deleted meanwhile, with the line
                self._append(line)
            self._failed = False
        except OSError as error:
            if not self._failed:
                log.error("%s cannot be written, so requests are missing in it: %s", self._path, error.strerror)
            self._failed = True

    def _follow(self) -> bool:
        """Go on with the file that is at the path now; whether it is another one."""
        try:
            there = self._path.stat()
        except FileNotFoundError:
            there = None
        mine = os.fstat(self._file)
        if there is not None and (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino):
            return False
        old, self._file = self._file, _open(self._path)
        os.close(old)
        return True

    def _append(self, line: bytes) -> None:
        """Whole or not at all, also where a disk is full in the middle of it."""
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
    """To append to. Raises OSError, also for what is no regular file."""
    # A FIFO that nobody reads must not hold up the start.
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o600)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(0, "is no regular file")
    return file
