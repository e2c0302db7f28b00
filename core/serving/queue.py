"""What waits for one model under one strategy: in the order of arrival, bounded, each with a deadline."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Condition

from ..config.choices import Batching
from ..errors import DeadlinePassed, Overloaded
from .answer import Answer
from .events import (
    Computed,
    Ended,
    Event,
    Outcome,
    Queued,
)

SMOOTHING = 0.1  # weight of the newest batch in the measured service time
EFFICIENT = 8  # texts, from which on a processor computes twice as many in twice the time
MAX_RETRY_SECONDS = 60
SAMPLES = 500  # of the latest answers, for whoever wants to see them


@dataclass(eq=False)
class Request:
    """One request on its way through a queue; its future is the event loop's, all else any thread's."""

    texts: Sequence[str]
    answer: asyncio.Future[Answer]
    arrived: float  # on the host's clock
    trace: str = ""  # the id under which logs know it
    begun: bool = False  # it was taken out of the queue to be computed
    settled: bool = False  # its outcome is on its way to the event loop
    given_back: bool = False  # to the queue, because its model was gone before it was asked

    def expire(self) -> None:
        """In the event loop, at the deadline: what has not begun never will."""
        if not self.begun and not self.answer.done():
            self.answer.set_exception(DeadlinePassed("The request's deadline passed before it could be computed."))

    def settle(self, outcome: Answer | Exception) -> None:
        """In the event loop; a client that has gone needs no answer."""
        if self.answer.done():
            return
        if isinstance(outcome, Exception):
            self.answer.set_exception(outcome)
        else:
            self.answer.set_result(outcome)


class RequestQueue:
    """Those who wait for one model under one strategy. `places` counts all requests that are not answered yet."""

    def __init__(
        self, strategy: str, model_id: str, most: int, now: Callable[[], float], tell: Callable[[Event], None]
    ) -> None:
        """`most` is of places; `now` is the clock of its requests' arrivals; `tell` is called with what happens."""
        self.model_id = model_id
        self._strategy = strategy
        self._most = most
        self._now = now
        self._tell = tell
        self.places = 0  # touched by the event loop only
        self.latest: deque[tuple[bool, float]] = deque(maxlen=SAMPLES)  # (cold, seconds) of answers
        self._emptied: asyncio.Event | None = None  # for whoever waits for its last request to end
        self._seconds = 0.0  # for one request, measured
        self._changed = Condition()  # protects what stands below
        self._waiting: deque[Request] = deque()
        self._served = False  # whether a thread is at it

    @property
    def is_full(self) -> bool:
        return self.places >= self._most

    @property
    def retry_seconds(self) -> int:
        """When those that wait now will be answered, by the service time that was measured."""
        return min(max(1, math.ceil(self.places * self._seconds)), MAX_RETRY_SECONDS)

    @contextmanager
    def place(self, request: Request) -> Iterator[None]:
        """Hold a place until the request has ended, in whatever way. Raises Overloaded when there is none."""
        if self.is_full:
            self._end("overloaded")
            after = self.retry_seconds
            raise Overloaded(f"{self.places} requests for this model wait already; come again in {after} s.", after)
        self.places += 1
        self._tell(Queued(self._strategy, self.model_id))
        try:
            yield
            answer, waited = request.answer.result(), self._now() - request.arrived
            self._end("answered", waited, answer)
            self.latest.append((answer.cold, waited))
        except BaseException as error:
            late, gone = isinstance(error, DeadlinePassed), isinstance(error, asyncio.CancelledError)
            self._end("late" if late else "gone" if gone else "failed", self._now() - request.arrived)
            raise
        finally:
            self.places -= 1
            self._leave(request)
            if self._emptied is not None and not self.places:
                self._emptied.set()

    async def emptied(self) -> None:
        """Return when no request is left; for a queue that gets no more of them."""
        if self.places:
            self._emptied = asyncio.Event()
            await self._emptied.wait()

    def _end(self, outcome: Outcome, seconds: float = 0.0, answer: Answer | None = None) -> None:
        self._tell(Ended(self._strategy, self.model_id, outcome, seconds, answer))

    def join(self, request: Request) -> bool:
        """Whether a thread must be started to serve the queue."""
        with self._changed:
            self._waiting.append(request)
            self._changed.notify()
            needed, self._served = not self._served, True
            return needed

    def abandon(self) -> None:
        """No thread could be started for it."""
        with self._changed:
            self._served = False

    def _leave(self, request: Request) -> None:
        """Whoever is still in the queue gives up the place."""
        if not request.begun:
            with self._changed:
                if request in self._waiting:
                    self._waiting.remove(request)

    def first(self, batching: Batching | None) -> Request | None:
        """Who is at the head, once a batch is full or its wait is over; None, if nobody is, ends the service."""
        with self._changed:
            self._drop_the_gone()
            if self._waiting and batching and batching.max_wait_ms:
                end = self._waiting[0].arrived + batching.max_wait_ms / 1e3
                self._changed.wait_for(lambda: self._texts() >= batching.max_batch_size, end - self._now())
                self._drop_the_gone()
            self._served = bool(self._waiting)
            return self._waiting[0] if self._waiting else None

    def take(self, batching: Batching | None, *, shared: bool) -> list[Request]:
        """The next batch: requests of up to `max_batch_size` texts together, or one request.

        Of many that wait it takes half. If it took all, then all their answers and next requests would be
        on their way at the same time, while nothing is computed.
        """
        taken: list[Request] = []
        texts = 0
        with self._changed:
            waited = batching is not None and batching.max_wait_ms > 0  # for a full batch
            most = self._texts() if waited else max(EFFICIENT, self._texts() // 2)
            while True:
                self._drop_the_gone()
                if not self._waiting or (taken and not (shared and batching)):
                    break
                texts += len(self._waiting[0].texts)
                if taken and batching and texts > min(batching.max_batch_size, most):
                    break
                request = self._waiting.popleft()
                request.begun = True
                taken.append(request)
        return taken

    def give_back(self, requests: Sequence[Request]) -> None:
        """Let requests that were taken, and not computed, be the next ones again."""
        with self._changed:
            for request in requests:
                request.begun, request.given_back = False, True
            self._waiting.extendleft(reversed(requests))

    def take_all(self) -> list[Request]:
        with self._changed:
            taken = list(self._waiting)
            self._waiting.clear()
            return taken

    def served(self, requests: int, texts: int, seconds: float) -> None:
        """Note how long a batch took."""
        self._tell(Computed(self._strategy, texts))
        each = seconds / requests
        self._seconds = each if self._seconds == 0 else self._seconds + SMOOTHING * (each - self._seconds)

    def _texts(self) -> int:
        return sum(len(request.texts) for request in self._waiting)

    def _drop_the_gone(self) -> None:
        while self._waiting and self._waiting[0].answer.done():
            self._waiting.popleft()
