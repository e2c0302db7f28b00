"""One trial in one round: start a server, time its first answer, then its steady state, its memory, a few loads."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx

from ..checkpoints import checkpoint
from ..checkpoints.dtypes import converted
from ..config.quantities import duration
from ..errors import TrialFailed
from ..loaders.onnxruntime.packed import kept_weights
from ..loaders.openvino.compiled import compiled_files
from ..results.folder import Records
from ..results.records import (
    OK,
    Load,
    LoadGenerator,
    Memory,
    MemoryAfter,
    Sample,
    TrialEnd,
    UsedModel,
)
from ..system import memory
from ..system.page_cache import evict
from .client import ask, connect, strategy_of
from .experiment import Plan, TrialPlan, batching_of
from .loads import SETTLE_SECONDS, Loads
from .server import ServerProcess, serve
from .texts import MAX_TEXT
from .timeline import Timeline, events

if TYPE_CHECKING:
    from .generator import Driven

IDLE_SECONDS = 1.0  # by definition: memory is idle one second after the last request
Tick = Callable[[int], None]  # told how many requests are done


@dataclass(frozen=True)
class Trial:
    """What a round's trial needs to run."""

    plan: Plan
    spec: TrialPlan
    checkpoints: Mapping[str, Path]
    number: int  # of the round, from 0

    @property
    def settings(self) -> dict[str, Any]:
        """Of the server: this one strategy, and models as directories that are there already."""
        return {
            "strategies": [self.spec.choice.model_dump(exclude={"label"})],
            "models": {model_id: str(directory) for model_id, directory in self.checkpoints.items()},
            "plugins": self.plan.experiment.plugins,
            "cost": self.plan.experiment.cost.model_dump(mode="json"),
            "batching": batching_of(self.plan),
            "max_text": MAX_TEXT,
            "request_timeout": min(2 * self.plan.experiment.timeout, 3600.0),  # ours comes first
        }

    @property
    def is_cold(self) -> bool:
        """Whether a load is to find nothing of its checkpoint in the page cache."""
        return self.plan.experiment.page_cache == "cold"

    def files(self, *model_ids: str) -> Iterator[Path]:
        """All files that loading the models may read, the cache's copies in the loader's dtype included."""
        for directory in (self.checkpoints[model_id] for model_id in model_ids):
            for folder in (directory, converted(directory, self.spec.dtype)):
                if folder.is_dir():
                    yield from checkpoint.files(folder)
            yield from kept_weights(directory, self.spec.dtype)
            yield from compiled_files(directory, self.spec.dtype)

    def schedule(self) -> list[tuple[str, int]]:
        """(model id, index of a text) of each request, shuffled: the same for every trial of a round.

        A fixed cycle over more models than fit would make any LRU look useless.
        """
        experiment = self.plan.experiment
        once = [(model, i) for model in experiment.models for i in range(len(self.plan.texts))]
        requests = once * (experiment.repetitions or 0)
        random.Random(f"{experiment.seed}/{self.number}").shuffle(requests)
        return requests


def run_trial(trial: Trial, records: Records, tick: Tick) -> None:
    """Run it and append all that it measures. Raises TrialFailed.

    `tick` is called after each request, and after a workload.
    """
    if trial.is_cold:
        evict(trial.files(*trial.checkpoints))
    samples = _Samples(records)
    keep_log = partial(records.keep_log, trial.number, trial.spec.label)
    with serve(trial.settings, keep_log=keep_log) as server:
        try:
            ended = _measure(trial, server, samples, tick)
        except TrialFailed as error:
            if not samples.failed:
                raise
            # What went wrong first explains the rest, such as a load generator that was held up by it.
            said = server.last_words()
            its_log = "" if said in str(error) else f" (the server's log: {said})"
            raise TrialFailed(f"{samples.failures()}{its_log}. Besides, {error}") from error
    records.append(ended)


