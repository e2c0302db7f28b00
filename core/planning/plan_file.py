"""A plan's YAML, strict: which run it is based on, under which traffic and prices, over which settings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Discriminator, Field, JsonValue, Tag

from ..bench.experiment import Limit, Percentile
from ..bench.traffic import Traffic, resolve_traffic
from ..bench.workload import Workload
from ..config.choices import STRICT, Cost, Duration, ModelId
from ..config.file_kinds import check_kind
from ..config.strict_yaml import Document, read
from ..costs.prices import Prices
from ..errors import FileError, ResidencyError, ResultsError
from ..plugins import load_plugins
from ..results.folder import read_records
from ..results.header import CostSpec
from ..stats.rounds import Run, arrange
from ..system.files import resolve_path
from .arrivals import Arrivals, arrivals_of
from .catalogue import MOST_MODELS, TraceModels, of_sizes, sizes_of
from .grid import grid_of
from .nodes import PlanNodes
from .profile import Profile, profiles
from .setting import Setting

MINUTE = 60.0
MIB = 1 << 20


Values = dict[str, list[JsonValue]]


def _check_models(value: Any) -> Any:
    if isinstance(value, int | dict | TraceModels) and not isinstance(value, bool):
        return value
    raise ValueError("must be a number of models, or a mapping such as {trace: true, sizes: sizes.csv}")


Models = Annotated[
    Annotated[int, Field(ge=1, le=MOST_MODELS), Tag("number")] | Annotated[TraceModels, Tag("models of the trace")],
    Discriminator(lambda value: "models of the trace" if isinstance(value, dict | TraceModels) else "number"),
    BeforeValidator(_check_models),
]


class ConfirmChoice(BaseModel):
    """How `--confirm` measures."""

    model_config = STRICT

    window: Annotated[Duration, Field(gt=0)] = 10 * MINUTE
    """How much of the traffic's beginning is measured."""
    repeats: Annotated[int, Field(ge=1, le=1000)] = 1
    """Rounds."""


class PlanFile(BaseModel):
    """The keys of a plan's YAML file. The docstrings are the reference in docs/planning.md."""

    model_config = STRICT

    name: ModelId
    """The name of the plan, and of its folder under `results`."""
    profile: Annotated[str, Field(min_length=1)]
    """The folder of a run. One of its strategies must load for each request."""
    workload: Workload
    """An `open` or `trace` workload."""
    models: Models | None = None
    """`models: 1000` plans for so many models like the run's first one, `{trace: true, sizes: sizes.csv}` for those
    that the trace names. Without it, the plan uses the run's own.
    """
    nodes: PlanNodes | None = None
    """`nodes: 2` plans for so many servers; `{count: 100, routing: homes, copies: {max: 8, busy: 35%}, queue: 6,
    placement: hash}` says how requests are spread over them.
    """
    cost: Cost | None = None
    """Prices. The run's, if left out."""
    limit: Limit | None = None
    """`{memory: 300MiB}`, as in an experiment: leaves out settings that hold more."""
    slo: dict[Percentile, Annotated[Duration, Field(gt=0)]] | None = None
    """Latency targets. The run's, if left out."""
    grid: dict[str, Values | list[Values] | None] = {}
    """The settings to simulate: for each strategy, values of its options. null leaves a strategy out. A strategy that
    is not named has a grid of its own.
    """
    plugins: list[str] = []
    """Strategies of plugins. Those of the run are included."""
    seed: Annotated[int, Field(ge=0)] = 0
    """The seed of all draws."""
    confirm: ConfirmChoice = ConfirmChoice()
    """How `--confirm` measures: `{window: 10min, repeats: 1}`."""


