"""The load generator, which sends the requests of a workload over reused connections.

In an open loop a request is sent at its intended time, however many others are unanswered, and its latency counts from
that time (no coordinated omission). Its lag is how much later it was really sent. A closed loop has no schedule, so the
generator measures its own delay by a beat every 10 ms in the same event loop.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count, islice
from threading import Event
from typing import Any, NamedTuple

import aiohttp
import numpy as np
import uvloop

from ..config.quantities import duration
from ..errors import TrialFailed
from ..results.records import OK, LoadGenerator, Sample
from .asking import Asking
from .client import Reply
from .streams import Chunk
from .traffic import Request, Traffic
from .workload import MAX_REQUESTS, Closed

HEADERS = {"Content-Type": "application/json"}
KEEP_SECONDS = 4.0  # for a connection to be reused; uvicorn closes it after 5
AHEAD_SECONDS = 0.05  # before the first arrival, for work that is done once
BEAT_SECONDS = 0.01
LATE_SECONDS = 0.005  # a send is late if its lag exceeds this,
LATE_OF_MEDIAN = 0.05  # and also exceeds this share of the median latency
LATE_SHARE = 0.01  # of sends that may be late
Append = Callable[[Sample], None]


class Target(NamedTuple):
    """The server to send to. `check` raises TrialFailed if it has ended; `timeout` is in seconds."""

    url: str
    asking: Asking
    timeout: float
    check: Callable[[], None]
    trial: str
    """The label of the trial whose samples these are."""
    headers: Callable[[str], Mapping[str, str]] = lambda model: {}
    """The headers of a request for that model."""


class DriveResult(NamedTuple):
    """When the load generator started (`perf_counter`), and what it measured of itself."""

    started: float
    measured: LoadGenerator


def drive(traffic: Traffic, number: int, target: Target, append: Append) -> DriveResult:
    """Send the requests of the round `number`, and pass each sample to `append` when its request is answered.

    A send, or in a closed loop a beat, is late if its lag exceeds both 5 ms and 5 % of the median latency. Raises
    TrialFailed if the server ends, and KeyboardInterrupt at a signal that ends the run.
    """
    closed = traffic.workload.closed
    arrivals = [] if closed else traffic.arrivals(number)
    if not closed and not arrivals:
        raise TrialFailed("no request arrived in this round; give the workload a longer 'duration', or 'requests'.")
    generator = _Generator(number, target, append)
    work = generator.closed(closed, traffic.draw_requests(number)) if closed else generator.open(arrivals)
    with _freeze_objects(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(generator.run(work))
        except asyncio.CancelledError as error:
            raise KeyboardInterrupt from error
    return generator.result()


def check_kept_up(traffic: Traffic, generator: LoadGenerator) -> None:
    """Raise TrialFailed if more than 1 % were late, because the generator then distorted the latencies."""
    if generator.late_share > LATE_SHARE:
        late = f"{generator.late_share:.1%} of its {'beats' if traffic.workload.closed else 'sends'} were late"
        remedy = "fewer clients" if traffic.workload.closed else "a lower rate"
        raise TrialFailed(
            f"the load generator could not keep up: {late} (p99 {generator.lag_p99_ms:.3g} ms). Use {remedy}, or a"
            " quieter machine."
        )


@contextmanager
def _freeze_objects() -> Iterator[None]:
    """Make the garbage collector ignore existing objects, whose traversal would delay sends."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def _cancel_at_signals() -> Iterator[None]:
    """Cancel the current task at SIGTERM and SIGHUP, if they act as Ctrl-C, as `asyncio.Runner` does at SIGINT.

    An exception that a handler raises within the event loop would not reach the task. The handler of SIGINT cannot be
    copied: for a background job of a shell SIGINT is ignored, but SIGTERM still has to end the run.
    """
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    was_signalled = False

    def cancel(*_: object) -> None:
        nonlocal was_signalled
        was_signalled = True
        loop.call_soon_threadsafe(task.cancel)  # which also wakes the loop

    others = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is signal.default_int_handler]
    for number in others:
        signal.signal(number, cancel)
    try:
        yield
    finally:
        for number in others:
            signal.signal(number, signal.default_int_handler)
    if was_signalled:  # also if the task ended before it was cancelled
        raise asyncio.CancelledError


