"""Runs the requests of one strategy: which thread waits, which computes, and where the time went."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter

import anyio

from ..contracts import LoadingStrategy, Prediction
from .host import Host, Watch


@dataclass(frozen=True)
class Answer:
    """Predictions, and the seconds spent waiting (`queue`), loading and computing (`inference`)."""

    predictions: list[Prediction]
    cold: bool
    queue: float
    load: float
    inference: float
    phases: Mapping[str, float]


class Dispatcher:
    """One strategy's requests: those for one model in the order of their arrival, models side by side.

    `acquire` may block, so it runs in a worker thread, of which there is one for each model that is
    asked for at this moment. `predict` runs in `compute`, whose threads are the compute slots.
    """

    def __init__(self, strategy: LoadingStrategy, host: Host, compute: ThreadPoolExecutor) -> None:
        self._strategy = strategy
        self._host = host
        self._compute = compute
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._threads = anyio.CapacityLimiter(math.inf)  # the turns bound them: one for each model

    async def predict(self, model_id: str, texts: Sequence[str]) -> Answer:
        """Raises whatever `acquire` or `predict` raises, LoadFailed above all."""
        arrived = perf_counter()
        watch = self._host.watch(model_id)
        async with self._turns[model_id]:
            return await anyio.to_thread.run_sync(self._serve, model_id, texts, arrived, watch, limiter=self._threads)

    def _serve(self, model_id: str, texts: Sequence[str], arrived: float, watch: Watch) -> Answer:
        asked = perf_counter()
        with self._strategy.acquire(model_id) as model:
            acquired, cold = perf_counter(), watch.cold()
            predictions, began, ended = self._compute.submit(_timed, model.predict, texts).result()
        # A warm acquire is only waiting; a cold one is the load that it waited for.
        load = acquired - asked if cold else 0.0
        return Answer(
            predictions=predictions,
            cold=cold,
            queue=began - arrived - load,
            load=load,
            inference=ended - began,
            phases=self._host.phases(model_id) if cold else {},
        )


def _timed(
    predict: Callable[[Sequence[str]], list[Prediction]], texts: Sequence[str]
) -> tuple[list[Prediction], float, float]:
    began = perf_counter()
    predictions = predict(texts)
    return predictions, began, perf_counter()
