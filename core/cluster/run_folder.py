"""Run folders: where a cluster on this machine has its sockets and files. Those that a kill left behind are removed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

PREFIX, UNFINISHED = "residency-cluster-", "residency-new-"
LOCK = "lock"  # its owner holds it, and the kernel releases it when the owner ends


@contextmanager
def run_folder() -> Iterator[Path]:
    """Make a folder that only this user can enter. It is removed at the end, or when the next cluster starts."""
    _remove_left_behind()
    unfinished = Path(tempfile.mkdtemp(prefix=UNFINISHED))
    with _lock(unfinished):
        # Only now does it have the name by which others find it.
        folder = unfinished.rename(unfinished.with_name(unfinished.name.replace(UNFINISHED, PREFIX, 1)))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _lock(folder: Path) -> IO[bytes]:
    """The locked file of a folder. Raises OSError if its owner lives."""
    file = (folder / LOCK).open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise
    return file


def _remove_left_behind() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # it is in use, or another user's
            if folder.lstat().st_uid == os.getuid() and not folder.is_symlink():
                with _lock(folder):
                    shutil.rmtree(folder)
