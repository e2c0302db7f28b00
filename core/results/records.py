"""The records of a run, one type for each kind of line in samples.jsonl."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, TypeAdapter, model_validator

from .environment import Environment
from .header import RunHeader
from .recorded import PageCache, Recorded

OK = 200  # the status of a request that was answered


class _OfTrial(Recorded):
    """A record of one trial in one round."""

    round: int
    """From 0."""
    trial: str
    """The trial's label."""


class Begin(_OfTrial):
    """An attempt begins. Measurements of an earlier attempt at this trial no longer count."""

    kind: Literal["begin"] = "begin"


class MemoryAfter(Recorded):
    """Memory after one request, in MiB."""

    pss: float | None
    """PSS, in MiB."""
    private: float | None
    """Private memory, in MiB."""


class Arrival(Recorded):
    """When the parts of an answer arrived. Comments that keep a stream's connection alive do not count."""

    first_byte_ms: float
    """The time from when the request was due until the first byte, or the first event of a stream."""
    gap_ms: float | None = None
    """The median time between two parts of a stream; None with fewer than two."""
    longest_gap_ms: float | None = None
    """The longest time between two parts of a stream."""
    tokens: int | None = None
    """The tokens of the answer, if its usage says how many."""
    tokens_per_s: float | None = None
    """Tokens per second: of a stream from its first part on, else without the queue and the load."""


class Sample(_OfTrial):
    """A request, whether it was answered or not."""

    kind: Literal["sample"] = "sample"
    model: str
    """The model id."""
    text: int
    """The index in the experiment's texts."""
    first: bool
    """Whether it is the first request of its server process, which is not part of the steady state."""
    at: float | None = None
    """When it was due, in seconds since the steady state began; None for the first request."""
    lag_ms: float | None = None
    """How much later than that it was sent; None without a workload."""
    ms: float
    """The time from when it was due until the whole answer was received."""
    status: int
    """The HTTP status; 0 if there was no answer."""
    error: str | None = None
    """Why it failed."""
    cold: bool | None = None
    """Whether it waited for a load; None if it failed."""
    label: str | None = None
    """The best label; None if it failed."""
    score: float | None = None
    """The score of the best label."""
    top: list[tuple[str, float]] = Field(default_factory=list)
    """The labels and their scores, the best first."""
    timing: dict[str, float] = Field(default_factory=dict)
    """Milliseconds by part, as the server reports them: `queue`, `load`, `inference`, and `load-…` for phases."""
    page_cache: PageCache | None = None
    """Where a load had to find the checkpoint; None unless the experiment drops it from the page cache."""
    memory_mib: MemoryAfter | None = None
    """Memory after it, in MiB; None unless the experiment asks for it after each request."""
    node: str | None = None
    """The node that answered; None if the server is no cluster."""
    arrival: Arrival | None = None
    """When the parts of the answer arrived; None unless the experiment has `requests`."""
    apart: float | None = None
    """How far the answer is from the run's first one to the same request: above 1 they differ. None for labels, and if
    answers are not compared.
    """

    @model_validator(mode="after")
    def _check_answer(self) -> Self:
        has_answer = self.answer or self.arrival is not None or self.apart is not None
        if self.status == OK and (self.cold is None or not has_answer):
            raise ValueError("an answered request must have 'cold', 'label' and 'score'")
        return self

    @property
    def answer(self) -> list[tuple[str, float]]:
        """The labels and their scores, the best first; empty if it failed."""
        if self.top or self.label is None or self.score is None:
            return self.top
        return [(self.label, self.score)]


class Load(_OfTrial):
    """A single load that was measured after the trial's requests."""

    kind: Literal["load"] = "load"
    model: str
    """The model id."""
    page_cache: PageCache
    """Where it had to find the checkpoint: on disk (`cold`), or in the page cache (`warm`)."""
    ms: float
    """The latency of the request that waited for it."""
    processor_s: float | None
    """The server's CPU time for that request."""
    timing: dict[str, float] = Field(default_factory=dict)
    """As in a sample."""


class LoadGenerator(Recorded):
    """Measurements of the load generator itself."""

    processor_s: float
    """Its CPU time."""
    seconds: float
    """From the start until the last answer."""
    sends: int
    """How many requests it sent."""
    late_share: float
    """The share of the sends, or in a closed loop of the beats, that were late."""
    lag_p99_ms: float
    """The 99th percentile of how late they were."""


class Memory(Recorded):
    """Memory of the server's process tree, in MiB."""

    idle_pss: float | None = None
    """PSS, a second after the last request."""
    idle_private: float | None = None
    """Private memory at the same time."""
    idle_rss: float | None = None
    """Resident memory at the same time."""
    peak_rss: float | None = None
    """The most resident memory in the steady state."""
    start_peak_rss: float | None = None
    """The most resident memory until the first answer."""

    def idle(self, kind: str) -> float | None:
        """Idle memory of that kind: `pss`, `private` or `rss`."""
        return {"pss": self.idle_pss, "private": self.idle_private, "rss": self.idle_rss}[kind]


