"""A server's resident memory over the steady state, and its loads and unloads."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event, Thread
from typing import NamedTuple, Self

import httpx

from ..results.records import MemoryOverTime, ModelEvent
from ..system import memory

INTERVAL = 0.1  # seconds between two points, at first
SHARE = 0.005  # of one core: with many processes and threads, the interval grows until reading takes no more
POINTS = 600
OF_EACH, OF_ALL = 400, 4000  # events at most: of each model, as many as a server remembers, and of all


class OverTime(NamedTuple):
    """Resident memory at each point, and its average over time, in MiB; None if the system does not report it."""

    timeline: MemoryOverTime | None
    mean_rss: float | None


class Timeline:
    """Reads the memory of a process tree in a thread, while this context is entered.

    At 600 points, every second one is dropped, and the interval doubles.
    """

    def __init__(
        self,
        pid: int,
        *,
        clock: Callable[[], float] = time.perf_counter,
        resident: Callable[[int], float | None] = memory.rss,
    ) -> None:
        """`resident` returns the memory of a process tree in MiB."""
        self._pid = pid
        self._clock, self._resident = clock, resident
        self._stop = Event()
        self._thread = Thread(target=self._sample, name="timeline", daemon=True)
        self.points: list[tuple[float, float]] = []  # the clock's time, MiB
        self._latest = (0.0, 0.0)
        self._area = 0.0  # MiB × seconds, including points that were dropped later
        self.interval = INTERVAL
        self.began = self.ended = 0.0

    def __enter__(self) -> Self:
        self.began = self._clock()
        if self.read():
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
            self.read()
        self.ended = self._clock()

    def since(self, origin: float) -> OverTime:
        """The readings, with times in seconds since `origin` (`perf_counter`)."""
        if len(self.points) < 2:
            return OverTime(None, None)
        at, mib = zip(*self.points, strict=True)
        timeline = MemoryOverTime(at=[round(t - origin, 3) for t in at], rss_mib=[round(value, 2) for value in mib])
        return OverTime(timeline, self._area / (self._latest[0] - at[0]))

    def _sample(self) -> None:
        cost = 0.0
        while not self._stop.wait(max(self.interval, cost / SHARE)):
            before = time.thread_time()
            self.read()
            cost = time.thread_time() - before

    def read(self) -> bool:
        """Add a point. Returns whether the system reports the memory."""
        mib = self._resident(self._pid)
        if mib is None:
            return False
        now = self._clock()
        if self.points:
            at, last = self._latest
            self._area += (now - at) * (mib + last) / 2
        self._latest = now, mib
        if len(self.points) >= POINTS:
            del self.points[1::2]
            self.interval *= 2
        self.points.append(self._latest)
        return True


def read_events(client: httpx.Client, began: float, ended: float) -> list[ModelEvent]:
    """The latest loads and unloads between two times (`perf_counter`), as far as the server remembers them.

    Takes the server milliseconds, so do not call this while something is timed. Raises httpx.HTTPError.
    """
    strategies = client.get("/residency", params={"history": OF_EACH}).raise_for_status().json()["strategies"]
    since_epoch = time.time() - (time.perf_counter() - began)
    found = [
        ModelEvent(
            at=round(event["at"] - since_epoch, 3),
            model=model["model"],
            event=event["event"],
            reason=event["reason"],
            seconds=event["seconds"],
        )
        for strategy in strategies
        for model in strategy["models"]
        for event in model["history"]
    ]
    within = [event for event in found if 0 <= event.at <= ended - began]
    return sorted(within, key=lambda event: event.at)[-OF_ALL:]
