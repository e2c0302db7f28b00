"""Requests under one acquire: computed together, part by part, and answered as soon as each is complete."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from time import perf_counter

from ..choices import Batching
from ..contracts import Model, Prediction
from ..errors import ModelCrashed
from .answer import Answer
from .batching import chunks
from .host import Host
from .lane import Lane, Request
from .versions import Version


class Batch:
    """Whom one acquire serves, and where their time goes."""

    def __init__(self, lane: Lane, host: Host) -> None:
        self._lane = lane
        self._host = host
        self._watch = host.watch(lane.model_id)
        self._asked = perf_counter()
        self.acquired = 0.0
        self.taken = False
        self.requests: list[Request] = []
        self._cold: dict[Request, bool] = {}
        self._version: Version | None = None  # of the model that answered the latest part

    def lent(self) -> None:
        """The acquire has returned: a warm one was only waiting; a cold one was the load that was waited for."""
        self.acquired = perf_counter()
        if self._watch.cold():
            self._lane.load = self._asked, self.acquired

    def steps(self, model: Model, batching: Batching | None, *, shared: bool) -> Iterator[bool]:
        """Take those who wait now and compute them, a part in each step; True while there is more to do."""
        self.taken = True
        self.requests = self._lane.take(batching, shared=shared)
        if not self.requests:
            return  # their clients have gone
        self._cold = {request: request.watch.cold() for request in self.requests}
        limits = batching or Batching()
        try:
            yield from self._run(model, self.requests, limits)
        except Exception as error:
            left = [request for request in self.requests if not request.settled]
            if len(left) == 1 or isinstance(error, ModelCrashed):
                fail(left, error)
                return
            for request in left:  # one of them breaks it; the others need not suffer
                yield True
                try:
                    yield from self._run(model, [request], limits)
                except Exception as own:
                    fail([request], own)

    def _run(self, model: Model, requests: Sequence[Request], limits: Batching) -> Iterator[bool]:
        owners = [(request, i) for request in requests for i in range(len(request.texts))]
        found: dict[Request, dict[int, Prediction]] = {request: {} for request in requests}
        began = perf_counter()
        for number, part in enumerate(chunks([request.texts[i] for request, i in owners], limits)):
            if number:
                yield True
            wanted = [owners[index] for index in part if not owners[index][0].answer.done()]  # others have gone
            if not wanted:
                continue
            predictions = model.predict([request.texts[i] for request, i in wanted])
            if len(predictions) != len(wanted):
                raise RuntimeError(f"the loader's model gave {len(predictions)} predictions for {len(wanted)} texts")
            ended = perf_counter()
            self._version = getattr(predictions, "version", None)
            for (request, i), prediction in zip(wanted, predictions, strict=True):
                found[request][i] = Prediction.of(prediction)
            complete = [r for r in dict.fromkeys(r for r, _ in wanted) if len(found[r]) == len(r.texts)]
            _settle({r: self._answer(r, found[r], began, ended, len(owners)) for r in complete})
        self._lane.served(len(requests), len(owners), perf_counter() - self._asked)

    def _answer(self, request: Request, found: dict[int, Prediction], began: float, ended: float, size: int) -> Answer:
        latest, cold = self._host.latest(self._lane.model_id), self._cold[request]
        loading, loaded = self._lane.load
        if loaded < request.arrived:  # it waited for a load that no acquire of this lane made
            loading, loaded = latest.ended - latest.seconds, latest.ended
        load = max(0.0, min(loaded, began) - max(loading, request.arrived)) if cold else 0.0
        queue, inference = began - request.arrived - load, ended - began
        if not cold and (cold := request.watch.cold()):  # the model had crashed, and loaded itself anew
            load = min(latest.seconds, inference)
            inference -= load
            loading = request.arrived
        # Who came while the load ran has waited for a part of it only.
        phases = latest.phases if cold and request.arrived <= loading else {}
        predictions = [found[i] for i in range(len(request.texts))]
        return Answer(predictions, cold, queue, load, inference, phases, size, self._version)


def fail(requests: Sequence[Request], error: BaseException) -> None:
    """From a worker thread: tell them all."""
    if isinstance(error, StopIteration) or not isinstance(error, Exception):
        # A future takes no StopIteration, and nothing else must end the event loop.
        error = RuntimeError(f"{type(error).__name__}: {error}")
    _settle(dict.fromkeys(requests, error))


def _settle(outcomes: Mapping[Request, Answer | Exception]) -> None:
    """From a worker thread: hand all outcomes to the event loop at once, which costs it one waking."""

    def settle() -> None:
        for request, outcome in outcomes.items():
            request.settle(outcome)

    for request in outcomes:
        request.settled = True
    if outcomes:
        with suppress(RuntimeError):  # the event loop is closed: the server has ended without them
            next(iter(outcomes)).answer.get_loop().call_soon_threadsafe(settle)
