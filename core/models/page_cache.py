"""The kernel's page cache, from which a mapped file's pages come."""

from __future__ import annotations

import os
from pathlib import Path


def drop(file: Path) -> None:
    """Drop the file's pages, but for those that a process maps; the next reader gets them from the disk.

    What was written lies in the page cache in small pages; what is read in a row, in large ones where the
    file system has them, of which a mapping needs 500 times fewer page faults. Does nothing where there
    is no such advice.
    """
    if hasattr(os, "posix_fadvise"):
        with file.open("rb") as stream:
            os.fsync(stream.fileno())  # a page that is not on the disk yet would stay
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
