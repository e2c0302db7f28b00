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
from typing import Any

import httpx

from .. import memory
from ..errors import TrialFailed
from ..models import checkpoint
from ..models.onnx.packed import kept_weights
from ..models.openvino.compiled import compiled_files
from ..models.precision import converted
from ..quantities import duration
from .client import ask, connect, strategy_of
from .experiment import Plan, TrialPlan, batching_of
from .loads import SETTLE_SECONDS, Loads
from .page_cache import evict
from .records import Records
from .server import ServerProcess, serve
from .texts import MAX_TEXT
from .timeline import Timeline, events

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
    samples = _Samples(trial, records)
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
        log = server.last_words() if samples.failed else None
    records.append("trial", round=trial.number, trial=trial.spec.label, log=log, **ended)


def _measure(trial: Trial, server: ServerProcess, samples: _Samples, tick: Tick) -> dict[str, Any]:
    """The fields of a trial's record. Raises TrialFailed."""
    timeout = trial.plan.experiment.timeout
    with connect(server.url, timeout) as client:
        try:
            ready = server.wait_until_ready(client, timeout)
            strategy = strategy_of(client)
            send = _Sender(trial, strategy["route"], client, server.pid, samples, tick)
            with send.set_aside():  # a server that meets a checkpoint for the first time probes it, this once
                server.wait_until_checked(client, timeout)
            answered = send(next(iter(trial.checkpoints)), 0, first=True)
            first_answer = time.perf_counter() - server.started - send.aside if answered else None
            start_peak = memory.peak(server.pid)
            memory.reset_peak(server.pid)
            loaded_before = strategy_of(client)["loads"]
            with Timeline(server.pid) as timeline:
                before = memory.processor_seconds(server.pid)
                generator = _drive(trial, f"{server.url}{strategy['route']}", server, samples, tick)
                steady = generator["seconds"] if generator else _repeat(trial, send)
                after = memory.processor_seconds(server.pid)
            began = generator.pop("started") if generator else timeline.began
            ended = _ended(server, client, timeline, began)
            ended["memory_mib"]["start_peak_rss"] = start_peak
            ended["steady_loads"] = ended["loads"] - loaded_before
            loads = Loads(
                client, strategy["route"], server.pid, list(trial.checkpoints), trial.plan.texts[0], trial.files
            )
            ended["loads_lacking"] = loads.measure(samples.append_load)
        except httpx.TimeoutException as error:
            raise TrialFailed(
                f"no answer within {duration(timeout)}; raise 'timeout', or look into the loader."
            ) from error
        except httpx.HTTPError as error:
            server.check(SETTLE_SECONDS)  # its connections break a moment before it is seen to have ended
            raise TrialFailed(f"the connection broke ({error}); the server's log: {server.last_words()}") from error
    return {
        "ready_s": ready,
        "first_answer_s": first_answer,
        "steady_s": steady,
        "processor_s": None if before is None or after is None else after - before,
        "generator": generator,
        **ended,
    }


class _Samples:
    """Appends a trial's samples, and counts those of requests that failed."""

    def __init__(self, trial: Trial, records: Records) -> None:
        self._place = {"round": trial.number, "trial": trial.spec.label}
        self._records = records
        self.requests = 0
        self.failed: Counter[str] = Counter()

    def append(self, sample: Mapping[str, Any]) -> None:
        self.requests += 1
        if sample["status"] != httpx.codes.OK:
            self.failed[sample["error"]] += 1
        self._records.append("sample", **self._place, **sample)

    def append_load(self, load: Mapping[str, Any]) -> None:
        """Of those that were measured by themselves; it counts as none of the requests."""
        self._records.append("load", **self._place, **load)

    def failures(self) -> str:
        """How many requests failed, and with what."""
        [(error, count)] = self.failed.most_common(1)
        which = "" if count == self.failed.total() else f", {count} of them"
        return f"{self.failed.total()} of {self.requests} requests failed{which}: {error.rstrip('.')}"


