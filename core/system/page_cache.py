"""Reading files into the kernel's page cache, and dropping them from it."""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

from ..errors import TrialFailed

PIECE = 1 << 20  # bytes
MAX_SHARE = 0.01  # of a file's pages that may remain in the page cache after it was dropped
PATIENCE = 1.0  # seconds that a server may take to unmap what it has just freed


def advise_drop(file: Path) -> None:
    """Ask the kernel to drop the file's pages from the page cache. Pages that a process maps remain.

    Does nothing where the system lacks `posix_fadvise`.
    """
    if hasattr(os, "posix_fadvise"):
        with file.open("rb") as stream:
            with suppress(OSError):  # some file systems do not support it
                os.fsync(stream.fileno())  # a page that is not written to disk yet would remain
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def reread(file: Path) -> None:
    """Read the file into the page cache sequentially, so that it lies there in large pages where these are supported.

    Data that was written or read at random lies in pages of 4 KiB. Data that was read sequentially lies in pages of up
    to 2 MiB, for which a mapping takes up to 512 times fewer page faults.
    """
    advise_drop(file)
    buffer = bytearray(PIECE)
    with file.open("rb", buffering=0) as stream:
        while stream.readinto(buffer):
            pass


def drop_files(files: Iterable[Path]) -> None:
    """Drop the files from the page cache. Raises TrialFailed if a process maps them, or the system keeps them."""
    listed = list(files)
    end = time.monotonic() + PATIENCE
    while True:
        for file in listed:
            advise_drop(file)
        shares = {file: share for file in listed if (share := cached_share(file)) > MAX_SHARE}
        if not shares:
            return
        if time.monotonic() > end:
            file, share = next(iter(shares.items()))
            raise TrialFailed(f"{share:.0%} of {file} stayed in the page cache: {_explain_stay(file)}")
        time.sleep(0.01)


def cached_share(file: Path) -> float:
    """The share of a file's pages that are in the page cache (mincore(2)); 0 for an empty file.

    Raises TrialFailed if the system cannot tell.
    """
    with file.open("rb") as stream:
        nbytes = os.fstat(stream.fileno()).st_size
        if not nbytes:
            return 0.0
        # Writable, because ctypes gives no address otherwise; private, so that nothing is written to the file.
        with mmap.mmap(stream.fileno(), nbytes, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as mapping:
            pages = (ctypes.c_ubyte * -(-nbytes // mmap.PAGESIZE))()
            start = ctypes.c_char.from_buffer(mapping)
            failed = ctypes.CDLL(None, use_errno=True).mincore(ctypes.byref(start), ctypes.c_size_t(nbytes), pages)
            del start  # the mapping cannot be closed while it is referenced
    if failed:
        raise TrialFailed(
            f"This system does not tell whether {file} is in the page cache (mincore failed): use 'page_cache: warm'."
        )
    return sum(page & 1 for page in pages) / len(pages)


def _explain_stay(file: Path) -> str:
    """Why the file's pages stay in the page cache, and the remedy."""
    mapping = []
    for process in psutil.process_iter():
        try:
            maps = Path(f"/proc/{process.pid}/maps").read_text(errors="replace")
            if f" {file.resolve()}\n" in maps:
                mapping.append(f"{process.name()} (pid {process.pid})")
        except (OSError, psutil.Error):
            continue  # the process has ended, or belongs to another user
    if mapping:
        return f"{', '.join(mapping)} maps it. End that process, or free the model there."
    return (
        "no visible process maps it. Its file system keeps it, or reports it only to the file's owner:"
        " copy it to a local disk as your own file, or use 'page_cache: warm'."
    )
