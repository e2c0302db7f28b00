"""summary.json: all figures of a run, made from its records alone."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from .card import Card
from .comparisons import Comparison
from .economics import Economics, Floor
from .figures import TrialFigures
from .header import CostSpec, LimitSpec, WorkloadSpec
from .recorded import PageCache, Recorded
from .records import NarrowIntervals
from .warnings import Disagreement, RunWarning


class Stopped(Recorded):
    """Why the run ended before its cap."""

    round: int
    """The last one, from 0."""
    reason: NarrowIntervals | str
    """A sentence in a run of an older version."""


class Failed(Recorded):
    """A round that did not finish."""

    trial: str
    round: int
    """From 0."""
    reason: str


class Measurements(Recorded):
    """What a run measured, in figures. Rounds that did not finish are counted, not averaged."""

    schema_version: Literal[7] = Field(default=7, alias="schema")
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
    warnings: list[RunWarning]
    failures: list[Failed]
    disagreements: list[Disagreement]
    """The first of each trial."""


class Summary(Measurements):
    """A run in figures, with what it costs and what to use."""

    economics: Economics | None
    card: Card

    @staticmethod
    def of(measured: Measurements, economics: Economics | None, card: Card) -> Summary:
        """These parts together."""
        return Summary.model_construct(**dict(measured), economics=economics, card=card)
