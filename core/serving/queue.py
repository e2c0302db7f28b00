"""The requests that wait for one model under one strategy: bounded, in order of arrival, each with a deadline."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from threading import Condition
from typing import Any

from ..config.choices import Batching
from ..errors import DeadlineExceeded, Overloaded
from ..tasks.classify import CLASSIFY
from ..tasks.task import Task
from .events import Answer, Computed, Ended, Event, Forwarded, Outcome, Queued

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the request that is being served, for the log."""
SMOOTHING = 0.1  # weight of the newest batch in the measured service time
EFFICIENT_ITEMS = 8  # from this batch size on, twice the items take twice the time
MAX_RETRY_SECONDS = 60
RECENT_ANSWERS = 500  # that are kept for `/residency`


@dataclass(eq=False)
class Request:
    """One request in a queue. Its future belongs to the event loop; other attributes may be used in any thread."""

    items: Sequence[Any]
    answer: asyncio.Future[Answer]
    arrived: float  # on the host's clock
    id: str = ""  # its id in the log
    task: Task = CLASSIFY
    begun: bool = False  # it was taken from the queue to be computed
    settled: bool = False  # its outcome is on its way to the event loop
    given_back: bool = False  # to the queue, because the process of its model had ended before

    def expire(self) -> None:
        """Fail with DeadlineExceeded unless the request has begun. Called in the event loop, at the deadline."""
        if not self.begun and not self.answer.done():
            self.answer.set_exception(DeadlineExceeded("The request's deadline passed before it could be computed."))

    def settle(self, outcome: Answer | Exception) -> None:
        """Set the result, unless the client has cancelled. Called in the event loop."""
        if self.answer.done():
            return
        if isinstance(outcome, Exception):
            self.answer.set_exception(outcome)
        else:
            self.answer.set_result(outcome)


