"""Runs the requests of one strategy: which thread waits, which computes, and where the time went."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from functools import partial
from threading import Event

from ..config.choices import Batching
from ..residency.keeper import Keeper
from ..residency.loaded import LoadedModel
from . import events
from .answer import Answer
from .batch import Batch, fail
from .logs import request_id
from .queue import Request, RequestQueue
from .threads import DaemonThreads

SLOT_SECONDS = 0.5  # for so long others wait for a model that computes, or hangs, in a process of its own


class Dispatcher:
    """One strategy's requests: those for one model in the order of their arrival, models side by side.

    Requests that wait for the same model are computed together, under one lease, where the strategy shares; each by
    itself, under its own, where it does not. To wait for a lease blocks, so it runs in a worker thread, of which there
    is one for each model that is asked for at this moment. `predict` runs in `compute`, whose threads are the compute
    slots, or, where the model has a process of its own, beside a slot that it holds for a moment. Answers leave before
    the model is freed.
    """

    def __init__(
        self,
        keeper: Keeper,
        compute: Executor,
        batching: Batching | None = None,
        max_queue: int = sys.maxsize,
        tell: Callable[[events.Event], None] = lambda event: None,
    ) -> None:
        """Without `batching`, every request is computed by itself; `tell` is called with what happens."""
        self._keeper = keeper
        self._compute = compute
        self._batching = batching
        self._now = keeper.host.clock.now
        self._queue = partial(RequestQueue, keeper.host.strategy, most=max_queue, now=self._now, tell=tell)
        self.queues = {model_id: self._queue(model_id) for model_id in keeper.host.model_ids}
        keeper.queued = self._queued
        self._threads = DaemonThreads("dispatch")  # the queues bound them: one each

    async def predict(self, model_id: str, texts: Sequence[str], seconds: float) -> Answer:
        """Raises Overloaded, DeadlinePassed after `seconds`, and whatever the lease or `predict` raises."""
        queue = self.queues[model_id]
        loop = asyncio.get_running_loop()
        request = Request(texts, loop.create_future(), self._now(), request_id.get())
        with queue.place(request):
            self._keeper.requested(model_id)
            expiry = loop.call_later(seconds, request.expire)
            try:
                if queue.join(request):
                    self._start(queue)
                return await request.answer
            finally:
                expiry.cancel()

    def add(self, model_id: str) -> None:
        """Take requests for one more model."""
        self.queues[model_id] = self._queue(model_id)

    def remove(self, model_id: str) -> RequestQueue:
        """Take no more requests for the model; its queue, of which those that it has are still answered."""
        return self.queues.pop(model_id)

    @property
    def _shares(self) -> bool:
        return self._keeper.decisions.shared

    def _queued(self, model_id: str) -> int:
        """None of a model that is being removed."""
        queue = self.queues.get(model_id)
        return queue.places if queue else 0

    def _start(self, queue: RequestQueue) -> None:
        """Raises RuntimeError when the system has no thread for us; the next request tries again."""
        try:
            self._threads.submit(self._serve, queue).add_done_callback(Future.result)  # logs what it raises
        except BaseException:
            queue.abandon()
            raise

    def _serve(self, queue: RequestQueue) -> None:
        while head := queue.first(self._batching if self._shares else None):
            request_id.set(head.trace)
            self._serve_batch(queue)

    def _serve_batch(self, queue: RequestQueue) -> None:
        """One lease, and an answer to those who were waiting when their computing began."""
        batch, shared = Batch(queue, self._now), self._shares
        try:
            with self._keeper.lease(queue.model_id) as lent:
                steps = batch.steps(lent, self._batching, shared=shared)
                while self._in_slot(lent.model, partial(next, steps, False)):
                    pass  # between the parts of a long batch others may come into the slot
        except BaseException as error:
            waiting = queue.take_all if shared else partial(queue.take, None, shared=False)
            fail(batch.requests if batch.taken else waiting(), error)  # who has an answer keeps it

    def _in_slot(self, model: LoadedModel, work: Callable[[], bool]) -> bool:
        """In a compute slot; a model in a process of its own holds it for a moment only, since it may hang."""
        if not model.own_process:
            return self._compute.submit(work).result()
        begun, over = Event(), Event()
        self._compute.submit(_hold_slot, begun, over)
        begun.wait()
        try:
            return work()
        finally:
            over.set()


def _hold_slot(begun: Event, over: Event) -> None:
    begun.set()
    over.wait(SLOT_SECONDS)
