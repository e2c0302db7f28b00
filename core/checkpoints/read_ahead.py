"""Fetching weights from the disk before the forward asks for them, page by page."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

from .header import Entry

PIECE = 1 << 20  # bytes
PROBES = 16
Span = tuple[int, int]  # the first byte, and the first one behind


def read_ahead(files: Mapping[Path, Mapping[str, Entry]], names: Collection[str], over: Event) -> None:
    """Read the tensors `names` in the background, unless they are in the page cache, until `over` is set.

    One reader, in the files' order, because what is read in a row comes in large pages: a second one makes
    this load faster by a tenth, and all later ones slower. (Advice to the kernel, `MADV_WILLNEED`, is no
    faster than page faults.)
    """
    spans = {
        file: sorted((e.start, e.start + e.nbytes) for n, e in entries.items() if e.nbytes and n in names)
        for file, entries in files.items()
    }
    if not all(_is_cached(file, wanted) for file, wanted in spans.items()):
        Thread(target=_read, args=(spans, over), name="read-ahead", daemon=True).start()


def _is_cached(file: Path, spans: list[Span]) -> bool:
    """By the ends of some tensors that are spread over the file, none of which waits for the disk."""
    if not hasattr(os, "RWF_NOWAIT"):
        return True  # not known, and not worth reading everything twice
    byte = bytearray(1)
    with file.open("rb", buffering=0) as stream:
        for _, stop in spans[:: -max(1, len(spans) // PROBES)]:
            try:
                os.preadv(stream.fileno(), [byte], stop - 1, os.RWF_NOWAIT)
            except BlockingIOError:
                return False
            except OSError:  # this file system cannot tell
                return True
    return True


def _read(spans: dict[Path, list[Span]], over: Event) -> None:
    buffer = memoryview(bytearray(PIECE))
    with suppress(OSError):  # whoever uses the weights sees the failure
        for file, wanted in spans.items():
            with file.open("rb", buffering=0) as stream:
                for start, stop in wanted:
                    for offset in range(start, stop, PIECE):
                        if over.is_set():
                            return
                        os.preadv(stream.fileno(), [buffer[: stop - offset]], offset)
