"""Fetching weights from the disk before the forward asks for them, page by page."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Event, Thread

from .header import BYTES, Entry

PIECE = 1 << 20  # bytes
PROBES = 16
Span = tuple[Path, int, int]  # the file, the first byte, and how many: no more than a piece


def read_ahead(files: Mapping[Path, Mapping[str, Entry]], names: Collection[str], over: Event) -> None:
    """Read the tensors `names` in the background, unless they are in the page cache, until `over` is set.

    One reader, in the files' order, because what is read in a row comes in large pages: a second one makes
    this load faster by a tenth, and all later ones slower. (Advice to the kernel, `MADV_WILLNEED`, is no
    faster than page faults.)
    """
    pieces = [
        (file, offset, min(PIECE, stop - offset))
        for file, entries in files.items()
        for start, stop in sorted(
            (e.start, e.start + e.numel * BYTES[e.dtype]) for n, e in entries.items() if n in names
        )
        for offset in range(start, stop, PIECE)
    ]
    if pieces and not _is_cached(pieces):
        Thread(target=_read, args=(pieces, over), name="read-ahead", daemon=True).start()


def _is_cached(pieces: list[Span]) -> bool:
    """By the ends of some pieces that are spread over all, none of which waits for the disk."""
    if not hasattr(os, "RWF_NOWAIT"):
        return True  # not known, and not worth reading everything twice
    for file, start, nbytes in pieces[:: -max(1, len(pieces) // PROBES)]:
        with file.open("rb") as stream:
            try:
                os.preadv(stream.fileno(), [bytearray(1)], start + nbytes - 1, os.RWF_NOWAIT)
            except BlockingIOError:
                return False
            except OSError:  # this file system cannot tell
                return True
    return True


def _read(pieces: list[Span], over: Event) -> None:
    buffer = memoryview(bytearray(PIECE))
    with suppress(OSError), ExitStack() as files:  # whoever uses the weights sees the failure
        streams = {file: files.enter_context(file.open("rb", buffering=0)) for file in {piece[0] for piece in pieces}}
        for file, start, nbytes in pieces:
            if over.is_set():
                return
            os.preadv(streams[file].fileno(), [buffer[:nbytes]], start)
