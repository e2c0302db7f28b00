"""The kernel's page cache: dropping a checkpoint's pages from it, and proving that they are gone. Linux only."""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from ..errors import TrialFailed
from ..models.page_cache import drop

LEFT = 0.01  # of the pages may stay
PATIENCE = 1.0  # seconds until a server has unmapped what it has just freed


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
