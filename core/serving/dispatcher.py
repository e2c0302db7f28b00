"""Runs the requests of one strategy in threads."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from functools import partial
from threading import Event as Flag
from typing import Any

from ..config.choices import Batching
from ..residency.keeper import Keeper
from ..residency.loaded import LoadedModel
from ..tasks.classify import CLASSIFY
from ..tasks.task import Task
from .batch import Batch, fail
from .events import Answer, Event
from .queue import Request, RequestQueue, request_id
from .threads import DaemonThreads

SLOT_SECONDS = 0.5  # how long a model in its own process, which may hang, can hold a compute slot


class Dispatcher:
    """Runs the requests of one strategy: those for one model in order of arrival, those for different models at a time.

    If the strategy shares, requests that wait for the same model are computed together under one lease; if not, each is
    computed alone under its own lease. Each model with queued requests has a worker thread, which waits for the lease.
    The model computes in a thread of `compute`, which is a compute slot. A model with its own process computes in the
    worker thread, and holds a slot for at most SLOT_SECONDS. Answers are sent before the model is freed.
    """

    def __init__(
        self,
        keeper: Keeper,
        compute: Executor,
        batching: Batching | None = None,
        max_queue: int = sys.maxsize,
        report: Callable[[Event], None] = lambda event: None,
    ) -> None:
        """Without `batching`, each request is computed alone. `report` is called with every event."""
        self._keeper = keeper
        self._compute = compute
        self._batching = batching
        self._now = keeper.host.clock.now
        self._new_queue = partial(RequestQueue, keeper.host.strategy, max_slots=max_queue, now=self._now, report=report)
        self.queues = {model_id: self._new_queue(model_id) for model_id in keeper.host.model_ids}
        keeper.count_queued = self._count_queued
        self._threads = DaemonThreads("dispatch")  # at most one for each queue

    async def predict(self, model_id: str, items: Sequence[Any], seconds: float, task: Task = CLASSIFY) -> Answer:
        """Answer the items, with one result of the task for each.

        Raises Overloaded, DeadlineExceeded if it does not begin within `seconds`, and what lease or model raise.
        """
        queue = self.queues[model_id]
        loop = asyncio.get_running_loop()
        request = Request(items, loop.create_future(), self._now(), request_id.get(), task)
        with queue.slot(request):
            self._keeper.record_request(model_id)
            expiry = loop.call_later(seconds, request.expire)
            try:
                if queue.add(request):
                    self._start_worker(queue)
                return await request.answer
            finally:
                expiry.cancel()

    def add(self, model_id: str) -> None:
        """Accept requests for one more model."""
        self.queues[model_id] = self._new_queue(model_id)

    def remove(self, model_id: str) -> RequestQueue:
        """Accept no more requests for the model. Returns its queue, whose requests are still answered."""
        return self.queues.pop(model_id)

    @property
    def _is_shared(self) -> bool:
        return self._keeper.decisions.shared

    def _count_queued(self, model_id: str) -> int:
        """How many requests are queued for the model; 0 if it is being removed."""
        queue = self.queues.get(model_id)
        return queue.slots_in_use if queue else 0

    def _start_worker(self, queue: RequestQueue) -> None:
        """Raises RuntimeError if the system can start no more threads; the next request tries again."""
        try:
            self._threads.submit(self._work, queue).add_done_callback(Future.result)  # logs an error
        except BaseException:
            queue.clear_worker()
            raise

    def _work(self, queue: RequestQueue) -> None:
        while head := queue.wait_for_batch(self._batching if self._is_shared else None):
            request_id.set(head.id)
            self._compute_batch(queue)

    def _compute_batch(self, queue: RequestQueue) -> None:
        """Answer a batch of the queue under one lease."""
        batch, shared = Batch(queue, self._now), self._is_shared
        try:
            with self._keeper.lease(queue.model_id) as leased:
                steps = batch.steps(leased, self._batching, shared=shared)
                while self._compute_in_slot(leased.model, partial(next, steps, False)):
                    pass  # between the parts of a long batch, other models may use the slot
        except BaseException as error:
            waiting = queue.take_all if shared else partial(queue.take, None, shared=False)
            fail(batch.requests if batch.taken else waiting(), error)  # those that are already answered are unaffected

    def _compute_in_slot(self, model: LoadedModel, work: Callable[[], bool]) -> bool:
        """Run the work in a compute slot; if the model has its own process, in this thread."""
        if not model.own_process:
            return self._compute.submit(work).result()
        begun, done = Flag(), Flag()
        self._compute.submit(_hold_slot, begun, done)
        begun.wait()
        try:
            return work()
        finally:
            done.set()


def _hold_slot(begun: Flag, done: Flag) -> None:
    begun.set()
    done.wait(SLOT_SECONDS)
