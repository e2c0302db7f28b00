"""What there is to say of a run, besides its table and its card: one type for each kind of sentence."""

from __future__ import annotations

from typing import Literal

from .comparisons import Statistic, StatisticName
from .figures import MemoryReturn, Target
from .recorded import Recorded
from .records import NarrowIntervals
from .summary import Failed, MachineRounds
from .warnings import ApartAnswer, Disagreement, RunWarning


class _OfTrial(Recorded):
    trial: str
    """The label of the trial that it is about."""


class RequestsFailed(_OfTrial):
    """Requests were answered with an error."""

    kind: Literal["requests failed"] = "requests failed"
    errors: int
    error: str | None
    """The most frequent one."""
    log: str | None
    """The last line of the server's log that tells of it."""


class RoundsUnfinished(_OfTrial):
    """Rounds that did not run to the end, and did not fail."""

    kind: Literal["rounds unfinished"] = "rounds unfinished"
    rounds: int
    due: int
    """How many the trial should have finished."""


class LoadingAdds(Recorded):
    """What loading a model for every request adds to keeping it, under one loader."""

    kind: Literal["loading adds"] = "loading adds"
    loader: str
    dtype: str
    kept_ms: float
    """The p50 with the model kept in memory."""
    loaded_ms: float
    """The p50 if it is loaded for every request."""
    private_mib: float | None
    """The private memory that keeping it takes; None if that is not known."""
    weights_mib: float


class ComparedFigure(Recorded):
    """A statistic of one of two trials."""

    value: float
    cold_share: float | None
    """The share of cold requests, if a latency mixes them with warm ones."""


class Compared(_OfTrial):
    """A statistic of a trial and of an earlier one of the file."""

    against: str
    """The label of the earlier one."""
    name: StatisticName
    ours: ComparedFigure
    theirs: ComparedFigure
    statistic: Statistic


class MeasuredOnly(Recorded):
    """There are too few rounds for a verdict."""

    kind: Literal["measured only"] = "measured only"
    compared: Compared


class SameMemory(Recorded):
    """Both trials hold the same memory, to within 1 MiB."""

    kind: Literal["same memory"] = "same memory"
    compared: Compared


class Separable(Recorded):
    """The rounds show which trial's statistic is higher."""

    kind: Literal["separable"] = "separable"
    compared: Compared


class NotSeparable(Recorded):
    """The rounds do not show which trial's statistic is higher."""

    kind: Literal["not separable"] = "not separable"
    compared: Compared
    is_separable_alone: bool
    """Whether they would show it, if it were the only verdict."""


class MemoryUnknown(_OfTrial):
    """The system does not report memory."""

    kind: Literal["memory unknown"] = "memory unknown"


class VerdictRoundsMissing(Recorded):
    """Too few rounds were finished by both trials for verdicts."""

    kind: Literal["verdict rounds missing"] = "verdict rounds missing"
    rounds: int
    """Missing."""


class JointVerdicts(Recorded):
    """How sure several verdicts are."""

    kind: Literal["joint verdicts"] = "joint verdicts"
    verdicts: int


class TargetResult(_OfTrial):
    """How far a trial meets a target."""

    kind: Literal["target result"] = "target result"
    target: Target


class TargetRoundsMissing(Recorded):
    """Too few rounds to judge a target."""

    kind: Literal["target rounds missing"] = "target rounds missing"
    rounds: int
    """Missing."""


class ColdRequestTime(Recorded):
    """Where the time of a request goes that waits for a load."""

    kind: Literal["cold request time"] = "cold request time"
    trial: str | None
    """The label of the trial, if several load for every request."""
    answer_ms: float
    load_ms: float
    phases_ms: dict[str, float]
    """Parts of the load."""
    forward_ms: float


class PartlyCold(_OfTrial):
    """Some of the requests waited for a load."""

    kind: Literal["partly cold"] = "partly cold"
    share: float
    cold_ms: float | None
    """Their p50; None if there are too few."""
    warm_ms: float | None
    """The p50 of the others."""


class SharedByNodes(_OfTrial):
    """How the requests were spread over the nodes of a cluster, and how full these were."""

    kind: Literal["shared by nodes"] = "shared by nodes"
    nodes: int
    busiest: str
    """The node that answered the most requests."""
    share: float
    """Of the requests, that it answered."""
    most_of_budget: float | None
    """The most that a node had in memory, as a share of its budget; None without one, or if that is unknown."""


class MemoryReturned(_OfTrial):
    """How much memory came back over many loads."""

    kind: Literal["memory returned"] = "memory returned"
    measured: MemoryReturn


class MemoryLeaks(_OfTrial):
    """Memory does not come back."""

    kind: Literal["memory leaks"] = "memory leaks"


class LoadedFromDisk(Recorded):
    """Loads read the checkpoint from disk, not from the page cache."""

    kind: Literal["loaded from disk"] = "loaded from disk"


class RanOnMachines(Recorded):
    """Rounds ran on machines of a cluster."""

    kind: Literal["ran on machines"] = "ran on machines"
    machines: list[MachineRounds]
    are_alike: bool
    """Whether all have the same processor, cores, memory and commit."""


class StoppedEarly(Recorded):
    """The run ended before its cap."""

    kind: Literal["stopped early"] = "stopped early"
    rounds_planned: int
    reason: NarrowIntervals | str
    """A sentence in a run of an older version."""


class PrecisionMissed(Recorded):
    """The run reached its cap before the precision that was asked for."""

    kind: Literal["precision missed"] = "precision missed"
    precision: float
    widths: dict[str, float]
    """The intervals that are wider, by trial label."""


RunFinding = (
    Disagreement
    | ApartAnswer
    | Failed
    | RequestsFailed
    | RoundsUnfinished
    | LoadingAdds
    | MeasuredOnly
    | SameMemory
    | Separable
    | NotSeparable
    | MemoryUnknown
    | VerdictRoundsMissing
    | JointVerdicts
    | TargetResult
    | TargetRoundsMissing
    | ColdRequestTime
    | PartlyCold
    | SharedByNodes
    | MemoryReturned
    | MemoryLeaks
    | LoadedFromDisk
    | RanOnMachines
    | StoppedEarly
    | PrecisionMissed
    | RunWarning
)
