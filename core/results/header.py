"""The first record of a run: what the experiment asks for, written before anything is measured."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, JsonValue

from .recorded import PageCache, Recorded

# Earlier versions: 5 has no single loads and no peak of the start; 4 does not say whether models expire; 3 has no CPU
# time; 2 has no attempts, targets or workload; 1 counts mapped pages as private memory.
SCHEMA: Final = 6

Charge = Literal["pss", "private"]
"""Which memory is paid for."""
Billing = Literal["average", "peak", "size"]
"""What is billed: the memory while it is held; the peak, all the time; or the smallest size that holds the peak."""
Lifecycle = Literal["local", "ray", "ray-multiplexed"]
"""What starts the nodes of a cluster: a command on this machine, Ray Serve, or Ray Serve with its own routing."""
Popularity = Literal["uniform"] | dict[Literal["zipf"], float] | dict[Literal["shares"], dict[str, float]]
"""How requests are distributed over the models: `zipf` has an exponent, `shares` the share of each model id."""


class EngineSpec(Recorded):
    """How an engine is started, and what its command names."""

    settings: dict[str, JsonValue]
    """How it is started, as in the experiment: `run` and the other keys that are not the defaults."""
    parallel: int
    """How many requests it answers at a time."""
    files: dict[str, int] = Field(default_factory=dict)
    """The bytes of each model file that its command names and that exists, by path."""


class ModelSpec(Recorded):
    """One of the models."""

    reference: str
    """Where its checkpoint is, or the command of an engine."""
    sha256: str
    """The digest of its checkpoint, or of the settings of an engine."""
    engine: EngineSpec | None = None
    """The engine; None if the model is a checkpoint."""

    @property
    def setting(self) -> JsonValue:
        """The model as settings name it: its reference, or the settings of an engine."""
        return dict(self.engine.settings) if self.engine else self.reference


class ClusterSpec(Recorded):
    """The cluster that a trial's server is."""

    nodes: int
    """How many nodes it has."""
    lifecycle: Lifecycle
    """What starts the nodes."""
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """The other keys of its section that are not the defaults."""


class TrialSpec(Recorded):
    """A trial, as the experiment defines it."""

    label: str
    """Its name in the table."""
    strategy: str
    """The strategy's name."""
    route: str
    """The path of its prediction requests."""
    options: dict[str, JsonValue]
    """The strategy's options, with durations in seconds."""
    loader: str = "transformers"
    """The loader's name."""
    loader_options: dict[str, JsonValue] = Field(default_factory=dict)
    """Of the loader; durations in seconds."""
    dtype: str
    """The dtype that the loader is asked for."""
    weights_mib: float
    """The weights of all models in that dtype, before any is loaded."""
    model_mib: dict[str, float] = Field(default_factory=dict)
    """`weights_mib` by model id."""
    cluster: ClusterSpec | None = None
    """Its nodes; None for a single server."""


class ClosedSpec(Recorded):
    """Clients that wait for their answers."""

    duration: float | None = None
    """Seconds."""
    requests: int | None = None
    """How many there are, if that is what ends it."""
    clients: int
    """How many clients there are."""
    popularity: Popularity | None = None
    """How the requests are distributed over the models; None: uniformly."""


class OpenSpec(Recorded):
    """Requests that arrive at a rate, however long the answers take."""

    duration: float | None = None
    """Seconds."""
    requests: int | None = None
    """How many there are, if that is what ends it."""
    rate: float
    """Requests per second."""
    arrivals: Literal["poisson", "constant"] | dict[Literal["gamma"], float] | None = None
    """`gamma` has the squared coefficient of variation of the gaps."""
    popularity: Popularity | None = None
    """How the requests are distributed over the models."""


class TraceSpec(Recorded):
    """Recorded arrivals."""

    file: str
    """Its path."""
    columns: dict[str, str] | None = None
    """The names of the columns `time` and `model`."""
    unit: str | None = None
    """The unit of times that are numbers."""
    window: list[float] | None = None
    """The part that was replayed: from and to, in seconds since the first arrival."""
    thin: float | None = None
    """The probability that an arrival was kept."""
    speed: float | None = None
    """The number that times were divided by."""
    popularity: Popularity | None = None
    """How the requests are distributed over the models; None if the file names them."""


