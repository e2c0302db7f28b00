"""Running one trial in one round: the server's start and first answer, its steady state, memory, and a few loads."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
from pydantic import JsonValue

from ..checkpoints import checkpoint
from ..checkpoints.dtypes import converted_directory
from ..config.engines import EngineChoice
from ..config.quantities import duration
from ..errors import TrialFailed
from ..loaders.onnxruntime.packed import weight_files
from ..loaders.openvino.compiled import compiled_files
from ..results.folder import RecordWriter
from ..results.records import OK, LoadGenerator, Memory, MemoryAfter, Sample, TrialEnd, UsedModel
from ..system import memory
from ..system.page_cache import drop_files
from .asking import Asking
from .client import Reply, connect, read_strategy
from .cluster import request_headers
from .engines import named_files, written_engine
from .experiment import ResolvedExperiment, ResolvedTrial, batching_setting
from .first_answers import FirstAnswers
from .loads import SETTLE_SECONDS, LoadMeasurement
from .nodes import count_by_node, wait_for_nodes, wait_until_probed
from .samples import Samples
from .server import AppendLog, ServerProcess, serve, serve_cluster
from .tasks import task_of
from .texts import MAX_TEXT
from .timeline import Timeline, read_events

if TYPE_CHECKING:
    from .generator import DriveResult

IDLE_SECONDS = 1.0  # between the last request and reading idle memory
Tick = Callable[[int], None]  # takes the number of requests that were answered since the last call


@dataclass(frozen=True)
class Trial:
    """One trial in one round."""

    resolved: ResolvedExperiment
    spec: ResolvedTrial
    checkpoints: Mapping[str, Path]
    number: int  # of the round, from 0

    @property
    def settings(self) -> dict[str, Any]:
        """The server's settings: only this strategy, and models as existing directories."""
        cluster = self.spec.choice.cluster
        return {
            "strategies": [self.spec.choice.model_dump(exclude={"label", "cluster"})],
            **({"cluster": cluster.settings} if cluster else {}),
            "models": {model_id: self._setting(model_id) for model_id in self.models},
            "plugins": self.resolved.experiment.plugins,
            "cost": self.resolved.experiment.cost.model_dump(mode="json"),
            "batching": batching_setting(self.resolved),
            "max_text": MAX_TEXT,
            # Longer than the client's timeout, so that the client's comes first.
            "request_timeout": min(2 * self.resolved.experiment.timeout, 3600.0),
        }

    @property
    def models(self) -> Mapping[str, str | EngineChoice]:
        """References of checkpoints, and engines, by model id."""
        return self.resolved.experiment.models

    def _setting(self, model_id: str) -> str | dict[str, JsonValue]:
        model = self.models[model_id]
        return written_engine(model) if isinstance(model, EngineChoice) else str(self.checkpoints[model_id])

    def asking(self, route: str, first: FirstAnswers) -> Asking:
        """How the trial asks its models, whose predictions have this path."""
        plugins, loader = self.resolved.plugins, self.spec.choice.loader
        tasks = {id_: task_of(plugins, loader, directory) for id_, directory in self.checkpoints.items()}
        return Asking(route, self.resolved.texts, self.resolved.messages, tasks, first)

    def serve(self, append_log: AppendLog) -> AbstractContextManager[ServerProcess]:
        """Run the trial's server, a single one or a cluster."""
        if cluster := self.spec.choice.cluster:
            return serve_cluster(self.settings, cluster.lifecycle, append_log)
        return serve(self.settings, append_log=append_log)

    def headers(self, model_id: str) -> dict[str, str]:
        """The headers of a request for the model."""
        return request_headers(self.spec.choice, model_id)

    @property
    def nodes(self) -> int:
        """How many nodes the server has; 0 if it is no cluster."""
        cluster = self.spec.choice.cluster
        return cluster.count if cluster else 0

    @property
    def is_cold(self) -> bool:
        """Whether the checkpoint is dropped from the page cache before each load."""
        return self.resolved.experiment.page_cache == "cold"

    def files(self, *model_ids: str) -> Iterator[Path]:
        """All files that loading the models may read: converted copies in the cache, and those that commands name."""
        for engine in (model for model_id in model_ids if isinstance(model := self.models[model_id], EngineChoice)):
            yield from named_files(engine)
        for directory in (self.checkpoints[model_id] for model_id in model_ids if model_id in self.checkpoints):
            for folder in (directory, converted_directory(directory, self.spec.dtype)):
                if folder.is_dir():
                    yield from checkpoint.files(folder)
            yield from weight_files(directory, self.spec.dtype)
            yield from compiled_files(directory, self.spec.dtype)

    def schedule(self) -> list[tuple[str, int]]:
        """(model id, index of a text) of each request, in an order that is the same for every trial of a round.

        It is shuffled, because a fixed cycle over more models than fit in memory is the worst case of LRU.
        """
        experiment = self.resolved.experiment
        once = [(model, i) for model in experiment.models for i in range(self.resolved.questions)]
        requests = once * (experiment.repetitions or 0)
        random.Random(f"{experiment.seed}/{self.number}").shuffle(requests)
        return requests


