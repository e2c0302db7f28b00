"""Leases on engines for requests that an event loop forwards, in order of arrival and up to a limit at a time.

A lease on an engine that is in memory is taken in the event loop and, while the engine has others, given back there.
Whatever may block, such as a load, or the measurement when the last lease ends, runs in a thread.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress

from ..contracts import Engine
from ..errors import DeadlineExceeded, ModelCrashed, UnknownModel
from ..residency.keeper import Keeper
from ..residency.leases import LeasedModel
from .events import Answer
from .places import Places
from .queue import Request, RequestQueue, request_id
from .threads import DaemonThreads

LINGER_SECONDS = 0.05  # that the last lease on an engine lasts after its request
CRASH_SECONDS = 0.5  # until a process whose connections are closed has ended


class Forwarding:
    """The lease of one request on an engine, and its timing."""

    def __init__(self, forwarder: Forwarder, model_id: str, request: Request) -> None:
        self._forwarder = forwarder
        self._model_id = model_id
        self._request = request
        self._leased: LeasedModel | None = None
        self._began = 0.0  # when the lease was granted
        self.cold = False
        self._load = 0.0
        self._phases: Mapping[str, float] = {}

    @property
    def engine(self) -> Engine:
        """The engine. Raises ModelCrashed if it was ended while it was leased, as at the end of the server."""
        if self._leased is None or self._leased.model.engine is None:
            raise ModelCrashed(f"The engine of model '{self._model_id}' was ended.")
        return self._leased.model.engine

    async def take(self) -> None:
        """Take a lease on an engine that runs. Raises what `Forwarder.lease` raises."""
        self._leased = leased = await self._forwarder.take(self._model_id)
        arrived = self._request.arrived
        self._began = self._forwarder.now()
        self.cold = leased.loaded_at > arrived
        self._load = max(0.0, leased.loaded_at - max(leased.asked_at, arrived)) if self.cold else 0.0
        # A request that arrived during the load has waited for only a part of it.
        is_whole = self.cold and arrived <= leased.asked_at
        self._phases = leased.model.record.phases if is_whole else {}

    def give_back(self) -> Future[None] | None:
        """End the lease, if there is one. Returns what is done when it has ended, if that takes a thread."""
        leased, self._leased = self._leased, None
        return None if leased is None else self._forwarder.give_back(leased)

    def mark_answered(self) -> None:
        """Record that the engine has begun to answer."""
        if self._leased is not None:
            self._leased.answered = 1

    @property
    def has_ended(self) -> bool:
        """Whether the process of the engine has ended."""
        return self._leased is None or self._leased.model.has_ended()

    async def has_crashed(self) -> bool:
        """Whether the engine has ended, or does so now: the connections of a process are closed before it ends."""
        end = self._forwarder.now() + CRASH_SECONDS
        while (leased := self._leased) is not None and not leased.has_crashed:
            leased.has_crashed = leased.model.has_ended()
            if not leased.has_crashed:
                if self._forwarder.now() > end:
                    return False
                await asyncio.sleep(0.01)
        return True

    async def renew(self) -> None:
        """Take another lease, in place of that on an engine that has ended."""
        if (ended := self.give_back()) is not None:
            await asyncio.shield(asyncio.wrap_future(ended))
        await self.take()

    def answer(self) -> Answer:
        """The timing, as that of an answer that ends now."""
        queue = self._began - self._request.arrived - self._load
        inference = self._forwarder.now() - self._began
        return Answer([], self.cold, queue, self._load, inference, self._phases)


class Forwarder:
    """The leases of one strategy on engines. It belongs to one event loop."""

    def __init__(self, keeper: Keeper, queues: Mapping[str, RequestQueue]) -> None:
        """`queues` are those of the models, by model id; they may change."""
        self.now = keeper.host.clock.now
        self._keeper = keeper
        self._queues = queues
        self._places: dict[str, Places] = {}
        self._waiting: dict[str, deque[asyncio.Future[LeasedModel]]] = {}  # for a thread that takes a lease
        self._taking: set[str] = set()  # models for which a thread does so
        self._lingering: dict[LeasedModel, None] = {}  # leases whose requests have ended; used in any thread
        self._threads = DaemonThreads("lease")

    @asynccontextmanager
    async def lease(self, model_id: str, parallel: int, seconds: float) -> AsyncIterator[Forwarding]:
        """A lease on the model's engine, for one of `parallel` requests at a time. It must begin within `seconds`.

        Raises UnknownModel, Overloaded, DeadlineExceeded, ModelCrashed, and what the load raises.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        if (queue := self._queues.get(model_id)) is None:
            raise UnknownModel(f"There is no model '{model_id}' here.")
        request = Request((), loop.create_future(), self.now(), request_id.get())
        places = self._places.setdefault(model_id, Places())
        is_shared = self._keeper.decisions.shared
        limit = parallel if is_shared else 1  # as the models in this process
        forwarding = Forwarding(self, model_id, request)
        with queue.slot(request):
            self._keeper.record_request(model_id)
            async with _deadline(end):
                await places.enter(limit)
            ending: Future[None] | None = None
            try:
                async with _deadline(end):
                    await forwarding.take()
                yield forwarding
                answer = forwarding.answer()
                request.answer.set_result(answer)
                queue.record_forwarded(answer.inference, limit)
            finally:
                ending = forwarding.give_back()
                if is_shared or ending is None:
                    places.leave()
                else:  # the next request loads an engine of its own
                    ending.add_done_callback(lambda _: _call_soon(loop, places.leave))

    async def take(self, model_id: str) -> LeasedModel:
        """A lease on an engine that runs. Raises what `Keeper.acquire` raises."""
        leased = self._keeper.acquire_at_once(model_id)
        if leased is not None and leased.model.has_ended():
            leased.has_crashed = True
            if (ended := self.give_back(leased)) is not None:  # so that the next one is on a new engine
                await asyncio.shield(asyncio.wrap_future(ended))
            leased = None
        return leased or await self._wait(model_id)

    def give_back(self, leased: LeasedModel) -> Future[None] | None:
        """End the lease, in a thread if that may block. Returns what is done when it has ended there.

        The last lease on an engine lasts a little longer, unless a load may wait for its memory. So requests that
        follow each other closely are not slowed down by a measurement after each of them.
        """
        if self._keeper.release_at_once(leased):
            return None
        if self._taking or leased.has_crashed or not self._keeper.decisions.shared:
            return self._release_in_thread(leased)
        self._lingering[leased] = None
        asyncio.get_running_loop().call_later(LINGER_SECONDS, self._end, leased)
        return None

    def _end(self, leased: LeasedModel) -> None:
        with suppress(KeyError):  # it was ended by `end_all`
            self._lingering.pop(leased)
            if not self._keeper.release_at_once(leased):
                self._release_in_thread(leased)

    def end_all(self) -> None:
        """End the leases whose requests have ended; blocks. Called from any thread."""
        with suppress(KeyError):
            while True:
                self._keeper.release(self._lingering.popitem()[0])

    def _release_in_thread(self, leased: LeasedModel) -> Future[None] | None:
        try:
            ended = self._threads.submit(self._keeper.release, leased)
        except RuntimeError:  # the system can start no more threads
            self._keeper.release(leased)
            return None
        ended.add_done_callback(Future.result)  # logs an error
        return ended

    async def _wait(self, model_id: str) -> LeasedModel:
        """A lease that a thread takes, which loads the engine if needed. One thread does so for all that wait."""
        lease: asyncio.Future[LeasedModel] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(model_id, deque()).append(lease)
        try:
            if model_id not in self._taking:
                self._take_in_thread(model_id)
            return await lease
        except BaseException:
            if lease.done() and not lease.cancelled() and lease.exception() is None:
                self.give_back(lease.result())
            lease.cancel()
            raise

    def _take_in_thread(self, model_id: str) -> None:
        loop = asyncio.get_running_loop()
        taking = self._threads.submit(self._acquire, model_id)
        self._taking.add(model_id)
        taking.add_done_callback(lambda taken: _call_soon(loop, lambda: self._hand_out(model_id, taken)))

    def _acquire(self, model_id: str) -> LeasedModel:
        self.end_all()  # it may need their memory
        return self._keeper.acquire(model_id)

    def _hand_out(self, model_id: str, taken: Future[LeasedModel]) -> None:
        """Give the lease that a thread has taken, and others on the same engine, to those that wait; or the error."""
        self._taking.discard(model_id)
        waiting = deque(lease for lease in self._waiting.pop(model_id, ()) if not lease.done())
        if (error := taken.exception()) is not None:
            if isinstance(error, StopIteration) or not isinstance(error, Exception):  # no future accepts these
                error = RuntimeError(f"{type(error).__name__}: {error}")
            for lease in waiting:
                lease.set_exception(error)
            return
        leased: LeasedModel | None = taken.result()
        while waiting and leased is not None:
            waiting.popleft().set_result(leased)
            leased = self._keeper.acquire_at_once(model_id) if waiting else None
        if leased is not None:
            self.give_back(leased)
        if waiting:
            self._waiting[model_id] = waiting
            self._take_in_thread(model_id)


@asynccontextmanager
async def _deadline(end: float) -> AsyncIterator[None]:
    """Raise DeadlineExceeded at `end`, on the clock of the event loop."""
    try:
        async with asyncio.timeout_at(end) as deadline:
            yield
    except TimeoutError:
        if deadline.expired():
            raise DeadlineExceeded("The request's deadline passed before it could be forwarded.") from None
        raise


def _call_soon(loop: asyncio.AbstractEventLoop, work: Callable[[], None]) -> None:
    """Do the work in the event loop, from any thread."""
    with suppress(RuntimeError):  # the event loop is closed: the server has ended
        loop.call_soon_threadsafe(work)