def _measure(trial: Trial, server: ServerProcess, samples: _Samples, tick: Tick) -> TrialEnd:
    """The trial's last record. Raises TrialFailed."""
    timeout = trial.plan.experiment.timeout
    with connect(server.url, timeout) as client:
        try:
            ready = server.wait_until_ready(client, timeout)
            send = _Sender(trial, strategy_of(client)["route"], client, server.pid, samples, tick)
            start = _measure_start(send, server, ready)
            return _measure_end(send, server, start, _measure_steady(send, server))
        except httpx.TimeoutException as error:
            raise TrialFailed(
                f"no answer within {duration(timeout)}; raise 'timeout', or look into the loader."
            ) from error
        except httpx.HTTPError as error:
            server.check(SETTLE_SECONDS)  # its connections break a moment before it is seen to have ended
            raise TrialFailed(f"the connection broke ({error}); the server's log: {server.last_words()}") from error


class _Start(NamedTuple):
    """What was measured until the first answer."""

    ready_s: float
    first_answer_s: float | None
    peak_rss: float | None
    """MiB."""
    loads: int


def _measure_start(send: _Sender, server: ServerProcess, ready: float) -> _Start:
    """The first answer of a server that was ready after so many seconds."""
    with send.set_aside():  # a server that meets a checkpoint for the first time probes it, this once
        server.wait_until_checked(send.client, send.trial.plan.experiment.timeout)
    answered = send(next(iter(send.trial.checkpoints)), 0, first=True)
    first_answer = time.perf_counter() - server.started - send.aside if answered else None
    peak = memory.peak(server.pid)
    memory.reset_peak(server.pid)
    return _Start(ready, first_answer, peak, strategy_of(send.client)["loads"])


class _Steady(NamedTuple):
    """What was measured in the steady state."""

    began: float
    """By `perf_counter`."""
    seconds: float
    processor_s: float | None
    generator: LoadGenerator | None
    timeline: Timeline


def _measure_steady(send: _Sender, server: ServerProcess) -> _Steady:
    with Timeline(server.pid) as timeline:
        before = memory.processor_seconds(server.pid)
        driven = _drive(send, server)
        seconds = driven.measured.seconds if driven else _repeat(send)
        after = memory.processor_seconds(server.pid)
    taken = None if before is None or after is None else after - before
    began, measured = driven or (timeline.began, None)
    return _Steady(began, seconds, taken, measured, timeline)


def _measure_end(send: _Sender, server: ServerProcess, start: _Start, steady: _Steady) -> TrialEnd:
    """Memory and loads after the steady state, then a few loads by themselves."""
    trial, strategy = send.trial, strategy_of(send.client)
    measured = _measure_memory(server, start.peak_rss)
    happened = events(send.client, steady.began, steady.timeline.ended)
    resident = [each["model"] for each in strategy_of(send.client)["resident"]]
    over_time = steady.timeline.since(steady.began)
    lacking = send.loads().measure()
    return TrialEnd(
        round=trial.number,
        trial=trial.spec.label,
        log=server.last_words() if send.samples.failed else None,
        ready_s=start.ready_s,
        first_answer_s=start.first_answer_s,
        steady_s=steady.seconds,
        processor_s=steady.processor_s,
        generator=steady.generator,
        memory_mib=measured,
        resident=resident,
        loads=strategy["loads"],
        unloads=strategy["unloads"],
        unload_s=strategy["unload_s"],
        used=[UsedModel.model_validate(each) for each in strategy["used"]],
        least_keep=strategy["least_keep"],
        timeline=over_time.timeline,
        mean_rss=over_time.mean_rss,
        events=happened,
        steady_loads=strategy["loads"] - start.loads,
        loads_lacking=lacking,
    )


