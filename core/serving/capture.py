"""A trace of the requests that were sent here: their times and model ids, and nothing else of them."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import stat
import time
from pathlib import Path

from ..errors import SettingsError

log = logging.getLogger("residency")


class Capture:
    """Appends a line `{"time": <unix seconds>, "model": "<id>"}` for each arrival; several workers may share a file."""

    def __init__(self, path: Path) -> None:
        """Raises SettingsError."""
        self._path = path
        self._failed = False
        try:
            # A FIFO that nobody reads must not hold up the start.
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o600)
        except OSError as error:
            raise SettingsError(f"capture: {path} cannot be written: {error.strerror}.") from error
        if not stat.S_ISREG(os.fstat(self._file).st_mode):
            os.close(self._file)
            raise SettingsError(f"capture: {path} is no regular file.")

    def arrived(self, model_id: str) -> None:
        """A failure is told once, and ends nothing."""
        if self._file < 0:
            return
        line = json.dumps({"time": round(time.time(), 6), "model": model_id}).encode() + b"\n"
        try:
            self._append(line)
        except OSError as error:
            if not self._failed:
                log.error("%s cannot be written, so requests are missing in it: %s", self._path, error.strerror)
            self._failed = True

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
        file, self._file = self._file, -1
        os.close(file)