@dataclass(frozen=True)
class PlanInputs:
    """Everything that a plan is made from: its file, and what that names, read."""

    file: PlanFile
    path: Path
    """Of the plan."""
    folder: Path
    """Of the run."""
    run: Run
    profiles: list[Profile]
    traffic: Traffic
    prices: Prices
    trifle: float
    """Money a month; smaller savings are ignored."""
    settings: list[Setting]
    """All of the grid."""
    plugins: list[str]
    """The run's, and the plan's own."""

    @cached_property
    def arrivals(self) -> Arrivals:
        """The arrivals of the first round."""
        return self.arrivals_of_round(0)

    def arrivals_of_round(self, number: int) -> Arrivals:
        """The arrivals of that round, from the first request on."""
        return arrivals_of(self.traffic, number).from_the_first()

    @property
    def max_batch(self) -> int:
        """The most texts that are computed together."""
        return self.run.header.max_batch

    @property
    def slo(self) -> dict[str, float]:
        """Seconds by percentile; those of the run if the plan has none."""
        return self.file.slo or self.run.header.slo or {}

    @property
    def limit_mib(self) -> float | None:
        """Of resident memory: the plan's limit, or the largest size that is billed."""
        limits = [self.file.limit.memory / MIB] if self.file.limit else []
        if self.prices.billing == "size":
            limits.append(self.prices.sizes[-1].memory_mib)
        return min(limits, default=None)

    @property
    def nodes(self) -> PlanNodes | None:
        """The nodes, if there are several."""
        nodes = self.file.nodes
        return nodes if nodes is not None and nodes.count > 1 else None

    @property
    def on_its_own_clock(self) -> bool:
        """Whether the arrivals keep their original gaps."""
        trace = self.traffic.workload.trace
        return trace is None or trace.speed == 1


def load_plan(path: Path) -> PlanInputs:
    """Raises ResidencyError, whose sentence names file, line, column and key."""
    document = read(path)
    check_kind(document, "plan")
    file = document.validate(PlanFile)
    if file.workload.closed:
        raise document.error(
            ("workload", "closed"), "has no arrivals to plan for, since clients wait; use 'open' or 'trace'."
        )
    beside = path.resolve().parent
    try:
        folder = resolve_path(file.profile, beside)
        run = arrange(read_records(folder))
        cost = _cost(file, run)
        prices = Prices.of(cost)
        found = profiles(run, prices)
    except ResidencyError as error:
        raise document.error(("profile",), str(error)) from error
    if isinstance(file.models, TraceModels):
        traffic = _traffic(document, file, None, beside)
        found = _of_the_trace(document, file, file.models, found, traffic, beside)
    else:
        found = [profile.of_many(file.models) for profile in found] if file.models else found
        traffic = _traffic(document, file, list(found[0].models), beside)
    own = [str(resolve_path(name, beside)) if name.endswith(".py") else name for name in file.plugins]
    files = list(dict.fromkeys([*run.header.plugins, *own]))
    try:
        plugins = load_plugins(files)
    except ResidencyError as error:
        raise document.error(("plugins",), str(error)) from error
    grid = grid_of(document, file.grid, plugins)
    inputs = PlanInputs(file, path, folder, run, found, traffic, prices, cost.trifle, grid, files)
    if inputs.limit_mib is not None and any(profile.resident is None for profile in found):
        where = ("limit",) if file.limit else ("cost", "billing") if file.cost else ("profile",)
        raise document.error(
            where, "needs resident memory, which this run did not measure; leave that key out, or measure on Linux."
        )
    if len(inputs.arrivals.at) < 2:
        raise document.error(("workload",), "must have two requests or more: its halves score the choice.")
    return inputs


def _cost(file: PlanFile, run: Run) -> CostSpec:
    """The prices of the plan, else those of the run, else the default ones."""
    if file.cost is None and run.header.cost is not None:
        return run.header.cost
    return CostSpec.model_validate((file.cost or Cost()).model_dump(mode="json"))


def _traffic(document: Document, file: PlanFile, models: list[str] | None, beside: Path) -> Traffic:
    """The traffic to these models, or to those that the trace names. Raises YamlError."""
    trace = file.workload.trace
    if models is None and trace is None:
        raise document.error(("models", "trace"), "needs a 'trace' workload that names models.")
    if models is None and trace is not None and trace.popularity is not None:
        where = ("workload", "trace", "popularity")
        raise document.error(where, "draws models in place of those that the trace names; leave it out, or 'models'.")
    traffic = resolve_traffic(document, file.workload, models, 1, file.seed, beside)
    assert traffic is not None
    return traffic


def _of_the_trace(
    document: Document, file: PlanFile, models: TraceModels, found: list[Profile], traffic: Traffic, beside: Path
) -> list[Profile]:
    """The profiles of the models that the trace names, under each loader. Raises YamlError."""
    if len(traffic.models) > MOST_MODELS:
        sentence = f"names {len(traffic.models)} models, more than {MOST_MODELS}; cut out a part with 'window'."
        raise document.error(("workload", "trace", "file"), sentence)
    try:
        sizes = sizes_of(models.sizes, traffic.models, file.seed, beside)
    except FileError as error:
        raise document.error(("models", "sizes"), str(error)) from error
    try:
        return [of_sizes(profile, sizes) for profile in found]
    except ResultsError as error:
        raise document.error(("profile",), str(error)) from error
