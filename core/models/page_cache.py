"""The kernel's page cache, from which a mapped file's pages come."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

PIECE = 1 << 20  # bytes


def drop(file: Path) -> None:
    """Drop the file's pages, but for those that a process maps; does nothing where there is no such advice."""
    if hasattr(os, "posix_fadvise"):
        with file.open("rb") as stream:
            with suppress(OSError):  # not every file system has it
                os.fsync(stream.fileno())  # a page that is not on the disk yet would stay
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_anew(file: Path) -> None:
    """Have the file in the page cache in large pages, where the kernel and the file system have them.

    What was written, or read here and there, lies in pages of 4 KiB; what is read in a row, in pages of up
    to 2 MiB, of which a mapping takes 512 times fewer page faults.
    """
    drop(file)
    buffer = bytearray(PIECE)
    with file.open("rb", buffering=0) as stream:
        while stream.readinto(buffer):
            pass
