"""Returning memory to the operating system that Python and glibc would keep for later."""

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
    except (OSError, AttributeError):  # another C library, which lacks the function
        return None
    return function


_trim = _glibc("malloc_trim")


def trim_heap() -> None:
    """Return the heap's free pages to the system. Takes less than a millisecond; for use after a model was freed."""
    if _trim is not None:
        _trim(0)


def use_one_heap() -> None:
    """Make all threads share one heap, unless `MALLOC_ARENA_MAX` is set. Call it before any thread starts.

    By default glibc creates up to eight heaps for each core. A long-lived allocation in one of them pins the free
    memory around it, so that memory grew for hours under mixed traffic.
    """
    if not os.environ.get("MALLOC_ARENA_MAX") and (mallopt := _glibc("mallopt")):
        mallopt(M_ARENA_MAX, 1)


@contextmanager
def pause_garbage_collection() -> Iterator[None]:
    """Disable the garbage collector during start-up, then collect once and `gc.freeze()` what survived.

    The collector would take a fifth of the time of a start-up to traverse objects that stay.
    """
    gc.disable()
    try:
        yield
        gc.collect()
        gc.freeze()
    finally:
        gc.enable()
