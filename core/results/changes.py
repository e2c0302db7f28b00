"""What changed from an old run to a new one: one type for each kind of sentence."""

from __future__ import annotations

from typing import Literal

from pydantic import JsonValue

from .figures import Interval
from .recorded import Recorded

Which = Literal["old", "new"]
"""Of the two runs."""
ChangedStatistic = Literal["p50", "p99", "throughput", "idle_private"]
Outcome = Literal["regression", "worse", "better", "not separable"]


class _OfTrial(Recorded):
    trial: str
    """The label of the trial that it is about."""


class InOneRunOnly(_OfTrial):
    """Only one of the runs has the trial."""

    kind: Literal["in one run only"] = "in one run only"
    run: Which


class DtypeDiffers(_OfTrial):
    """The trial cannot be compared, because its dtype is not the same."""

    kind: Literal["dtype differs"] = "dtype differs"
    old: str
    new: str


class SetupDiffers(_OfTrial):
    """The trial cannot be compared, because something else is not the same."""

    kind: Literal["setup differs"] = "setup differs"
    what: Literal["checkpoints", "workload", "texts", "page_cache", "cluster"]


class LoadedBy(Recorded):
    """Who loaded the models of a trial."""

    loaders: list[str]
    """That its servers used."""
    options: dict[str, JsonValue]
    """That were asked for."""


class LoaderDiffers(_OfTrial):
    """Another loader, or another option, loaded the trial's models; it is compared all the same."""

    kind: Literal["loader differs"] = "loader differs"
    old: LoadedBy
    new: LoadedBy


class NoRoundFinished(_OfTrial):
    """The trial cannot be compared, because one run finished no round of it."""

    kind: Literal["no round finished"] = "no round finished"
    run: Which


class _Figures(_OfTrial):
    """A statistic of a trial in both runs: of a typical process."""

    statistic: ChangedStatistic
    old: float
    new: float


class Changed(_Figures):
    """A statistic, judged."""

    kind: Literal["changed"] = "changed"
    relative_to: str | None
    """The label of the reference; None for what needs none."""
    change_ci95: Interval
    """Of the change, as a fraction."""
    tolerance: float
    """The smallest change, as a fraction, that is a regression."""
    outcome: Outcome


class BaselineChanged(_Figures):
    """A statistic of the trial that the others are compared with: not judged."""

    kind: Literal["baseline changed"] = "baseline changed"


class ChangeNotJudged(_Figures):
    """A statistic of too few rounds."""

    kind: Literal["change not judged"] = "change not judged"
    run: Which
    """The run with the fewest."""
    rounds: int


class SeparateVerdicts(Recorded):
    """Several verdicts, each of which may be wrong by itself."""

    kind: Literal["separate verdicts"] = "separate verdicts"
    verdicts: int


Finding = (
    InOneRunOnly
    | DtypeDiffers
    | SetupDiffers
    | LoaderDiffers
    | NoRoundFinished
    | Changed
    | BaselineChanged
    | ChangeNotJudged
    | SeparateVerdicts
)
