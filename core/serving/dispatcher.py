"""Runs the requests of one strategy: which thread waits, which computes, and where the time went."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from functools import partial
from threading import Event
from time import perf_counter

from ..choices import Batching
from ..contracts import LoadingStrategy, Model, Prediction
from ..errors import ModelCrashed
from .answer import Answer
from .batching import predict_in_parts
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
                    self._threads.submit(self._serve, lane).add_done_callback(Future.result)  # logs what it raises
                return await request.answer
            finally:
                expiry.cancel()

    def _serve(self, lane: Lane) -> None:
        while head := lane.first(self._batching if self._shares else None):
            request_id.set(head.trace)
            self._serve_batch(lane)

    def _serve_batch(self, lane: Lane) -> None:
        """One acquire, and an answer to those who were waiting when their computing began."""
        asked = perf_counter()
        batch = _Batch(lane, self._host, asked)
        try:
            with self._strategy.acquire(lane.model_id) as model:
                batch.lent()
                self._in_slot(model, lambda: self._compute_batch(batch, model))
        except BaseException as error:
            if batch.acquired:
                log.exception("Strategy '%s' failed after it lent '%s'", self._host.strategy, lane.model_id)
            waiting = lane.take_all if self._shares else partial(lane.take, None, shared=False)
            _settle_all(batch.requests if batch.taken else waiting(), error)  # who has an answer keeps it

    def _in_slot(self, model: Model, work: Callable[[], None]) -> None:
        """In a compute slot; a model in a process of its own holds it for a moment only, since it may hang."""
        if not getattr(model, "own_process", False):
            self._compute.submit(work).result()
            return
        begun, over = Event(), Event()
        self._compute.submit(_hold_slot, begun, over)
        begun.wait()
        try:
            work()
        finally:
            over.set()

    def _compute_batch(self, batch: _Batch, model: Model) -> None:
        batch.take(self._batching, shared=self._shares)
        if not batch.requests:
            return  # their clients have gone
        try:
            batch.run(model, batch.requests, self._batching)
        except BaseException as error:
            pending = batch.pending
            if len(pending) == 1 or isinstance(error, ModelCrashed) or not isinstance(error, Exception):
                _settle_all(pending, error)
            else:
                batch.run_each(model, pending)  # one of them breaks it; the others need not suffer


class _Batch:
    """Requests under one acquire, and where their time goes."""

    def __init__(self, lane: Lane, host: Host, asked: float) -> None:
        self._lane = lane
        self._host = host
        self._watch = host.watch(lane.model_id)
        self._asked = asked
        self.acquired = 0.0
        self.taken = False
        self.requests: list[Request] = []
        self.pending: list[Request] = []
        self._cold: dict[Request, bool] = {}

    def lent(self) -> None:
        """The acquire has returned: a warm one was only waiting; a cold one was the load that was waited for."""
        self.acquired = perf_counter()
        if self._watch.cold():
            self._lane.load = self._asked, self.acquired

    def take(self, batching: Batching | None, *, shared: bool) -> None:
        self.taken = True
        self.requests = self._lane.take(batching, shared=shared)
        self.pending = list(self.requests)
        self._cold = {request: request.watch.cold() for request in self.requests}

    def run(self, model: Model, requests: list[Request], batching: Batching | None) -> None:
        """Compute them together; each is answered as soon as its last text is computed."""
        owners = [(request, i) for request in requests for i in range(len(request.texts))]
        texts = [request.texts[i] for request, i in owners]
        found: dict[Request, dict[int, Prediction]] = {request: {} for request in requests}
        began = perf_counter()
        for part in predict_in_parts(model.predict, texts, batching):
            ended = perf_counter()
            for index, prediction in part.items():
                request, i = owners[index]
                found[request][i] = prediction
            done = [r for r in requests if r in found and len(found[r]) == len(r.texts)]
            outcomes = {r: self._answer(r, found.pop(r), began, ended, len(texts)) for r in done}
            self.pending = [r for r in self.pending if r not in outcomes]
            _settle(outcomes)
        self._lane.served(len(requests), len(texts), perf_counter() - self._asked)

    def run_each(self, model: Model, requests: list[Request]) -> None:
        for request in requests:
            try:
                self.run(model, [request], None)
            except Exception as error:
                _settle_all([request], error)

    def _answer(self, request: Request, found: dict[int, Prediction], began: float, ended: float, size: int) -> Answer:
        host, model_id = self._host, self._lane.model_id
        cold = self._cold[request]
        loading, loaded = self._lane.load
        load = loaded - max(loading, request.arrived) if cold else 0.0
        queue, inference = began - request.arrived - load, ended - began
        if not cold and (cold := request.watch.cold()):  # the model had crashed, and loaded itself anew
            load = min(host.latest(model_id).seconds, inference)
            inference -= load
            loading = request.arrived
        # Who came while the load ran has waited for a part of it only.
        phases = host.latest(model_id).phases if cold and request.arrived <= loading else {}
        predictions = [found[i] for i in range(len(request.texts))]
        return Answer(predictions, cold, queue, load, inference, phases, size)


def _hold_slot(begun: Event, over: Event) -> None:
    begun.set()
    over.wait(SLOT_SECONDS)


def _settle_all(requests: Sequence[Request], error: BaseException) -> None:
    if isinstance(error, StopIteration) or not isinstance(error, Exception):
        # A future takes no StopIteration, and nothing else must end the event loop.
        error = RuntimeError(f"{type(error).__name__}: {error}")
    _settle(dict.fromkeys(requests, error))


def _settle(outcomes: Mapping[Request, Answer | Exception]) -> None:
    """From a worker thread: hand all outcomes to the event loop at once, which costs it one waking."""

    def settle() -> None:
        for request, outcome in outcomes.items():
            request.settle(outcome)

    if outcomes:
        with suppress(RuntimeError):  # the event loop is closed: the server has ended without them
            next(iter(outcomes)).answer.get_loop().call_soon_threadsafe(settle)
