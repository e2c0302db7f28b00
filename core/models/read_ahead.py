"""Fetching weights from the disk before the forward asks for them, page by page."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from threading import Thread

from .header import BYTES, Entry

PIECE = 1 << 20  # bytes
PROBES = 16
Span = tuple[int, int]  # the first byte, and how many


def read_ahead(file: Path, entries: dict[str, Entry], skip: Collection[str]) -> None:
    """Read the tensors in the background, in the file's order, unless they are in the page cache already.

    `skip` are those of which a forward needs few rows. One reader, because what is read in a row comes in
    large pages: a second one makes this load faster by a tenth, and all later ones slower. (Advice to the
    kernel, `MADV_WILLNEED`, is no faster than page faults.)
    """
    wanted = (entry for name, entry in entries.items() if name not in skip and entry.numel)
    spans = sorted((entry.start, entry.numel * BYTES[entry.dtype]) for entry in wanted)
    if spans and not _is_cached(file, spans):
        Thread(target=_read, args=(file, spans), name="read-ahead", daemon=True).start()


def _is_cached(file: Path, spans: list[Span]) -> bool:
    """By some probes that are spread over the spans, none of which waits for the disk."""
    if not hasattr(os, "RWF_NOWAIT"):
        return True  # not known, and not worth reading everything twice
    with file.open("rb") as stream:
        for start, _ in spans[:: max(1, len(spans) // PROBES)]:
            try:
                os.preadv(stream.fileno(), [bytearray(1)], start, os.RWF_NOWAIT)
            except BlockingIOError:
                return False
            except OSError:  # this file system cannot tell
                return True
    return True


def _read(file: Path, spans: list[Span]) -> None:
    buffer = memoryview(bytearray(PIECE))
    with suppress(OSError), file.open("rb", buffering=0) as stream:  # whoever uses the weights sees the failure
        for start, nbytes in spans:
            for offset in range(start, start + nbytes, PIECE):
                os.preadv(stream.fileno(), [buffer[: start + nbytes - offset]], offset)
