"""Threads that take turns on a clock of their own: each runs until it waits, in the order in which it could go on.

So a scenario with real threads has one outcome, and takes no time.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from heapq import heappop, heappush
from threading import Semaphore, Thread, current_thread
from typing import Any

SECONDS = 60.0  # until a scenario is given up


class Stage:
    """`now` is its clock."""

    def __init__(self) -> None:
        self.time = 0.0
        self.failures: list[BaseException] = []
        self._turns: dict[Thread, Semaphore] = {}
        self._ready: deque[Thread] = deque()
        self._sleeping: list[tuple[float, int, Thread]] = []
        self._number = 0
        self._main = Semaphore(0)
        self._timers: list[FakeTimer] = []

    def now(self) -> float:
        return self.time

    def spawn(self, work: Callable[..., None], *arguments: Any) -> None:
        """A thread that begins when it is its turn."""

        def run() -> None:
            self._turns[thread].acquire()
            try:
                work(*arguments)
            except BaseException as error:
                self.failures.append(error)
            self._main.release()

        thread = Thread(target=run, daemon=True)
        self._turns[thread] = Semaphore(0)
        thread.start()
        self._ready.append(thread)

    def run(self) -> None:
        """Until nobody can go on any more. Raises what a thread raised."""
        while not self.failures:
            if self._ready:
                self._turns[self._ready.popleft()].release()
                assert self._main.acquire(timeout=SECONDS), "a thread waits for something else than its turn"
                continue
            timer = min(self._timers, key=lambda each: each.due, default=None)
            moment = self._sleeping[0][0] if self._sleeping else math.inf
            if timer is not None and timer.due < moment:
                self.time = max(self.time, timer.due)
                timer.fire()
            elif moment < math.inf:
                self.time = moment
                self._ready.append(heappop(self._sleeping)[2])
            else:
                return
        raise self.failures[0]

    def sleep(self, seconds: float) -> None:
        self._number += 1
        heappush(self._sleeping, (self.time + seconds, self._number, current_thread()))
        self.give_way()

    def give_way(self) -> None:
        """To those who are to wake this thread, with `wake`."""
        self._main.release()
        self._turns[current_thread()].acquire()

    def wake(self, thread: Thread) -> None:
        self._ready.append(thread)

    def timer(self, now: Callable[[], float], wake: Callable[[], None]) -> FakeTimer:
        timer = FakeTimer(self, wake)
        self._timers.append(timer)
        return timer


class FakeTimer:
    """`core.residency.timer.Timer` on a stage: it can be late, while what it has begun is not done."""

    def __init__(self, stage: Stage, wake: Callable[[], None]) -> None:
        self._stage, self._wake = stage, wake
        self._moment, self._busy = math.inf, False

    @property
    def due(self) -> float:
        return math.inf if self._busy else self._moment

    def wake_at(self, moment: float) -> None:
        self._moment = min(self._moment, moment)

    def close(self) -> None:
        self._moment = math.inf

    def fire(self) -> None:
        self._moment, self._busy = math.inf, True
        self._stage.spawn(self._run)

    def _run(self) -> None:
        self._wake()
        self._busy = False


class FakeCondition:
    """`threading.Condition` on a stage, where nobody runs beside whoever holds it."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._waiting: list[Thread] = []

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def wait_for(self, predicate: Callable[[], bool], timeout: float) -> bool:
        while not predicate():
            self._waiting.append(current_thread())
            self._stage.give_way()
        return True

    def notify_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        for thread in waiting:
            self._stage.wake(thread)


class Slot:
    """Held by one thread at a time, in the order in which they came."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._holder: Thread | None = None
        self._line: deque[Thread] = deque()

    @contextmanager
    def held(self) -> Iterator[None]:
        if self._holder is None:
            self._holder = current_thread()
        else:
            self._line.append(current_thread())
            self._stage.give_way()
        try:
            yield
        finally:
            self._holder = self._line.popleft() if self._line else None
            if self._holder is not None:
                self._stage.wake(self._holder)