class WorkloadSpec(Recorded):
    """The traffic: exactly one of these is not None."""

    closed: ClosedSpec | None = None
    """Clients that wait for their answers."""
    open: OpenSpec | None = None
    """Requests that arrive at a rate, however long the answers take."""
    trace: TraceSpec | None = None
    """Recorded arrivals."""


def clients_of(workload: WorkloadSpec | None) -> int:
    """The number of clients that wait for an answer before the next request; 0 if requests come at a rate."""
    if workload is None:  # one request after the other
        return 1
    return workload.closed.clients if workload.closed else 0


class SizeSpec(Recorded):
    """A size of a task or a machine, and the price of an hour of it."""

    memory: int
    """Bytes."""
    cpu: float
    """Cores."""
    hour: float
    """What an hour of it costs."""


class CostSpec(Recorded):
    """The prices of a deployment, in one currency."""

    memory_gib_hour: float
    """For a GiB of memory."""
    cpu_hour: float
    """For one core."""
    latency_hour: float
    """For an hour of a caller's waiting."""
    charge: Charge
    """Which memory is paid for."""
    billing: Billing
    """When it is paid for."""
    sizes: list[SizeSpec] = Field(default_factory=list)
    """The smallest first."""
    trifle: float = 1.0
    """Money a month: smaller differences do not matter."""


class LimitSpec(Recorded):
    """Limits of a server's resources."""

    memory_mib: float
    """Resident memory, including start-up."""


class BatchingSpec(Recorded):
    """How requests that wait for the same model were computed together."""

    max_batch_size: int
    """Texts."""
    max_batch_tokens: int | None = None
    """Tokens, with their padding."""
    max_wait_ms: float | None = None
    """Milliseconds that a request waits for others to arrive."""


class RunHeader(Recorded):
    """The header of a run: all that a report needs besides the measurements."""

    kind: Literal["run"] = "run"
    experiment_sha256: str | None = None
    """The digest of the experiment as it was resolved, and of its texts."""
    schema_version: Literal[6] = Field(alias="schema")
    """The version of this format."""
    experiment: str
    """The experiment's name."""
    question: str
    """The first line of the experiment's file, or empty."""
    started: str
    """The time in UTC, ISO 8601."""
    rounds: int
    """The rounds that were planned."""
    page_cache: PageCache
    """Where loads had to find the checkpoint: on disk (`cold`), or in the page cache (`warm`)."""
    batching: BatchingSpec | Literal["off"] = "off"
    """How requests that wait for the same model were computed together."""
    workload: WorkloadSpec | None = None
    """None: each text is sent to each model, one request after the other."""
    most_labels: int = 1
    """The most labels that an answer has."""
    texts: str | None = None
    """The digest of the texts, or of the requests."""
    slo: dict[str, float] | None
    """Seconds by percentile."""
    precision: float | None
    """The relative width of the intervals at which the run may end."""
    cost: CostSpec | None = None
    """What a deployment pays, in one currency."""
    rate: float | None = None
    """Requests per second to recommend a trial for."""
    limit: LimitSpec | None = None
    """What a server may take."""
    plugins: list[str] = Field(default_factory=list)
    """Modules, or paths of `.py` files."""
    models: Annotated[dict[str, ModelSpec], Field(min_length=1)]
    """By model id."""
    trials: Annotated[list[TrialSpec], Field(min_length=1)]
    """In the order of the experiment."""

    @property
    def clients(self) -> int:
        """The number of clients that wait for an answer before the next request; 0 if requests come at a rate."""
        return clients_of(self.workload)

    @property
    def states_a_rate(self) -> bool:
        """Whether the traffic has its own request rate; in a closed loop the answers determine it."""
        return self.clients == 0

    @property
    def max_batch(self) -> int:
        """The most texts that are computed together."""
        return 1 if isinstance(self.batching, str) else self.batching.max_batch_size

    @property
    def batching_key(self) -> dict[str, JsonValue] | str:
        """The `batching` section as written to settings."""
        return self.batching if isinstance(self.batching, str) else self.batching.model_dump(exclude_none=True)