class _Generator:
    def __init__(self, number: int, target: Target, append: Append) -> None:
        self._number = number
        self._target = target
        self._append = append
        self._lags: list[float] = []  # seconds, of the sends or the beats
        self._latencies: list[float] = []  # milliseconds, of what was answered
        self._sends = 0
        self._started = self._ended = self._processor = 0.0

    async def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work`, the coroutine of `open` or `closed`, with a client session."""
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=HEADERS,
            timeout=aiohttp.ClientTimeout(total=self._target.timeout),
        )
        with _cancel_at_signals():
            async with session as self._session:
                before = time.process_time()
                try:
                    await work
                except BaseExceptionGroup as group:  # of a task group; the others were cancelled
                    raise group.exceptions[0] from None
                self._processor = time.process_time() - before

    async def open(self, arrivals: Sequence[tuple[float, Request]]) -> None:
        """Send requests at their times. A thread waits for them, because an event loop's timers count milliseconds."""
        self._started = time.perf_counter() + AHEAD_SECONDS
        loop, stop = asyncio.get_running_loop(), Event()
        async with asyncio.TaskGroup() as tasks:

            def send(due: float, request: Request) -> None:
                if not stop.is_set():
                    tasks.create_task(self._ask(request, due))

            def keep_time() -> None:
                for at, request in arrivals:
                    due = self._started + at
                    if stop.wait(max(0.0, due - time.perf_counter())):
                        return
                    loop.call_soon_threadsafe(send, due, request)

            try:
                await asyncio.to_thread(keep_time)
            finally:
                stop.set()

    async def closed(self, choice: Closed, drawn: Iterator[Request]) -> None:
        """Run clients that each send a request, wait for its answer, and repeat."""
        self._started = time.perf_counter()
        requests = islice(drawn, choice.requests or MAX_REQUESTS)  # each client takes the next one
        end = self._started + (choice.duration or float("inf"))
        beats = asyncio.create_task(self._beat())
        async with asyncio.TaskGroup() as tasks:
            for _ in range(choice.clients):
                tasks.create_task(self._client(requests, end))
        beats.cancel()

    async def _client(self, requests: Iterator[Request], end: float) -> None:
        while time.perf_counter() < end and (request := next(requests, None)):
            await self._ask(request)

    async def _beat(self) -> None:
        for beat in count(1):
            due = self._started + beat * BEAT_SECONDS
            if (left := due - time.perf_counter()) > 0:
                await asyncio.sleep(left)
            self._lags.append(max(0.0, time.perf_counter() - due))

    async def _ask(self, request: Request, due: float | None = None) -> None:
        """Send a request, and append its sample. If there was no answer, it has status 0 and an error."""
        sent = time.perf_counter()
        if due is None:
            due = sent
        else:
            self._lags.append(sent - due)
        self._sends += 1
        ended, reply = await self._send(request, due)
        self._ended = max(self._ended, ended)
        ms = (ended - due) * 1e3
        if reply["status"] == OK:
            self._latencies.append(ms)
        self._append(
            Sample(
                round=self._number,
                trial=self._target.trial,
                model=request.model,
                text=request.text,
                first=False,
                at=due - self._started,
                lag_ms=(sent - due) * 1e3,
                ms=ms,
                **reply,
            )
        )

    async def _send(self, request: Request, due: float) -> tuple[float, Reply]:
        """Send a request. Returns when the whole response was received, and the reply."""
        asking = self._target.asking
        path, body = asking.request(request.model, request.text)
        chunks: list[Chunk] = []
        reply: Reply
        try:
            post = self._session.post(self._target.url + path, data=body, headers=self._target.headers(request.model))
            async with post as response:
                if asking.messages:
                    async for part in response.content.iter_any():
                        chunks.append(((time.perf_counter() - due) * 1e3, part))  # noqa: PERF401 - timed one by one
                else:
                    chunks.append((0.0, await response.read()))
            ended = time.perf_counter()
            reply = asking.reply(request.model, request.text, response.status, chunks, response.headers)
        except TimeoutError:
            ended = time.perf_counter()
            reply = {"status": 0, "error": f"no answer within {duration(self._target.timeout)}"}
        except aiohttp.ClientError as error:
            ended = time.perf_counter()
            self._target.check()
            reply = {"status": 0, "error": f"the connection broke ({str(error) or type(error).__name__})"}
        return ended, reply

    def result(self) -> DriveResult:
        """The measurements of the generator itself."""
        median = float(np.median(self._latencies)) / 1e3 if self._latencies else 0.0
        lags = np.array(self._lags or [0.0])
        measured = LoadGenerator(
            processor_s=self._processor,
            seconds=self._ended - self._started,
            sends=self._sends,
            late_share=float(np.mean(lags > max(LATE_SECONDS, LATE_OF_MEDIAN * median))),
            lag_p99_ms=float(np.quantile(lags, 0.99)) * 1e3,
        )
        return DriveResult(self._started, measured)