def run_trial(trial: Trial, records: RecordWriter, tick: Tick) -> None:
    """Run the trial, and append its records. Raises TrialFailed.

    `tick` is called after each request, or once after a workload.
    """
    if trial.is_cold:
        drop_files(trial.files(*trial.models))
    samples = Samples(records)
    append_log = partial(records.append_log, trial.number, trial.spec.label)
    with trial.serve(append_log) as server:
        try:
            ended = _measure(trial, server, samples, tick)
        except TrialFailed as error:
            if not samples.failed:
                raise
            # Failed requests explain what follows, such as a load generator that could not keep up.
            reason = server.failure_reason()
            its_log = "" if reason in str(error) else f" (the server's log: {reason})"
            raise TrialFailed(f"{samples.failures()}{its_log}. Besides, {error}") from error
    records.append(ended)


def _measure(trial: Trial, server: ServerProcess, samples: Samples, tick: Tick) -> TrialEnd:
    """Measure the trial, and return its last record. Raises TrialFailed."""
    timeout = trial.resolved.experiment.timeout
    with connect(server.url, timeout) as client:
        try:
            ready = server.wait_until_ready(client, timeout)
            if trial.nodes:
                ready = wait_for_nodes(server, client, trial.nodes, timeout)
            asking = trial.asking(read_strategy(client)["route"], samples.first)
            send = _Sender(trial, asking, client, server.pid, samples, tick)
            start = _measure_start(send, server, ready)
            return _measure_end(send, server, start, _measure_steady(send, server))
        except httpx.TimeoutException as error:
            raise TrialFailed(
                f"no answer within {duration(timeout)}; increase 'timeout', or check the loader."
            ) from error
        except httpx.HTTPError as error:
            server.check(SETTLE_SECONDS)  # connections break a moment before the process has ended
            raise TrialFailed(f"the connection broke ({error}); the server's log: {server.failure_reason()}") from error


class _Start(NamedTuple):
    """Measurements until the first answer."""

    ready_s: float
    first_answer_s: float | None
    peak_rss: float | None
    """MiB."""
    loads: int


def _measure_start(send: _Sender, server: ServerProcess, ready: float) -> _Start:
    """Measure the first answer of a server that was ready after `ready` seconds."""
    with send.count_overhead():  # a server probes a checkpoint that it has never loaded before
        wait = wait_until_probed if send.trial.nodes else ServerProcess.wait_until_probed
        wait(server, send.client, send.trial.resolved.experiment.timeout)
    models = iter(send.trial.models)
    answered = send(next(models), 0, first=True)
    first_answer = time.perf_counter() - server.started - send.overhead if answered else None
    for model in models:  # each node of a cluster has a first request, too
        if len(send.samples.by_node) >= send.trial.nodes:
            break
        send(model, 0, first=True)
    peak = memory.peak_rss(server.pid)
    memory.reset_peak(server.pid)
    return _Start(ready, first_answer, peak, read_strategy(send.client)["loads"])


class _Steady(NamedTuple):
    """Measurements of the steady state."""

    began: float
    """By `perf_counter`."""
    seconds: float
    processor_s: float | None
    generator: LoadGenerator | None
    timeline: Timeline


def _measure_steady(send: _Sender, server: ServerProcess) -> _Steady:
    with Timeline(server.pid) as timeline:
        before = memory.cpu_seconds(server.pid)
        driven = _drive(send, server)
        seconds = driven.measured.seconds if driven else _repeat(send)
        after = memory.cpu_seconds(server.pid)
    cpu_seconds = None if before is None or after is None else after - before
    began, measured = driven or (timeline.began, None)
    return _Steady(began, seconds, cpu_seconds, measured, timeline)


def _measure_end(send: _Sender, server: ServerProcess, start: _Start, steady: _Steady) -> TrialEnd:
    """Read memory and loads after the steady state, then measure a few single loads."""
    trial, strategy = send.trial, read_strategy(send.client)
    measured = _measure_memory(server, start.peak_rss, steady.timeline)
    events = read_events(send.client, steady.began, steady.timeline.ended)
    resident = [each["model"] for each in read_strategy(send.client)["resident"]]
    over_time = steady.timeline.since(steady.began)
    nodes = {"nodes": count_by_node(send.client, send.samples.by_node)} if trial.nodes else None
    lacking = send.loads().measure()
    ended = TrialEnd(
        round=trial.number,
        trial=trial.spec.label,
        log=server.failure_reason() if send.samples.failed else None,
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
        events=events,
        steady_loads=strategy["loads"] - start.loads,
        loads_lacking=lacking,
    )
    return ended.model_copy(update=nodes)


