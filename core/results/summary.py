"""summary.json: all figures of a run, made from its records alone."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from .card import Card
from .comparisons import Comparison
from .economics import Economics, Floor
from .figures import TrialFigures
from .header import CostSpec, LimitSpec, WorkloadSpec
from .recorded import PageCache, Recorded
from .records import NarrowIntervals
from .warnings import AnyDisagreement, RunWarning


class Stopped(Recorded):
    """Why the run ended before its cap."""

    round: int
    """The last one, from 0."""
    reason: NarrowIntervals | str
    """A sentence in a run of an older version."""


class Failed(Recorded):
    """A round that did not finish."""

    trial: str
    """The trial's label."""
    round: int
    """From 0."""
    reason: str
    """Why, in a sentence."""


class MachineRounds(Recorded):
    """A machine that rounds ran on."""

    name: str
    """Its host name."""
    processor: str | None
    """The model of its processor."""
    cores: int | None
    """The cores that the servers could use."""
    memory_mib: int | None
    """Its memory."""
    commit: str | None
    """The commit of its checkout; None for an installation."""
    rounds: list[int]
    """Each from 0."""


class Measurements(Recorded):
    """What a run measured, in figures. Rounds that did not finish are counted, not averaged."""

    schema_version: Literal[7] = Field(default=7, alias="schema")
    """The version of this format."""
    experiment: str
    """The experiment's name."""
    question: str
    """The first line of the experiment's file, or empty."""
    started: str
    """The time in UTC, ISO 8601."""
    rounds_planned: int
    """How many rounds the experiment asks for."""
    rounds_due: int
    """How many rounds each trial should have finished; fewer if the run stopped early."""
    stopped: Stopped | None
    """Why the run stopped early; None if it did not."""
    page_cache: PageCache
    """Where loads found the checkpoint: on disk (`cold`), or in the page cache (`warm`)."""
    batching: dict[str, JsonValue] | str
    """The experiment's `batching`, or `off`."""
    workload: WorkloadSpec | None
    """The traffic; None: each text was sent to each model, one request after the other."""
    slo: dict[str, float] | None
    """The targets of latency: seconds by percentile."""
    precision: float | None
    """The relative width of the intervals at which the run may stop."""
    cost: CostSpec | None
    """What a deployment pays."""
    rate: float | None
    """Requests per second for which the card answers."""
    limit: LimitSpec | None
    """What a server may take."""
    floor: Floor | None
    """The least memory of a server without a model; None if every server held one."""
    widths: dict[str, float] | None
    """The relative widths of the intervals that `precision` limits, by trial label."""
    machines: list[MachineRounds]
    """The machines that the rounds ran on; empty if that is the one on which the run was started."""
    trials: list[TrialFigures]
    """The figures of each trial."""
    comparisons: list[Comparison]
    """Each pair of trials."""
    warnings: list[RunWarning]
    """What casts doubt on a trial: its `kind`, the `trial`, and the figures that it is about."""
    failures: list[Failed]
    """The rounds that did not finish."""
    disagreements: list[Annotated[AnyDisagreement, Field(discriminator="kind")]]
    """The first answer of each trial that differs from that of another one."""


class Summary(Measurements):
    """A run in figures, with what it costs and what to use."""

    economics: Economics | None
    """The costs; None if nothing can be priced."""
    card: Card
    """The recommendation."""

    @staticmethod
    def of(measured: Measurements, economics: Economics | None, card: Card) -> Summary:
        """These parts together."""
        return Summary.model_construct(**dict(measured), economics=economics, card=card)
