"""Runs the requests of one strategy: which thread waits, which computes, and where the time went."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from functools import partial
from threading import Event

from ..choices import Batching
from ..contracts import LoadingStrategy, Model
from .answer import Answer
from .batch import Batch, fail
from .daemons import DaemonPool
from .host import Host
from .lane import Lane, Request
from .logs import request_id
from .metrics import Metrics

SLOT_SECONDS = 0.5  # for so long others wait for a model that computes, or hangs, in a process of its own

log = logging.getLogger("residency")


class Dispatcher:
    """One strategy's requests: those for one model in the order of their arrival, models side by side.

    Requests that wait for the same model are computed together, under one `acquire`, where the strategy
    shares; each by itself, under its own, where it does not. `acquire` may block, so it runs in a worker
    thread, of which there is one for each model that is asked for at this moment. `predict` runs in
    `compute`, whose threads are the compute slots, or, where the model has a process of its own, beside a
    slot that it holds for a moment. Answers leave before the model is freed.
    """

    def __init__(
        self,
        strategy: LoadingStrategy,
        host: Host,
        compute: Executor,
        batching: Batching | None = None,
        max_queue: int = sys.maxsize,
        metrics: Metrics | None = None,
    ) -> None:
        """Without `batching`, every request is computed by itself."""
        self._strategy = strategy
        self._shares = getattr(strategy, "shares", True)
        self._host = host
        self._compute = compute
        self._batching = batching
        meter = partial((metrics or Metrics()).meter, host.strategy)
        self.lanes = {model_id: Lane(model_id, max_queue, meter(model_id)) for model_id in host.model_ids}
        self._threads = DaemonPool("lane")  # the lanes bound them: one each

    async def predict(self, model_id: str, texts: Sequence[str], seconds: float) -> Answer:
        """Raises Overloaded, DeadlinePassed after `seconds`, and whatever `acquire` or `predict` raises."""
        lane = self.lanes[model_id]
        loop = asyncio.get_running_loop()
        request = Request(texts, self._host.watch(model_id), loop.create_future(), request_id.get())
        with lane.place(request):
            expiry = loop.call_later(seconds, request.expire)
            try:
                if lane.join(request):
                    self._start(lane)
                return await request.answer
            finally:
                expiry.cancel()

    def _start(self, lane: Lane) -> None:
        """Raises RuntimeError when the system has no thread for us; the next request tries again."""
        try:
            self._threads.submit(self._serve, lane).add_done_callback(Future.result)  # logs what it raises
        except BaseException:
            lane.abandon()
            raise

    def _serve(self, lane: Lane) -> None:
        while head := lane.first(self._batching if self._shares else None):
            request_id.set(head.trace)
            self._serve_batch(lane)

    def _serve_batch(self, lane: Lane) -> None:
        """One acquire, and an answer to those who were waiting when their computing began."""
        batch = Batch(lane, self._host)
        try:
            with self._strategy.acquire(lane.model_id) as model:
                batch.lent()
                steps = batch.steps(model, self._batching, shared=self._shares)
                while self._in_slot(model, partial(next, steps, False)):
                    pass  # between the parts of a long batch others may come into the slot
        except BaseException as error:
            if batch.acquired:
                log.exception("Strategy '%s' failed after it lent '%s'", self._host.strategy, lane.model_id)
            waiting = lane.take_all if self._shares else partial(lane.take, None, shared=False)
            fail(batch.requests if batch.taken else waiting(), error)  # who has an answer keeps it

    def _in_slot(self, model: Model, work: Callable[[], bool]) -> bool:
        """In a compute slot; a model in a process of its own holds it for a moment only, since it may hang."""
        if not getattr(model, "own_process", False):
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
