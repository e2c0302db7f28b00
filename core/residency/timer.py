"""A thread that wakes at given times."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from threading import TIMEOUT_MAX, Condition, Thread


class Timer:
    """A thread that calls `wake` at given times."""

    def __init__(self, now: Callable[[], float], wake: Callable[[], None]) -> None:
        self._now, self._wake = now, wake
        self._changed = Condition()  # protects the attributes below
        self._moment = math.inf
        self._thread: Thread | None = None
        self._closed = False

    def wake_at(self, moment: float) -> None:
        """Call `wake` at that time. An earlier time replaces a later one."""
        with self._changed:
            self._moment = min(self._moment, moment)
            if self._thread is None:
                thread = Thread(target=self._run, name="expiry", daemon=True)
                with suppress(RuntimeError):  # the system can start no more threads; the next expiry tries again
                    thread.start()
                    self._thread = thread
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed and (left := self._moment - self._now()) > 0:
                    self._changed.wait(min(left, TIMEOUT_MAX))
                if self._closed:
                    return
                self._moment = math.inf
            self._wake()
