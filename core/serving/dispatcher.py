"""Runs the requests of one strategy: which thread waits, which computes, and where the time went."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Event
from time import perf_counter

import anyio

from ..contracts import LoadingStrategy, Model, Prediction
from .host import Host, Watch

SLOT_SECONDS = 0.5  # for so long others wait for a model that computes, or hangs, in a process of its own

log = logging.getLogger("residency")


@dataclass(frozen=True)
class Answer:
    """Predictions, and the seconds spent waiting (`queue`), loading and computing (`inference`)."""

    predictions: list[Prediction]
    cold: bool
    queue: float
    load: float
    inference: float
    phases: Mapping[str, float]


@dataclass(frozen=True)
class _Request:
    texts: Sequence[str]
    watch: Watch
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Answer]
    arrived: float = field(default_factory=perf_counter)

    def settle(self, outcome: Answer | BaseException) -> None:
        """From a worker thread: hand the outcome to whoever waits for it."""
        if isinstance(outcome, StopIteration) or not isinstance(outcome, Answer | Exception):
            # A future takes no StopIteration, and nothing else must end the event loop.
            outcome = RuntimeError(f"{type(outcome).__name__}: {outcome}")
        self.loop.call_soon_threadsafe(self._settle, outcome)

    def _settle(self, outcome: Answer | Exception) -> None:
        if self.answer.done():
            return  # its client has gone
        if isinstance(outcome, Exception):
            self.answer.set_exception(outcome)
        else:
            self.answer.set_result(outcome)


class Dispatcher:
    """One strategy's requests: those for one model in the order of their arrival, models side by side.

    Requests that wait for the same model are answered under one `acquire` where the strategy shares,
    each under its own where it does not. `acquire` may block, so it runs in a worker thread, of which
    there is one for each model that is asked for at this moment. `predict` runs in `compute`, whose
    threads are the compute slots, or, where the model has a process of its own, beside a slot that it
    holds for a moment. Answers leave before the model is freed.
    """

    def __init__(self, strategy: LoadingStrategy, host: Host, compute: ThreadPoolExecutor) -> None:
        self._strategy = strategy
        self._shares = getattr(strategy, "shares", True)
        self._host = host
        self._compute = compute
        self._waiting: dict[str, deque[_Request]] = {}  # by model; there while a task serves it
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads = anyio.CapacityLimiter(math.inf)  # the tasks bound them: one for each model

    async def predict(self, model_id: str, texts: Sequence[str]) -> Answer:
        """Raises whatever `acquire` or `predict` raises, LoadFailed above all."""
        loop = asyncio.get_running_loop()
        request = _Request(texts, self._host.watch(model_id), loop, loop.create_future())
        if model_id in self._waiting:
            self._waiting[model_id].append(request)
        else:
            self._waiting[model_id] = deque([request])
            task = loop.create_task(self._serve_all(model_id))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await request.answer

    async def _serve_all(self, model_id: str) -> None:
        waiting = self._waiting[model_id]
        try:
            while waiting:
                await anyio.to_thread.run_sync(self._serve, model_id, waiting, limiter=self._threads)
        finally:
            del self._waiting[model_id]

    def _serve(self, model_id: str, waiting: deque[_Request]) -> None:
        """One acquire, and an answer to those who were waiting when it returned."""
        asked = perf_counter()
        taken: list[_Request] | None = None
        try:
            with self._strategy.acquire(model_id) as model:
                acquired = perf_counter()
                taken = self._take(waiting)
                for request in taken:
                    self._answer(request, model, model_id, asked, acquired)
        except BaseException as error:
            if taken is not None:
                log.exception("Strategy '%s' failed after it lent '%s'", self._host.strategy, model_id)
            for request in self._take(waiting) if taken is None else taken:  # who has an answer keeps it
                request.settle(error)

    def _take(self, waiting: deque[_Request]) -> list[_Request]:
        return [waiting.popleft() for _ in range(len(waiting) if self._shares else 1)]

    def _answer(self, request: _Request, model: Model, model_id: str, asked: float, acquired: float) -> None:
        cold = request.watch.cold()
        try:
            predictions, began, ended = self._predict(model, request.texts)
        except BaseException as error:
            request.settle(error)
            return
        # A warm acquire is only waiting; a cold one is the load that it waited for.
        load = acquired - max(asked, request.arrived) if cold else 0.0
        queue, inference = began - request.arrived - load, ended - began
        if not cold and (cold := request.watch.cold()):  # the model had crashed, and loaded itself anew
            load = min(self._host.latest(model_id).seconds, inference)
            inference -= load
        # Who came while the load ran has waited for a part of it only.
        phases = self._host.latest(model_id).phases if cold and request.arrived <= asked else {}
        request.settle(Answer(predictions, cold, queue, load, inference, phases))

    def _predict(self, model: Model, texts: Sequence[str]) -> tuple[list[Prediction], float, float]:
        """In a compute slot; a model in a process of its own holds it for a moment only, since it may hang."""
        if not getattr(model, "own_process", False):
            return self._compute.submit(_timed, model.predict, texts).result()
        begun, over = Event(), Event()
        self._compute.submit(_hold_slot, begun, over)
        begun.wait()
        try:
            return _timed(model.predict, texts)
        finally:
            over.set()


def _hold_slot(begun: Event, over: Event) -> None:
    begun.set()
    over.wait(SLOT_SECONDS)


def _timed(
    predict: Callable[[Sequence[str]], list[Prediction]], texts: Sequence[str]
) -> tuple[list[Prediction], float, float]:
    began = perf_counter()
    predictions = predict(texts)
    if len(predictions) != len(texts):
        raise RuntimeError(f"the loader's model gave {len(predictions)} predictions for {len(texts)} texts")
    return predictions, began, perf_counter()