class UsedModel(Recorded):
    """How a model was loaded most recently, as the server reports it."""

    model: str
    """The model id."""
    loader: str
    """The loader; after a fallback, not the one that the trial names."""
    dtype: str
    """What it was loaded in; empty if the loader does not report it."""
    nbytes: int
    """Bytes of its weights."""


class MemoryOverTime(Recorded):
    """Resident memory in the steady state."""

    at: list[float]
    """Seconds since the steady state began."""
    rss_mib: list[float]
    """Resident memory at each of these times, in MiB."""


class ModelEvent(Recorded):
    """A load or an unload of a model."""

    at: float
    """Seconds since the steady state began."""
    model: str
    """The model id."""
    event: Literal["load", "unload"]
    """What happened to it."""
    reason: str
    """Why, such as `request` or `expired`."""
    seconds: float
    """The duration of the load, or the time that the model was in memory."""


class NodeCounts(Recorded):
    """What one node of a cluster did."""

    node: str
    """Its name."""
    requests: int
    """How many requests it answered, each node's first one included."""
    loads: int
    """Its loads since the start."""
    unloads: int
    """Its unloads since the start."""
    bytes: int
    """Bytes of the models that it had in memory at the end."""
    most_bytes: int | None = None
    """The most bytes of models that it had in memory; None if it does not tell when it loaded and unloaded them."""
    budget_bytes: int | None = None
    """The bytes that its strategy allows; None if there is no such limit."""


class TrialEnd(_OfTrial):
    """A trial finished."""

    kind: Literal["trial"] = "trial"
    log: str | None = None
    """The reason for failed requests in the server's log; None if none failed."""
    ready_s: float
    """The time from exec until the server was ready."""
    first_answer_s: float | None
    """The time from exec until the first answer; None if that request failed."""
    steady_s: float
    """The duration of the steady state."""
    processor_s: float | None
    """The server's CPU time in the steady state."""
    generator: LoadGenerator | None = None
    """What the load generator measured of itself; None without a workload."""
    memory_mib: Memory
    """Memory of the server's process tree, in MiB."""
    resident: list[str] | None = None
    """The model ids in memory at the end; None in older records."""
    loads: int
    """Loads of all models since the start."""
    unloads: int
    """Unloads of all models since the start."""
    unload_s: float | None = None
    """What all unloads took together, in seconds."""
    used: list[UsedModel] = Field(default_factory=list)
    """What the latest load of each model used."""
    least_keep: float | None
    """The shortest timeout of an idle model in seconds; None if models were freed at once, or never."""
    timeline: MemoryOverTime | None = None
    """Resident memory over the steady state."""
    mean_rss: float | None = None
    """The average resident memory over the steady state, in MiB."""
    events: list[ModelEvent] | None = None
    """The latest loads and unloads of the steady state; None in older records."""
    steady_loads: int | None = None
    """Loads in the steady state."""
    loads_lacking: str | None = None
    """Why single loads could not be measured; None if they were, or if the strategy keeps its models."""
    nodes: list[NodeCounts] | None = None
    """What each node did; None if the server is no cluster."""


class Failure(_OfTrial):
    """A trial failed, and could not be measured."""

    kind: Literal["failure"] = "failure"
    reason: str
    """Why, in a sentence."""


class Machine(Recorded):
    """The machine of a round, if rounds ran on several. The records of the round's trials follow."""

    kind: Literal["machine"] = "machine"
    round: int
    """From 0."""
    name: str
    """Its host name."""
    environment: Environment
    """What it is, and what is installed on it."""


class NarrowIntervals(Recorded):
    """Why a run needs no further round: its intervals are as narrow as `precision` asks for."""

    kind: Literal["narrow intervals"] = "narrow intervals"
    rounds: int
    """That every trial finished."""
    precision: float
    """The relative width that was asked for."""
    relative_to: str | None
    """The label of the trial to which p50 is relative; None with a single trial, whose mean latency counts."""
    widths: dict[str, float]
    """The relative width of each interval, by trial label."""


class Stop(Recorded):
    """The run ended before its last planned round."""

    kind: Literal["stop"] = "stop"
    round: int
    """The last round, from 0."""
    reason: NarrowIntervals | str
    """Why: its intervals are narrow enough. In records of an older version, a sentence."""


Measured = Machine | Begin | Sample | Load | TrialEnd | Failure | Stop
"""The records that follow the header."""
Record = RunHeader | Measured
RECORD: TypeAdapter[Record] = TypeAdapter(Annotated[Record, Field(discriminator="kind")])
"""Parses a record, and gives the JSON schema of all of them."""
