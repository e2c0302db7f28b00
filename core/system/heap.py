"""Memory that is really returned: what Python and glibc would keep for later."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

M_ARENA_MAX = -8  # malloc.h


def _glibc(name: str) -> Callable[..., int] | None:
    try:
        function: Callable[..., int] = getattr(ctypes.CDLL("libc.so.6"), name)
    except (OSError, AttributeError):  # another C library, which has no such call
        return None
    return function


_trim = _glibc("malloc_trim")


def give_back() -> None:
    """Return the heap's free pages to the system, after a model was freed; takes less than a millisecond."""
    if _trim is not None:
        _trim(0)


def use_one_heap() -> None:
    """Let threads share one heap, before there are any; `MALLOC_ARENA_MAX` wins.

    glibc gives threads up to eight heaps for each core. What a request leaves behind in one of them for good pins
    what lay around it, so that under mixed traffic memory grew for hours.
    """
    if not os.environ.get("MALLOC_ARENA_MAX") and (mallopt := _glibc("mallopt")):
        mallopt(M_ARENA_MAX, 1)


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
