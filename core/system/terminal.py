"""Standard output and error that never stop a run: output that cannot be written is discarded."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast


class LenientStream:
    """A text stream that becomes /dev/null after its first write error, which is kept in `error`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | None = None
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a character that the terminal lacks becomes `?`

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except OSError as error:
            self._discard_output(error)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._discard_output(error)

    def _discard_output(self, error: OSError) -> None:
        self.error = self.error or error
        with suppress(OSError):  # the stream may have no file descriptor
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def lenient_streams() -> Iterator[LenientStream]:
    """Make standard output and error lenient, and yield standard output.

    A reader that closes the pipe, as `| head` does, is not an error; `error` reports all others.
    """
    for stream in (0, 1, 2):  # the next file to be opened would get the descriptor of a closed stream
        with suppress(OSError):
            if not _is_open(stream):
                os.open(os.devnull, os.O_RDWR)
    before = sys.stdout, sys.stderr
    out, error = (LenientStream(stream or open(os.devnull, "w")) for stream in before)  # noqa: PTH123, SIM115
    sys.stdout, sys.stderr = cast("TextIO", out), cast("TextIO", error)
    try:
        yield out
    finally:
        out.flush()
        error.flush()
        if isinstance(out.error, BrokenPipeError):
            out.error = None
        sys.stdout, sys.stderr = before


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