class _Samples:
    """Appends a trial's samples, and counts those of requests that failed."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self.requests = 0
        self.failed: Counter[str] = Counter()

    def append(self, sample: Sample) -> None:
        self.requests += 1
        if sample.error is not None:
            self.failed[sample.error] += 1
        self._records.append(sample)

    def append_load(self, load: Load) -> None:
        """Of those that were measured by themselves; it counts as none of the requests."""
        self._records.append(load)

    def failures(self) -> str:
        """How many requests failed, and with what."""
        [(error, count)] = self.failed.most_common(1)
        which = "" if count == self.failed.total() else f", {count} of them"
        return f"{self.failed.total()} of {self.requests} requests failed{which}: {error.rstrip('.')}"


def _repeat(send: _Sender) -> float:
    """The plain form, one request after the other: its wall time, in seconds."""
    before, began = send.aside, time.perf_counter()
    send.began = began
    for model_id, text in send.trial.schedule():
        send(model_id, text)
    return time.perf_counter() - began - (send.aside - before)


def _drive(send: _Sender, server: ServerProcess) -> Driven | None:
    """Under a workload, send its requests: what the load generator measured of itself."""
    plan = send.trial.plan
    if plan.traffic is None:
        return None
    # In the plain form this process must not map libraries whose pages it would share with the server.
    from .generator import Target, check_kept_up, drive

    url, label = f"{server.url}{send.route}", send.trial.spec.label
    target = Target(url, plan.texts, plan.experiment.timeout, server.check, label)
    driven = drive(plan.traffic, send.trial.number, target, send.samples.append)
    send.tick(driven.measured.sends)  # not before: to draw the bar would hold up sends
    check_kept_up(plan.traffic, driven.measured)
    return driven


def _measure_memory(server: ServerProcess, start_peak: float | None) -> Memory:
    peak = memory.peak(server.pid)
    time.sleep(IDLE_SECONDS)
    pss, private = memory.at_rest(server.pid)
    rss = memory.resident(server.pid)
    return Memory(idle_pss=pss, idle_private=private, idle_rss=rss, peak_rss=peak, start_peak_rss=start_peak)


class _Sender:
    """Sends a request and appends its sample; `aside` are the seconds that it spent on anything else."""

    def __init__(self, trial: Trial, route: str, client: httpx.Client, pid: int, samples: _Samples, tick: Tick) -> None:
        self.trial = trial
        self.route = route
        self.client = client
        self.samples = samples
        self.tick = tick
        self._pid = pid
        self.aside = 0.0
        self.began = 0.0  # the steady state, by `perf_counter`

    def __call__(self, model_id: str, text: int, *, first: bool = False) -> bool:
        """Whether it was answered without an error."""
        trial = self.trial
        evicted = trial.is_cold and self._make_cold(model_id)
        at = time.perf_counter() - self.began
        ms, reply = ask(self.client, self.route, model_id, trial.plan.texts[text])
        besides: dict[str, Any] = {} if first else {"at": at}
        if trial.is_cold:
            besides["page_cache"] = "cold" if evicted else "warm"
            if reply.get("cold") and not evicted:
                raise TrialFailed(
                    f"'{model_id}' left memory between the question whether it was there and the request, so it was"
                    f" loaded from warm pages. Give it a 'ttl' that is not close to {SETTLE_SECONDS} s."
                )
        if trial.plan.experiment.memory_after_each:
            with self.set_aside():
                time.sleep(SETTLE_SECONDS)
                pss, private = memory.at_rest(self._pid)
            besides["memory_mib"] = MemoryAfter(pss=pss, private=private)
        self.samples.append(
            Sample(
                round=trial.number,
                trial=trial.spec.label,
                model=model_id,
                text=text,
                first=first,
                ms=ms,
                **besides,
                **reply,
            )
        )
        self.tick(1)
        return reply["status"] == OK

    def _make_cold(self, model_id: str) -> bool:
        """Drop the model's checkpoint from the page cache, unless the model is in memory and is not loaded next."""
        with self.set_aside():
            time.sleep(SETTLE_SECONDS)
            if model_id in [model["model"] for model in strategy_of(self.client)["resident"]]:
                return False
            evict(self.trial.files(model_id))
            return True

    def loads(self) -> Loads:
        """What measures loads by themselves."""
        trial = self.trial
        return Loads(
            round=trial.number,
            trial=trial.spec.label,
            client=self.client,
            route=self.route,
            pid=self._pid,
            models=list(trial.checkpoints),
            text=trial.plan.texts[0],
            files=trial.files,
            append=self.samples.append_load,
        )

    @contextmanager
    def set_aside(self) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.aside += time.perf_counter() - began
