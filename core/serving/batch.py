"""Requests under one lease: computed together in parts, and each answered as soon as it is complete."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ..config.choices import Batching
from ..errors import ModelCrashed, ModelGone
from ..residency.leases import LeasedModel
from ..residency.versions import Version
from .events import Answer
from .queue import Request, RequestQueue

CHARACTERS_PER_TOKEN = 4  # of English, roughly; to tokenize twice would cost more than a better estimate saves
SPECIAL_TOKENS = 2  # added to every text


class Batch:
    """The requests that are answered under one lease, and their timing."""

    def __init__(self, queue: RequestQueue, now: Callable[[], float]) -> None:
        """Call it just before the lease is requested. `now` is the clock of arrivals and loads."""
        self._queue = queue
        self._now = now
        self._began = now()
        self.taken = False
        self.requests: list[Request] = []
        self._version: Version | None = None  # of the model that computed the most recent part

    def steps(self, leased: LeasedModel, batching: Batching | None, *, shared: bool) -> Iterator[bool]:
        """Take the requests that wait now, and compute one part in each step. Yields True while parts are left."""
        self.taken = True
        self.requests = self._queue.take(batching, shared=shared)
        if not self.requests:
            return  # all were cancelled
        limits = batching or Batching()
        try:
            yield from self._compute(leased, self.requests, limits)
        except Exception as error:
            unanswered = [request for request in self.requests if not request.settled]
            leased.has_crashed = isinstance(error, ModelCrashed)
            if isinstance(error, ModelGone) and not any(request.given_back for request in unanswered):
                self._queue.give_back(unanswered)  # the next lease loads the model again
                return
            if len(unanswered) == 1 or leased.has_crashed:
                fail(unanswered, error)
                return
            for request in unanswered:  # compute each alone, so that only the request that causes the error fails
                yield True
                try:
                    yield from self._compute(leased, [request], limits)
                except Exception as own:
                    fail([request], own)

    def _compute(self, leased: LeasedModel, requests: Sequence[Request], limits: Batching) -> Iterator[bool]:
        owners = [(request, i) for request in requests for i in range(len(request.items))]
        results_of: dict[Request, dict[int, Any]] = {request: {} for request in requests}
        task = requests[0].task  # a queue gives requests of one task
        began, inference = self._now(), 0.0
        for number, part in enumerate(
            split_into_parts([task.length(request.items[i]) for request, i in owners], limits)
        ):
            if number:
                yield True
            pending = [owners[index] for index in part if not owners[index][0].answer.done()]  # others were cancelled
            if not pending:
                continue
            part_began = self._now()
            results = leased.model.predict([request.items[i] for request, i in pending], task.name)
            if len(results) != len(pending):
                raise RuntimeError(f"the model returned {len(results)} results for {len(pending)} items")
            ended = self._now()
            inference += ended - part_began
            self._version = results.version
            for (request, i), result in zip(pending, results, strict=True):
                results_of[request][i] = task.normalize(result)
            complete = [r for r in dict.fromkeys(r for r, _ in pending) if len(results_of[r]) == len(r.items)]
            leased.answered += len(complete)
            _settle_all({r: self._answer(leased, r, results_of[r], began, ended, len(owners)) for r in complete})
        self._queue.record_batch(len(requests), len(owners), self._now() - self._began, inference)

    def _answer(
        self,
        leased: LeasedModel,
        request: Request,
        results: Mapping[int, Any],
        began: float,
        ended: float,
        size: int,
    ) -> Answer:
        cold = leased.loaded_at > request.arrived
        load = max(0.0, leased.loaded_at - max(leased.asked_at, request.arrived)) if cold else 0.0
        # A request that arrived during the load has waited for only a part of it.
        phases = leased.model.record.phases if cold and request.arrived <= leased.asked_at else {}
        return Answer(
            results=[results[i] for i in range(len(request.items))],
            cold=cold,
            queue=began - request.arrived - load,
            load=load,
            inference=ended - began,
            phases=phases,
            batch=size,
            version=self._version,
        )


def fail(requests: Sequence[Request], error: BaseException) -> None:
    """Answer all requests with an error, from a worker thread."""
    if isinstance(error, StopIteration) or not isinstance(error, Exception):
        # A future does not accept StopIteration, and errors such as SystemExit would end the event loop.
        error = RuntimeError(f"{type(error).__name__}: {error}")
    _settle_all(dict.fromkeys(requests, error))


def _settle_all(outcomes: Mapping[Request, Answer | Exception]) -> None:
    """Hand all outcomes to the event loop in one call, from a worker thread."""

    def settle() -> None:
        for request, outcome in outcomes.items():
            request.settle(outcome)

    for request in outcomes:
        request.settled = True
    if outcomes:
        with suppress(RuntimeError):  # the event loop is closed: the server has ended
            next(iter(outcomes)).answer.get_loop().call_soon_threadsafe(settle)


def estimate_tokens(length: int) -> int:
    """The number of tokens of a text, estimated from its characters."""
    return length // CHARACTERS_PER_TOKEN + SPECIAL_TOKENS


def split_into_parts(lengths: Sequence[int], limits: Batching) -> Iterator[list[int]]:
    """Split items into parts that are padded to one length. Yields the indices of each part, short items first.

    `lengths` are the characters of each item. A part has at most `max_batch_size` items and `max_batch_tokens` tokens
    with padding; or it is a single item.
    """
    part: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        padded = (len(part) + 1) * estimate_tokens(lengths[index])  # this item is the longest so far
        if part and (len(part) == limits.max_batch_size or padded > limits.max_batch_tokens):
            yield part
            part = []
        part.append(index)
    yield part
