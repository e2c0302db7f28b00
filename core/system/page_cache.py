"""The kernel's page cache, from which a mapped file's pages come: files are read into it, and dropped from it."""

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
LEFT = 0.01  # of the pages may stay
PATIENCE = 1.0  # seconds until a server has unmapped what it has just freed


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


def evict(files: Iterable[Path]) -> None:
    """Drop the files' pages. Raises TrialFailed while a process maps them, or where the system keeps them."""
    listed = list(files)
    end = time.monotonic() + PATIENCE
    while True:
        for file in listed:
            drop(file)
        shares = {file: share for file in listed if (share := resident_share(file)) > LEFT}
        if not shares:
            return
        if time.monotonic() > end:
            file, share = next(iter(shares.items()))
            raise TrialFailed(f"{share:.0%} of {file} stayed in the page cache: {_who_keeps(file)}")
        time.sleep(0.01)


def resident_share(file: Path) -> float:
    """The share of a file's pages that are in the page cache (mincore(2)); 0 for an empty file."""
    with file.open("rb") as stream:
        nbytes = os.fstat(stream.fileno()).st_size
        if not nbytes:
            return 0.0
        # Writable, so that ctypes gives its address; private, so that nothing can reach the file.
        with mmap.mmap(stream.fileno(), nbytes, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as mapping:
            pages = (ctypes.c_ubyte * -(-nbytes // mmap.PAGESIZE))()
            start = ctypes.c_char.from_buffer(mapping)
            failed = ctypes.CDLL(None, use_errno=True).mincore(ctypes.byref(start), ctypes.c_size_t(nbytes), pages)
            del start  # or the mapping could not be closed
    if failed:
        raise TrialFailed(f"Whether {file} is in the page cache cannot be asked (mincore): use 'page_cache: warm'.")
    return sum(page & 1 for page in pages) / len(pages)


def _who_keeps(file: Path) -> str:
    mapping = []
    for process in psutil.process_iter():
        try:
            maps = Path(f"/proc/{process.pid}/maps").read_text(errors="replace")
            if f" {file.resolve()}\n" in maps:
                mapping.append(f"{process.name()} (pid {process.pid})")
        except (OSError, psutil.Error):
            continue  # it has ended, or is another user's
    if mapping:
        return f"{', '.join(mapping)} maps it. End that process, or free the model there."
    return (
        "no process that can be seen maps it. Its file system keeps it, or does not say so to others than its owner:"
        " put it on a disk, in a file of your own, or use 'page_cache: warm'."
    )
