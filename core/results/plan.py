"""plan.json: what every setting of a plan costs under its traffic, and which one to use."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, JsonValue

from .economics import PricesUsed, SizePrice
from .flips import LatencyFlip, MemoryPriceFlip
from .header import WorkloadSpec
from .plan_findings import AnswerFinding, Minimum, NoteFinding, TargetShare
from .plan_models import ModelsFinding, TheoryOverModels, Timeout, Trade
from .plan_nodes import NodesFigures, NodesSpec
from .recorded import Recorded

PLAN_SCHEMA: Final = 9  # 9: nodes; 6: sentences in place of findings


class CostParts(Recorded):
    """The cost of a whole workload, in the currency of the prices."""

    holding: float
    """Of the server and its models."""
    processor: float
    waiting: float
    """Of callers."""
    total: float


class OutcomeFigures(Recorded):
    """The result of one setting under one workload."""

    cold_share: float
    loads: int
    mean_ms: float
    p50_ms: float | None
    p99_ms: float | None
    mean_mib: float
    """Charged memory of the server and its models, over time."""
    peak_mib: float
    """The most of it."""
    gib_hours: float
    """That are paid for."""
    busy: float
    """Share of the time that the busiest part of the server was at work."""
    capacity_exceeded: bool
    cost: CostParts
    cost_per_hour: float
    cost_per_million: float
    """For a million requests."""


class SettingSpec(Recorded):
    """A strategy and a loader with their options."""

    label: str
    """The setting, and the loader if the plan has several."""
    strategy: str
    route: str
    """The path of its prediction requests."""
    options: dict[str, JsonValue]
    """As the plan's YAML has them."""
    loader: str
    loader_options: dict[str, JsonValue]


class SettingFigures(OutcomeFigures, SettingSpec):
    """A setting, simulated. Of several nodes, memory and money are those of all of them."""

    cores: float
    """That its loads and requests take on average; of several nodes, those of the busiest one."""
    size: SizePrice | None
    """The one that is billed for each node; None where memory is billed."""
    nodes: NodesFigures | None = None
    """Of several nodes."""
    regret: float | None
    """Its cost to the clairvoyant minimum; None if there is no such minimum."""
    most_mib: float | None
    """The most resident memory of a server, start-up included; None if that was not measured."""
    targets: list[TargetShare]
    decides_per_hour: list[float]
    """Avoidable cost an hour: under the plan's seed, and near the cheapest setting under further seeds."""
    first_half: float
    """Avoidable cost an hour in the first half of the requests."""
    second_half: float


class ChoiceReasons(Recorded):
    """Why a setting was chosen, by labels; money is of a month."""

    cheapest: str
    same: list[str]
    """Those that cost as much as the cheapest."""
    trifling: dict[str, float]
    """Others that cost so little more that it is ignored."""
    by_latency: bool
    """Whether the chosen setting is faster than some of these; else it is the simplest."""
    simplest: str
    runner_up: str | None
    """The best setting that is no tie with the chosen one."""
    saves: dict[str, float]
    """What the chosen setting saves against the simplest one and the runner-up."""


class Hindsight(Recorded):
    """What the best setting of the first half of the requests costs in the second half; money is of an hour."""

    kind: Literal["hindsight"] = "hindsight"
    by_first: str
    """The best setting of the first half."""
    cost: float
    """Of `by_first` in the second half."""
    best: str
    """The best setting of the second half."""
    best_cost: float
    timeouts_cost: float | None
    """Of the second half under the timeout for each model that is the best there; None if that is not known."""
    ratio: float | None
    """Of `cost` to the lower one of the other two; None if that is 0."""
    target: float
    """The most that `ratio` should be."""


class ModelTheory(Recorded):
    """What the theory of keep-alive says of one model under one loader."""

    kind: Literal["theory"] = "theory"
    loader: str
    model: str
    mib: float
    """Charged memory."""
    holding_per_hour: float
    cold_start: float
    """The cost of one."""
    cold_start_ms: float
    """How much longer its caller waits."""
    break_even_per_hour: float | None
    """Requests above which keeping the model pays; None if loading costs nothing."""
    timeout_s: Timeout
    """k/m: it costs at most twice the clairvoyant minimum."""
    weights_mib: float
    served_timeout_s: Timeout
    """k/m as a server computes it from what it knows of itself."""
    is_served_otherwise: bool
    """Whether both differ by more than the simulator's error."""
    gaps: int
    """Between the requests for this model."""
    best_timeout_s: Timeout | None
    """On these gaps; None without any request."""
    expected_timeout_s: Timeout | None
    """The best one for arrivals of this kind and rate; None for a trace, or if several models share them."""


class LoadsInRoom(Recorded):
    """Loads if so many models fit and no two requests overlap."""

    capacity: int
    lru_loads: int
    """If the least recently used model is evicted."""
    belady_loads: int
    """The fewest possible."""


