"""Standard output and error that never stop a run: what they cannot take is lost to them, and to nobody else."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast


class Lenient:
    """A text stream that goes on as /dev/null once it cannot be written to; `lost` is why."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lost: OSError | None = None
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a character that the terminal does not have becomes `?`

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except OSError as error:
            self._lose(error)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        self.lost = self.lost or error
        with suppress(OSError):  # a stream without a file of its own
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def lenient_streams() -> Iterator[Lenient]:
    """Make both streams lenient; yields standard output.

    A reader who has left, as `| head` does, is no failure; `lost` tells of any other.
    """
    for stream in (0, 1, 2):  # one that was closed would be the next file that is opened
        with suppress(OSError):
            if not _is_open(stream):
                os.open(os.devnull, os.O_RDWR)
    before = sys.stdout, sys.stderr
    out, error = (Lenient(stream or open(os.devnull, "w")) for stream in before)  # noqa: PTH123, SIM115
    sys.stdout, sys.stderr = cast("TextIO", out), cast("TextIO", error)
    try:
        yield out
    finally:
        out.flush()
        error.flush()
        if isinstance(out.lost, BrokenPipeError):
            out.lost = None
        sys.stdout, sys.stderr = before


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
