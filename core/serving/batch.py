"""Requests under one lease: computed together, part by part, and answered as soon as each is complete."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

from ..config.choices import Batching
from ..contracts import Prediction
from ..errors import ModelCrashed, ModelGone
from ..residency.keeper import Lent
from ..residency.versions import Version
from .answer import Answer
from .queue import Request, RequestQueue

CHARACTERS_PER_TOKEN = 4  # of English, roughly; nobody tokenizes twice to know it better
SPECIAL_TOKENS = 2  # around every text


class Batch:
    """Whom one lease serves, and where their time goes."""

    def __init__(self, queue: RequestQueue, now: Callable[[], float]) -> None:
        """`now` is the clock of arrivals and loads."""
        self._queue = queue
        self._now = now
        self._asked = now()
        self.taken = False
        self.requests: list[Request] = []
        self._version: Version | None = None  # of the model that answered the latest part

    def steps(self, lent: Lent, batching: Batching | None, *, shared: bool) -> Iterator[bool]:
        """Take those who wait now and compute them, a part in each step; True while there is more to do."""
        self.taken = True
        self.requests = self._queue.take(batching, shared=shared)
        if not self.requests:
            return  # their clients have gone
        limits = batching or Batching()
        try:
            yield from self._run(lent, self.requests, limits)
        except Exception as error:
            left = [request for request in self.requests if not request.settled]
            lent.has_crashed = isinstance(error, ModelCrashed)
            if isinstance(error, ModelGone) and not any(request.given_back for request in left):
                self._queue.give_back(left)  # for whom the next lease loads it anew
                return
            if len(left) == 1 or lent.has_crashed:
                fail(left, error)
                return
            for request in left:  # one of them breaks it; the others need not suffer
                yield True
                try:
                    yield from self._run(lent, [request], limits)
                except Exception as own:
                    fail([request], own)

    def _run(self, lent: Lent, requests: Sequence[Request], limits: Batching) -> Iterator[bool]:
        owners = [(request, i) for request in requests for i in range(len(request.texts))]
        found: dict[Request, dict[int, Prediction]] = {request: {} for request in requests}
        began = self._now()
        for number, part in enumerate(chunks([request.texts[i] for request, i in owners], limits)):
            if number:
                yield True
            wanted = [owners[index] for index in part if not owners[index][0].answer.done()]  # others have gone
            if not wanted:
                continue
            predictions = lent.model.predict([request.texts[i] for request, i in wanted])
            if len(predictions) != len(wanted):
                raise RuntimeError(f"the loader's model gave {len(predictions)} predictions for {len(wanted)} texts")
            ended = self._now()
            self._version = predictions.version
            for (request, i), prediction in zip(wanted, predictions, strict=True):
                found[request][i] = Prediction.of(prediction)
            complete = [r for r in dict.fromkeys(r for r, _ in wanted) if len(found[r]) == len(r.texts)]
            lent.answered += len(complete)
            _settle({r: self._answer(lent, r, found[r], began, ended, len(owners)) for r in complete})
        self._queue.served(len(requests), len(owners), self._now() - self._asked)

    def _answer(
        self, lent: Lent, request: Request, found: dict[int, Prediction], began: float, ended: float, size: int
    ) -> Answer:
        cold = lent.loaded_at > request.arrived
        load = max(0.0, lent.loaded_at - max(lent.asked_at, request.arrived)) if cold else 0.0
        # Who came while the load ran has waited for a part of it only.
        phases = lent.model.record.phases if cold and request.arrived <= lent.asked_at else {}
        return Answer(
            predictions=[found[i] for i in range(len(request.texts))],
            cold=cold,
            queue=began - request.arrived - load,
            load=load,
            inference=ended - began,
            phases=phases,
            batch=size,
            version=self._version,
        )


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


def tokens(text: str) -> int:
    """An estimate that costs nothing."""
    return len(text) // CHARACTERS_PER_TOKEN + SPECIAL_TOKENS


def chunks(texts: Sequence[str], limits: Batching) -> Iterator[list[int]]:
    """Indices of the texts, the short ones first, in parts that are padded to a common length each.

    A part holds at most `max_batch_size` texts and `max_batch_tokens` tokens, padding included, or one text.
    """
    part: list[int] = []
    for index in sorted(range(len(texts)), key=lambda i: len(texts[i])):
        padded = (len(part) + 1) * tokens(texts[index])  # this one is the longest so far
        if part and (len(part) == limits.max_batch_size or padded > limits.max_batch_tokens):
            yield part
            part = []
        part.append(index)
    yield part
