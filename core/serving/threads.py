"""A thread pool of daemons, which do not delay the end of the process."""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from threading import Condition, Thread
from typing import Any, TypeVar

log = logging.getLogger("residency")
IDLE_SECONDS = 10.0  # until a thread without work ends

Result = TypeVar("Result")


class DaemonThreads(Executor):
    """Runs calls in up to `max_threads` daemon threads, because a load or a forward may hang.

    When Python exits, it waits for the threads of a ThreadPoolExecutor, and for those of anyio, however long they take.
    """

    def __init__(self, name: str, max_threads: int = sys.maxsize, initialize: Callable[[], None] | None = None) -> None:
        """Each thread first calls `initialize`."""
        self._name = name
        self._max_threads = max_threads
        self._initialize = initialize
        self._changed = Condition()  # protects the attributes below
        self._calls: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._threads = 0
        self._idle = 0
        self._closed = False

    def submit(self, fn: Callable[..., Result], /, *args: Any, **kwargs: Any) -> Future[Result]:
        future: Future[Result] = Future()
        with self._changed:
            if self._closed:
                raise RuntimeError(f"the pool of threads '{self._name}' is closed")
            self._calls.append((future, partial(fn, *args, **kwargs)))
            if self._idle >= len(self._calls):
                self._changed.notify()
            elif self._threads < self._max_threads:
                self._start()
        return future

    def _start(self) -> None:
        """Raises RuntimeError if the system can start no more threads, and there is no other one to run the call."""
        self._threads += 1
        try:
            Thread(target=self._run, name=self._name, daemon=True).start()
        except RuntimeError:
            self._threads -= 1
            if not self._threads:
                self._calls.pop()
                raise

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more calls. It never waits, whatever `wait` is."""
        with self._changed:
            self._closed = True
            while cancel_futures and self._calls:
                self._calls.popleft()[0].cancel()
            self._changed.notify_all()

    def _run(self) -> None:
        try:
            if self._initialize:
                self._initialize()
        except Exception:  # otherwise the thread would end, but still be counted
            log.exception("A thread of the pool '%s' could not be initialized", self._name)
        while call := self._next():
            future, work = call
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work())
                except BaseException as error:
                    future.set_exception(error)
            del call, future, work  # so that an idle thread holds nothing in memory

    def _next(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        """Wait for a call. Returns None if the thread has to end."""
        with self._changed:
            self._idle += 1
            self._changed.wait_for(lambda: self._calls or self._closed, IDLE_SECONDS)
            self._idle -= 1
            if self._calls:
                return self._calls.popleft()
            self._threads -= 1
            return None
