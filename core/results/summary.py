"""summary.json: all figures of a run, made from its records alone."""

from __future__ import annotations

from pydantic import Field, JsonValue

from .card import Card
from .comparisons import Comparison
from .economics import Economics, Floor
from .figures import TrialFigures
from .header import CostSpec, LimitSpec, WorkloadSpec
from .recorded import PageCache, Recorded


class Stopped(Recorded):
    """Why the run ended before its cap."""

    round: int
    reason: str


class Doubt(Recorded):
    """A warning about one trial."""

    kind: str
    trial: str
    sentence: str


class Failed(Recorded):
    """A round that did not finish."""

    trial: str
    round: int
    """From 0."""
    reason: str


class Summary(Recorded):
    """A run in figures. Rounds that did not finish are counted, not averaged."""

    schema_version: int = Field(alias="schema")
    experiment: str
    question: str
    started: str
    rounds_planned: int
    rounds_due: int
    """How many rounds each trial should have finished."""
    stopped: Stopped | None
    page_cache: PageCache
    batching: dict[str, JsonValue] | str
    workload: WorkloadSpec | None
    slo: dict[str, float] | None
    """Seconds by percentile."""
    precision: float | None
    cost: CostSpec | None
    rate: float | None
    """Requests per second for which the card answers."""
    limit: LimitSpec | None
    floor: Floor | None
    widths: dict[str, float] | None
    """The relative widths of the intervals that `precision` limits, by trial label."""
    trials: list[TrialFigures]
    comparisons: list[Comparison]
    warnings: list[Doubt]
    failures: list[Failed]
    disagreements: list[str]
    economics: Economics | None
    card: Card