def _repeat(send: _Sender) -> float:
    """Send the requests of `repetitions` one after the other. Returns the seconds without overhead."""
    before, began = send.overhead, time.perf_counter()
    send.began = began
    for model_id, text in send.trial.schedule():
        send(model_id, text)
    return time.perf_counter() - began - (send.overhead - before)


def _drive(send: _Sender, server: ServerProcess) -> DriveResult | None:
    """Send the requests of a workload, and return the load generator's result; None without a workload."""
    resolved = send.trial.resolved
    if resolved.traffic is None:
        return None
    # Imported here: without a workload this process must not map libraries whose pages it would share with the server.
    from .generator import Target, check_kept_up, drive

    label, timeout = send.trial.spec.label, resolved.experiment.timeout
    target = Target(server.url, send.asking, timeout, server.check, label, send.trial.headers)
    driven = drive(resolved.traffic, send.trial.number, target, send.samples.append)
    send.tick(driven.measured.sends)  # not during the workload, because drawing the bar would delay sends
    check_kept_up(resolved.traffic, driven.measured)
    return driven


def _measure_memory(server: ServerProcess, start_peak: float | None, timeline: Timeline) -> Memory:
    peak = memory.peak_rss(server.pid)
    if peak is not None:  # the kernel's mark is lost with a child that has ended, such as an engine
        peak = max([peak, *(mib for _, mib in timeline.points)])
    time.sleep(IDLE_SECONDS)
    pss, private = memory.pss_and_private(server.pid)
    rss = memory.rss(server.pid)
    return Memory(idle_pss=pss, idle_private=private, idle_rss=rss, peak_rss=peak, start_peak_rss=start_peak)


class _Sender:
    """Sends requests and appends their samples. `overhead` is the seconds spent on anything but waiting for answers."""

    def __init__(
        self, trial: Trial, asking: Asking, client: httpx.Client, pid: int, samples: Samples, tick: Tick
    ) -> None:
        self.trial = trial
        self.asking = asking
        self.client = client
        self.samples = samples
        self.tick = tick
        self._pid = pid
        self.overhead = 0.0
        self.began = 0.0  # the steady state, by `perf_counter`

    def __call__(self, model_id: str, text: int, *, first: bool = False) -> bool:
        """Send a request, and append its sample. Returns whether it was answered without an error."""
        trial = self.trial
        is_dropped = trial.is_cold and self._make_cold(model_id)
        at = time.perf_counter() - self.began
        ms, reply = self.ask(model_id, text)
        fields: dict[str, Any] = {} if first else {"at": at}
        if trial.is_cold:
            fields["page_cache"] = "cold" if is_dropped else "warm"
            if reply.get("cold") and not is_dropped:
                raise TrialFailed(
                    f"'{model_id}' expired between the check whether it was in memory and the request, so it was"
                    f" loaded from the page cache. Set a 'ttl' that is not close to {SETTLE_SECONDS} s."
                )
        if trial.resolved.experiment.memory_after_each:
            with self.count_overhead():
                time.sleep(SETTLE_SECONDS)
                pss, private = memory.pss_and_private(self._pid)
            fields["memory_mib"] = MemoryAfter(pss=pss, private=private)
        self.samples.append(
            Sample(
                round=trial.number,
                trial=trial.spec.label,
                model=model_id,
                text=text,
                first=first,
                ms=ms,
                **fields,
                **reply,
            )
        )
        self.tick(1)
        return reply["status"] == OK

    def _make_cold(self, model_id: str) -> bool:
        """Drop the checkpoint from the page cache, unless the model is in memory. Returns whether it was dropped."""
        with self.count_overhead():
            time.sleep(SETTLE_SECONDS)
            if model_id in [model["model"] for model in read_strategy(self.client)["resident"]]:
                return False
            drop_files(self.trial.files(model_id))
            return True

    def loads(self) -> LoadMeasurement:
        """The measurement of single loads."""
        trial = self.trial
        return LoadMeasurement(
            round=trial.number,
            trial=trial.spec.label,
            client=self.client,
            pid=self._pid,
            models=list(trial.models),
            files=trial.files,
            append=self.samples.append_load,
            ask=self.ask,
        )

    def ask(self, model_id: str, text: int = 0) -> tuple[float, Reply]:
        """Send a request without a sample. Returns its latency in ms, and the reply."""
        return self.asking.ask(self.client, model_id, text, self.trial.headers(model_id))

    @contextmanager
    def count_overhead(self) -> Iterator[None]:
        """Add the time within this context to `overhead`."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.overhead += time.perf_counter() - began