class RequestQueue:
    """The queue of one model under one strategy. A request holds a queue slot until it has ended."""

    def __init__(
        self, strategy: str, model_id: str, max_slots: int, now: Callable[[], float], report: Callable[[Event], None]
    ) -> None:
        """`now` is the clock of arrivals; `report` is called with every event."""
        self.model_id = model_id
        self._strategy = strategy
        self._max_slots = max_slots
        self._now = now
        self._report = report
        self.slots_in_use = 0  # changed by the event loop only
        self.recent_answers: deque[tuple[bool, float]] = deque(maxlen=RECENT_ANSWERS)  # (cold, seconds)
        self._empty: asyncio.Event | None = None  # set when the last request has ended
        self._seconds_per_request = 0.0  # smoothed
        self._changed = Condition()  # protects the attributes below
        self._waiting: deque[Request] = deque()
        self._has_worker = False  # whether a worker thread takes requests from the queue

    @property
    def is_full(self) -> bool:
        return self.slots_in_use >= self._max_slots

    @property
    def retry_seconds(self) -> int:
        """Seconds until the queued requests will be answered, by the measured service time; a whole number."""
        return min(max(1, math.ceil(self.slots_in_use * self._seconds_per_request)), MAX_RETRY_SECONDS)

    @contextmanager
    def slot(self, request: Request) -> Iterator[None]:
        """Hold a queue slot until the request has ended. Raises Overloaded if none is free."""
        if self.is_full:
            self._report_end("overloaded")
            after = self.retry_seconds
            raise Overloaded(
                f"{self.slots_in_use} requests for this model wait already; try again in {after} s.", after
            )
        self.slots_in_use += 1
        self._report(Queued(self._strategy, self.model_id))
        try:
            yield
            answer, waited = request.answer.result(), self._now() - request.arrived
            self._report_end("answered", waited, answer)
            self.recent_answers.append((answer.cold, waited))
        except BaseException as error:
            is_late, is_cancelled = isinstance(error, DeadlineExceeded), isinstance(error, asyncio.CancelledError)
            outcome: Outcome = "deadline_exceeded" if is_late else "cancelled" if is_cancelled else "failed"
            self._report_end(outcome, self._now() - request.arrived)
            raise
        finally:
            self.slots_in_use -= 1
            self._withdraw(request)
            if self._empty is not None and not self.slots_in_use:
                self._empty.set()

    async def wait_until_empty(self) -> None:
        """Return when all requests have ended. Used when no more can arrive."""
        if self.slots_in_use:
            self._empty = asyncio.Event()
            await self._empty.wait()

    def _report_end(self, outcome: Outcome, seconds: float = 0.0, answer: Answer | None = None) -> None:
        self._report(Ended(self._strategy, self.model_id, outcome, seconds, answer))

    def add(self, request: Request) -> bool:
        """Append the request. Returns whether the caller must start a worker thread."""
        with self._changed:
            self._waiting.append(request)
            self._changed.notify()
            needs_worker, self._has_worker = not self._has_worker, True
            return needs_worker

    def clear_worker(self) -> None:
        """Record that no worker thread could be started."""
        with self._changed:
            self._has_worker = False

    def _withdraw(self, request: Request) -> None:
        """Remove the request if it has not begun."""
        if not request.begun:
            with self._changed:
                if request in self._waiting:
                    self._waiting.remove(request)

    def wait_for_batch(self, batching: Batching | None) -> Request | None:
        """Wait until a batch is full or `max_wait_ms` has passed, and return the oldest request.

        Returns None if the queue is empty; the worker then ends.
        """
        with self._changed:
            self._drop_finished()
            if self._waiting and batching and batching.max_wait_ms:
                end = self._waiting[0].arrived + batching.max_wait_ms / 1e3
                self._changed.wait_for(lambda: self._count_items() >= batching.max_batch_size, end - self._now())
                self._drop_finished()
            self._has_worker = bool(self._waiting)
            return self._waiting[0] if self._waiting else None

    def take(self, batching: Batching | None, *, shared: bool) -> list[Request]:
        """Take the next batch: requests of up to `max_batch_size` items of one task together, or one request.

        If many wait, it takes half of them. If it took all, all their clients would receive answers and send new
        requests at the same time, and nothing would be computed in the meantime.
        """
        taken: list[Request] = []
        items = 0
        with self._changed:
            has_waited = batching is not None and batching.max_wait_ms > 0  # for a full batch
            limit = self._count_items() if has_waited else max(EFFICIENT_ITEMS, self._count_items() // 2)
            while True:
                self._drop_finished()
                if not self._waiting or (taken and not (shared and batching)):
                    break
                if taken and self._waiting[0].task is not taken[0].task:  # one forward has one task
                    break
                items += len(self._waiting[0].items)
                if taken and batching and items > min(batching.max_batch_size, limit):
                    break
                request = self._waiting.popleft()
                request.begun = True
                taken.append(request)
        return taken

    def give_back(self, requests: Sequence[Request]) -> None:
        """Put requests that were taken but not computed back at the head of the queue."""
        with self._changed:
            for request in requests:
                request.begun, request.given_back = False, True
            self._waiting.extendleft(reversed(requests))

    def take_all(self) -> list[Request]:
        """Take all requests that wait."""
        with self._changed:
            taken = list(self._waiting)
            self._waiting.clear()
            return taken

    def record_batch(self, requests: int, items: int, seconds: float, inference: float) -> None:
        """Report a batch and its seconds of inference, and update the service time with the seconds that it took."""
        self._report(Computed(self._strategy, self.model_id, items, inference))
        self._record_service(seconds / requests)

    def record_forwarded(self, seconds: float, parallel: int) -> None:
        """Report a request whose answer took `seconds` at its engine, which answers up to `parallel` at a time."""
        self._report(Forwarded(self._strategy, self.model_id, seconds))
        self._record_service(seconds / parallel)

    def _record_service(self, seconds: float) -> None:
        """Update the service time with the seconds of one more request."""
        mean = self._seconds_per_request
        self._seconds_per_request = seconds if mean == 0 else mean + SMOOTHING * (seconds - mean)

    def _count_items(self) -> int:
        return sum(len(request.items) for request in self._waiting)

    def _drop_finished(self) -> None:
        while self._waiting and self._waiting[0].answer.done():
            self._waiting.popleft()
