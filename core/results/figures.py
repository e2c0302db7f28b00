"""What a summary says of each trial: figures of a typical server process."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from .header import ClusterSpec, ModelSpec
from .recorded import Recorded

Interval = tuple[float, float]
"""The 95 % interval of a median over rounds: its lower and its upper bound."""
TargetVerdict = Literal["met", "missed", "not settled"]


class TooFew(Recorded):
    """Why a figure is None."""

    kind: Literal["too few"] = "too few"
    unit: Literal["rounds", "requests"]
    needed: int
    found: int


class Latency(Recorded):
    """A distribution of latencies, in milliseconds: the median over rounds of each process's own figure."""

    mean: float | None
    mean_ci95: Interval | None
    p50: float | None
    p95: float | None
    p99: float | None
    null_because: dict[str, TooFew]
    """Why figures are None, by their names."""


class Part(Recorded):
    """The warm requests, or the cold ones."""

    count: int
    share: float | None
    """Of the answered requests; None if there is none."""
    latency_ms: Latency


class ColdPart(Part):
    """The requests that waited for a load."""

    phases_ms: dict[str, float | None]
    """The median of each part of their Server-Timing, and of the whole answer (`answer`)."""


class ArrivalFigures(Recorded):
    """When the parts of answers arrived. Times are medians over the requests of a typical process."""

    warm_first_byte_ms: float | None
    """Until the first byte, of requests that waited for no load."""
    cold_first_byte_ms: float | None
    """The same for requests that waited for a load."""
    gap_ms: float | None
    """Between two parts of a stream: the median of the streams' own medians; None without streams."""
    longest_gap_ms: float | None
    """The longest time between two parts of a stream in any round; None without streams."""
    tokens_per_s: float | None
    """Tokens per second of one answer; None if usage does not tell them."""


class GeneratorFigures(Recorded):
    """The load generator's worst figures of a round."""

    cores: float
    lag_p99_ms: float
    """The p99 of how much later than due a request was sent."""
    late_share: float
    """Of the sends."""


class Target(Recorded):
    """A target of `slo`, and whether the trial meets it."""

    percentile: str
    """Such as `p99`."""
    target_ms: float
    goodput_rps: float | None
    """Answers within the target, per second."""
    share_within: float | None
    """Of the steady requests; None without any."""
    share_ci95: Interval | None
    rounds: int
    verdict: TargetVerdict | None
    """None below 5 rounds, or if some process has no request."""
    further_rounds: int | None
    """Missing for a verdict, or for "met" if further rounds are alike."""
    processes_met: int
    """How many of the rounds met it."""
    processes_least: float | None
    """The least share of all such processes that meets it, if every round did."""


class MemoryFigures(Recorded):
    """Memory of the process tree in MiB; None if the system does not report it."""

    idle_pss: float | None
    idle_private: float | None
    peak_rss: float | None
    """The most in the steady state."""
    start_peak_rss: float | None
    """The most until the server was ready."""


class MemoryReturn(Recorded):
    """Whether memory comes back after many loads and unloads."""

    cycles: int
    weights_mib: float
    returned_share: float
    """Of the weights."""
    slope_mib_per_cycle: float
    slope_ci95: Interval | None
    leaks: bool


class OverLimit(Recorded):
    """A trial held more memory than the limit."""

    kind: Literal["over limit"] = "over limit"
    held_mib: float
    """The most resident memory, start-up included."""
    limit_mib: float


class NodeFigures(Recorded):
    """One node of a cluster, over all rounds."""

    node: str
    """Its name."""
    requests: int
    """How many requests it answered."""
    share: float | None
    """Of the requests that all nodes answered."""
    loads: int
    """Its loads."""
    end_mib: float
    """The weights that a typical round left in its memory, in MiB."""
    most_mib: float | None
    """The most weights in its memory at any time, in MiB; None if the node does not tell."""
    budget_mib: float | None
    """The weights that its strategy allows, in MiB; None without such a limit."""
    most_of_budget: float | None
    """`most_mib` as a share of `budget_mib`, of the round in which it was highest."""


class TrialFigures(Recorded):
    """A trial, over the rounds that it finished."""

    label: str
    """Its name in the table."""
    strategy: str
    """The strategy's name."""
    options: dict[str, JsonValue]
    """The strategy's options, with durations in seconds."""
    loader: str
    """The loader that the experiment names."""
    loader_options: dict[str, JsonValue]
    """The loader's options."""
    dtype: str
    """The dtype in which its servers computed."""
    used_loaders: list[str]
    """The loaders that its servers really used."""
    rounds: int
    """How many rounds it finished."""
    requests: int
    """How many requests these rounds have, without each process's first one."""
    errors: int
    """How many requests failed."""
    error: str | None
    """The most frequent error."""
    log: str | None
    """The last line of the server's log, of the latest round that has one."""
    ready_s: float | None
    """The time from exec until the server was ready."""
    first_answer_s: float | None
    """The time from exec until the first answer."""
    first_request_ms: float | None
    """The latency of each process's first request."""
    latency_ms: Latency
    """The latency of the steady state."""
    warm: Part
    """The requests that waited for no load."""
    cold: ColdPart
    """The requests that waited for a load, and where their time went."""
    throughput_rps: float | None
    """Answers per second."""
    generator: GeneratorFigures | None
    """How much CPU the load generator took, and how late it was; None without a workload."""
    slo: list[Target]
    """Each target, and whether the trial meets it."""
    memory_mib: MemoryFigures
    """Memory of the server's process tree."""
    over_limit: OverLimit | None
    """None if it held no more memory than the limit, or if that is unknown."""
    loads: int
    """Loads of all models, in all rounds."""
    loads_per_request: float | None
    """Loads in the steady state for each of its requests."""
    weights_mib: float
    """The weights of all models."""
    memory_return: MemoryReturn | None
    """Whether the memory of a freed model comes back; None if that was not measured."""
    models: Annotated[dict[str, ModelSpec], Field(min_length=1)]
    """Where each checkpoint is, and its digest, by model id."""
    cluster: ClusterSpec | None
    """Its nodes; None for a single server."""
    nodes: list[NodeFigures] | None
    """What each node did; None for a single server."""
    labels_agree: bool
    """Whether its answers agree with those of the other trials."""
    arrival: ArrivalFigures | None = None
    """When the parts of its answers arrived; None unless the experiment has `requests`."""