def _ended(server: ServerProcess, client: httpx.Client, timeline: Timeline, began: float) -> dict[str, Any]:
    """What the steady state, which began then (`perf_counter`), has left: memory, loads, and when they were."""
    strategy = strategy_of(client)
    measured = _measure_memory(server)
    happened = events(client, began, timeline.ended)
    counts = {key: strategy[key] for key in ("loads", "unloads", "unload_s", "used", "least_keep")}
    resident = [each["model"] for each in strategy_of(client)["resident"]]
    return {"memory_mib": measured, "resident": resident, **counts, **timeline.fields(began), "events": happened}


def _repeat(trial: Trial, send: _Sender) -> float:
    """The plain form, one request after the other: its wall time, in seconds."""
    before, began = send.aside, time.perf_counter()
    send.began = began
    for model_id, text in trial.schedule():
        send(model_id, text)
    return time.perf_counter() - began - (send.aside - before)


def _drive(trial: Trial, url: str, server: ServerProcess, samples: _Samples, tick: Tick) -> dict[str, Any] | None:
    """Under a workload, send its requests: what the load generator measured of itself."""
    plan = trial.plan
    if plan.traffic is None:
        return None
    # In the plain form this process must not map libraries whose pages it would share with the server.
    from .generator import Target, check_kept_up, drive

    target = Target(url, plan.texts, plan.experiment.timeout, server.check)
    generator = drive(plan.traffic, trial.number, target, samples.append)
    tick(generator["sends"])  # not before: to draw the bar would hold up sends
    check_kept_up(plan.traffic, generator)
    return generator


def _measure_memory(server: ServerProcess) -> dict[str, float | None]:
    peak = memory.peak(server.pid)
    time.sleep(IDLE_SECONDS)
    pss, private = memory.at_rest(server.pid)
    idle = {"idle_pss": pss, "idle_private": private, "idle_rss": memory.resident(server.pid)}
    return idle | {"peak_rss": peak}


class _Sender:
    """Sends a request and appends its sample; `aside` are the seconds that it spent on anything else."""

    def __init__(self, trial: Trial, route: str, client: httpx.Client, pid: int, samples: _Samples, tick: Tick) -> None:
        self._trial = trial
        self._route = route
        self._client = client
        self._pid = pid
        self._samples = samples
        self._tick = tick
        self.aside = 0.0
        self.began = 0.0  # the steady state, by `perf_counter`

    def __call__(self, model_id: str, text: int, *, first: bool = False) -> bool:
        """Whether it was answered without an error."""
        trial = self._trial
        evicted = trial.is_cold and self._make_cold(model_id)
        at = time.perf_counter() - self.began
        sample = ask(self._client, self._route, model_id, trial.plan.texts[text])
        place = {"model": model_id, "text": text, "first": first}
        place |= {} if first else {"at": at}
        if trial.is_cold:
            sample["page_cache"] = "cold" if evicted else "warm"
            if sample.get("cold") and not evicted:
                raise TrialFailed(
                    f"'{model_id}' left memory between the question whether it was there and the request, so it was"
                    f" loaded from warm pages. Give it a 'ttl' that is not close to {SETTLE_SECONDS} s."
                )
        if trial.plan.experiment.memory_after_each:
            with self.set_aside():
                time.sleep(SETTLE_SECONDS)
                pss, private = memory.at_rest(self._pid)
            sample["memory_mib"] = {"pss": pss, "private": private}
        self._samples.append(place | sample)
        self._tick(1)
        return bool(sample["status"] == httpx.codes.OK)

    def _make_cold(self, model_id: str) -> bool:
        """Drop the model's checkpoint from the page cache, unless the model is in memory and is not loaded next."""
        with self.set_aside():
            time.sleep(SETTLE_SECONDS)
            if model_id in [model["model"] for model in strategy_of(self._client)["resident"]]:
                return False
            evict(self._trial.files(model_id))
            return True

    @contextmanager
    def set_aside(self) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.aside += time.perf_counter() - began
