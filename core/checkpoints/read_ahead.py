"""Reading weights from the disk sequentially, before a forward would fault them in page by page."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

from .header import Entry

PIECE = 1 << 20  # bytes
PROBES = 16
Span = tuple[int, int]  # the offset of the first byte, and of the first byte after the last


def read_ahead(files: Mapping[Path, Mapping[str, Entry]], names: Collection[str], stop: Event) -> None:
    """Read the tensors `names` in the background until `stop` is set, unless they are in the page cache.

    One thread reads in the order of the files, because sequential reads put data into large pages. A second thread
    would make this load a tenth faster, and all later ones slower. `MADV_WILLNEED` is no faster than page faults.
    """
    spans = {
        file: sorted((e.start, e.start + e.nbytes) for n, e in entries.items() if e.nbytes and n in names)
        for file, entries in files.items()
    }
    if not all(_is_cached(file, in_file) for file, in_file in spans.items()):
        Thread(target=_read, args=(spans, stop), name="read-ahead", daemon=True).start()


def _is_cached(file: Path, spans: list[Span]) -> bool:
    """Whether the last bytes of some spans, spread over the file, are in the page cache; True if it is unknown."""
    if not hasattr(os, "RWF_NOWAIT"):
        return True  # reading everything twice would cost more than it can save
    byte = bytearray(1)
    with file.open("rb", buffering=0) as stream:
        for _, end in spans[:: -max(1, len(spans) // PROBES)]:
            try:
                os.preadv(stream.fileno(), [byte], end - 1, os.RWF_NOWAIT)
            except BlockingIOError:
                return False
            except OSError:  # this file system does not support it
                return True
    return True


def _read(spans: dict[Path, list[Span]], stop: Event) -> None:
    buffer = memoryview(bytearray(PIECE))
    with suppress(OSError):  # the forward that uses the weights reports the failure
        for file, in_file in spans.items():
            with file.open("rb", buffering=0) as stream:
                for start, end in in_file:
                    for offset in range(start, end, PIECE):
                        if stop.is_set():
                            return
                        os.preadv(stream.fileno(), [buffer[: end - offset]], offset)