class FewestLoads(Recorded):
    """The fewest loads for each number of models to which a setting limits itself."""

    kind: Literal["fewest loads"] = "fewest loads"
    optimum: bool
    """Whether these cost the least, because all cold starts cost the same."""
    rooms: list[LoadsInRoom]
    """One or more."""


class MoneyInRoom(Recorded):
    """The cost of all cold starts within a limit of models, or of bytes, if no two requests overlap."""

    capacity: int | None
    memory_budget: int | None
    """Bytes."""
    lru_cost: float
    """If the least recently used model is evicted."""
    least_cost: float
    """A lower bound, whatever is evicted."""


class LeastColdStarts(Recorded):
    """How little cold starts could cost within each limit of memory that a setting has."""

    kind: Literal["least cold starts"] = "least cold starts"
    loader: str
    """With its options."""
    rooms: list[MoneyInRoom]
    """One or more."""


class PlanNote(Recorded):
    """What is assumed of a loader, or left out under it."""

    loader: str
    """With its options."""
    finding: NoteFinding


class ComparedFigures(Recorded):
    """What is compared between a measurement and its simulation."""

    cold_share: float
    mean_ms: float
    cost_per_hour: float | None
    """Of loads, of models in memory and of waiting, or of the size that is billed; None if the server did not report
    every load and unload.
    """


class SimulationError(Recorded):
    """The errors of a simulation relative to what was measured; None if that is 0 or not known."""

    cold_share: float | None
    mean_ms: float | None
    cost_per_hour: float | None


class ConfirmedSetting(Recorded):
    """A setting, measured, and simulated for the same arrivals: the medians over rounds."""

    kind: Literal["confirmed"] = "confirmed"
    label: str
    rounds: int
    """Finished."""
    measured: ComparedFigures
    simulated: ComparedFigures
    error: SimulationError
    target: float
    """The most that an error should be."""


class Confirmed(Recorded):
    """The best two settings, measured."""

    requests: int | None
    """In a round; None if that depends on the answers."""
    trials: list[ConfirmedSetting]
    """Those that were finished."""


class Plan(Recorded):
    """A plan in figures."""

    schema_version: Literal[9] = Field(default=PLAN_SCHEMA, alias="schema")
    """The version of this format."""
    plan: str
    """The name of the plan."""
    profile: str
    """The folder of the run that it is based on."""
    workload: WorkloadSpec
    """The traffic, as the plan states it."""
    traffic: str
    """The traffic in words."""
    on_its_own_clock: bool
    """Whether the arrivals keep their original gaps."""
    requests: int
    """How many requests there are."""
    seconds: float
    """From the first to the last request."""
    models: int
    """How many models there are."""
    nodes: NodesSpec | None
    """How many nodes there are, if there are several."""
    prices: PricesUsed
    """The prices that the costs are made of."""
    limit_mib: float | None
    """The limit of resident memory."""
    floor_mib: float | None
    """Resident memory of the smallest server that holds no model, between requests."""
    too_large: dict[str, float]
    """The most memory of the settings that exceed the limit, by label."""
    trifle: float
    """What is ignored if a setting saves no more in a month."""
    slo: dict[str, float]
    """The latency targets: seconds by percentile."""
    settings: list[SettingFigures]
    """Every setting under every loader, simulated."""
    recommended: str | None
    """The label of the setting to use; None if there is none."""
    runner_up: str | None
    """The label of the next best setting."""
    choice: ChoiceReasons | None
    """Why it is recommended."""
    answer: list[AnswerFinding]
    """What to use, and what is left out."""
    flips: list[Annotated[MemoryPriceFlip | LatencyFlip, Field(discriminator="kind")]]
    """The price of memory and the latency target at which another setting is the better one."""
    trade: Trade | None
    """What the recommended setting saves by more cold starts."""
    over_models: list[ModelsFinding]
    """Of several models: which cost the most, which to pin and to drop, and how much memory pays off."""
    yaml: str | None
    """The settings to serve it with; None if there is nothing to serve."""
    hindsight: Hindsight | None
    """How well a choice by the first half of the requests does in the second half."""
    theory: list[ModelTheory]
    """When keeping each model pays, where memory is paid for while it is held."""
    theory_over_models: list[TheoryOverModels]
    """The same in quantiles, for each loader with more than five models that differ."""
    minimum: Minimum | None
    """How far the recommended setting is from the least possible cost."""
    eviction: list[Annotated[FewestLoads | LeastColdStarts, Field(discriminator="kind")]]
    """The fewest loads, and the least cost of cold starts, within the limits of memory that settings have."""
    notes: list[PlanNote]
    """What is assumed, and which settings are left out."""
    confirmed: Confirmed | None
    """What `--confirm` found."""

    @property
    def chosen(self) -> SettingFigures | None:
        """The recommended setting."""
        return next((each for each in self.settings if each.label == self.recommended), None)
