"""Memory that is really returned: what Python and glibc would keep for later."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def _malloc_trim() -> Callable[[int], int] | None:
    try:
        trim: Callable[[int], int] = ctypes.CDLL("libc.so.6").malloc_trim
    except (OSError, AttributeError):  # another C library, which has no such call
        return None
    return trim


_trim = _malloc_trim()


def give_back() -> None:
    """Return the heap's free pages to the system, after a model was freed; takes less than a millisecond."""
    if _trim is not None:
        _trim(0)


@contextmanager
def start_up() -> Iterator[None]:
    """Collect garbage at the end only, of what loaders have not frozen, and never look again at what is there then.

    A fifth of a start-up's time would be the collector's, for objects that stay.
    """
    gc.disable()
    try:
        yield
        gc.collect()
        gc.freeze()
    finally:
        gc.enable()
