"""What a plan finds: a type for each kind of sentence, with the figures that it needs.

Settings are named by their labels, and sums of money are in the currency of the prices.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .economics import LoadsLacking, SizePrice
from .figures import Interval
from .header import Billing
from .plan_nodes import OverNodes
from .recorded import PageCache, Recorded

SettingVerdict = Literal["met", "missed", "not known"]


class TargetShare(Recorded):
    """A target of `slo`, and whether a setting meets it, as far as the simulated requests show."""

    percentile: str
    """Such as `p99`."""
    target_ms: float
    share_within: float
    """The share of the requests that are answered within it."""
    share_ci95: Interval
    requests_needed: int
    """For the verdict "met"."""
    verdict: SettingVerdict


class PlanTraffic(Recorded):
    """The requests that a plan is made for."""

    requests: int
    seconds: float
    """From the first to the last one."""
    shown_as: str
    """The workload in words."""
    nodes: int = 1
    """Among which they are spread."""


class SettingCost(Recorded):
    """What a setting costs, in short."""

    label: str
    cost_per_million: float
    mean_ms: float
    p99_ms: float | None
    cold_share: float
    mean_mib: float


# What to use.


class NoSettings(Recorded):
    """The grid has no setting under which every model fits."""

    kind: Literal["no settings"] = "no settings"
    traffic: PlanTraffic


class NoneEligible(Recorded):
    """Each setting exceeds its capacity, misses a target, or is too large."""

    kind: Literal["none eligible"] = "none eligible"
    traffic: PlanTraffic


class Recommended(Recorded):
    """The setting to use."""

    kind: Literal["recommended"] = "recommended"
    traffic: PlanTraffic
    setting: SettingCost


class SizeToPay(Recorded):
    """The size that is billed for the recommended setting."""

    kind: Literal["size to pay"] = "size to pay"
    most_mib: float
    """The most resident memory of the setting."""
    size: SizePrice
    others: list[str]
    """Other settings that are billed for the same size."""
    is_waiting_priced: bool
    nodes: int = 1
    """Each is billed for it."""


class CostTheSame(Recorded):
    """Settings that cost the same."""

    kind: Literal["cost the same"] = "cost the same"
    labels: list[str]
    within: float
    """The share of the avoidable cost that does not count as a difference."""


class TrifleMore(Recorded):
    """Settings that cost more than the cheapest one, by less than is worth deciding."""

    kind: Literal["trifle more"] = "trifle more"
    more: dict[str, float]
    """Money a month, by label."""
    cheapest: str
    trifle: float
    """Money a month: less is ignored."""


class NamedAmongTies(Recorded):
    """Why one of the settings that are a tie is recommended."""

    kind: Literal["named among ties"] = "named among ties"
    label: str
    by_latency: bool
    """Whether its latency is the lowest; else it is the simplest."""
    within: float
    """Latencies that differ by a smaller share are the same."""


class RunnerUp(Recorded):
    """The best setting that is no tie with the recommended one."""

    setting: SettingCost
    saves: float
    """What the recommended setting saves against it a month; negative if it costs more."""
    is_simplest: bool


class SimplestSetting(Recorded):
    """The setting with the fewest options."""

    label: str
    saves: float
    """What the recommended setting saves against it a month; negative if it costs more."""


class Saves(Recorded):
    """What the recommended setting saves in a month."""

    kind: Literal["saves"] = "saves"
    runner_up: RunnerUp | None
    simplest: SimplestSetting | None
    """None if it is the runner-up or the recommended setting."""
    is_simplest: bool
    """Whether the recommended setting is the simplest."""


class CheaperButMissed(Recorded):
    """Settings that cost less than the recommended one and miss a target."""

    kind: Literal["cheaper but missed"] = "cheaper but missed"
    slo: dict[str, float]
    """Seconds by percentile."""
    labels: list[str]


class CheaperButUnknown(Recorded):
    """Settings that cost less than the recommended one, for which a target cannot be judged."""

    kind: Literal["cheaper but unknown"] = "cheaper but unknown"
    slo: dict[str, float]
    """Seconds by percentile."""
    labels: list[str]


class TargetUnknown(Recorded):
    """Whether the recommended setting meets a target is not known."""

    kind: Literal["target unknown"] = "target unknown"
    label: str
    requests: int
    """Of the plan's traffic."""
    target: TargetShare


class CoresLacking(Recorded):
    """Settings that are left out, because their requests need more cores than the largest size has."""

    kind: Literal["cores lacking"] = "cores lacking"
    cores: dict[str, float]
    """On average, by label."""
    largest: float
    """The cores of the largest size."""
    nodes: int = 1
    """If there are several, the cores are those of the busiest one."""


class QueueExceeded(Recorded):
    """Settings under which more requests would wait for a model than a server lets wait."""

    kind: Literal["queue exceeded"] = "queue exceeded"
    labels: list[str]
    most: int
    """Requests that a server lets wait for a model."""


class _Limited(Recorded):
    """The limit of resident memory, and the least that a server takes."""

    limit_mib: float
    is_size: bool
    """Whether the limit is the largest size that is billed."""
    floor_mib: float
    """A server without a model, between requests."""


class WithinLimit(_Limited):
    """Every setting stays below the limit of memory."""

    kind: Literal["within limit"] = "within limit"


class OverLimit(_Limited):
    """Settings that are left out, because a server would exceed the limit of memory."""

    kind: Literal["over limit"] = "over limit"
    most_mib: dict[str, float]
    """Start-up included, by label."""


AnswerFinding = Annotated[
    NoSettings
    | NoneEligible
    | Recommended
    | OverNodes
    | SizeToPay
    | CostTheSame
    | TrifleMore
    | NamedAmongTies
    | Saves
    | CheaperButMissed
    | CheaperButUnknown
    | TargetUnknown
    | CoresLacking
    | QueueExceeded
    | WithinLimit
    | OverLimit,
    Field(discriminator="kind"),
]

# How far the recommended setting is from the least possible cost.


class NoMinimum(Recorded):
    """There is no least possible cost, because memory has no price per second."""

    kind: Literal["no minimum"] = "no minimum"
    billing: Billing


class BelowMinimum(Recorded):
    """The setting costs less than the clairvoyant minimum, because waiting requests share loads."""

    kind: Literal["below minimum"] = "below minimum"
    ratio: float
    """Its cost to that minimum."""


class AboveMinimum(Recorded):
    """The setting costs as much as the clairvoyant minimum, or more."""

    kind: Literal["above minimum"] = "above minimum"
    ratio: float
    """Its cost to that minimum."""
    least_ratio: float
    """What every policy has that does not know future requests, for Poisson requests at the break-even rate."""


Minimum = Annotated[NoMinimum | BelowMinimum | AboveMinimum, Field(discriminator="kind")]

# What a plan assumes.


class Unmeasured(Recorded):
    """What the run did not measure, so that something is assumed instead."""

    kind: Literal["unmeasured"] = "unmeasured"
    what: Literal["warm requests", "batches", "unloads", "memory", "memory of a model", "CPU time", "CPU time of loads"]


class EnginesAtATime(Recorded):
    """How engines are simulated."""

    kind: Literal["engines at a time"] = "engines at a time"
    parallel: dict[str, int]
    """How many requests each of them answers at a time, by model id."""


class LoadsFromDisk(Recorded):
    """The run measured loads from disk."""

    kind: Literal["loads from disk"] = "loads from disk"


class _MemoryPerWeight(Recorded):
    """How much memory a MiB of weights takes."""

    per_weight: float
    ci95: Interval | None
    """None below 5 rounds."""
    rounds: int


class ModelsAlmostFree(_MemoryPerWeight):
    """Keeping a model adds little or no charged memory."""

    kind: Literal["models almost free"] = "models almost free"


class MemoryUncertain(_MemoryPerWeight):
    """The memory of a model is known too roughly."""

    kind: Literal["memory uncertain"] = "memory uncertain"


class LoadPriceUnknown(Recorded):
    """What a load costs is unknown from where it should be priced."""

    kind: Literal["load price unknown"] = "load price unknown"
    page_cache: PageCache
    """From where it should be priced."""
    reason: LoadsLacking


class LoadsPricedFrom(Recorded):
    """Loads are priced from elsewhere than they were measured."""

    kind: Literal["loads priced from"] = "loads priced from"
    page_cache: PageCache
    further_ms: float
    """How much longer such a load takes than those that requests waited for; less, if negative."""
    further_processor_s: float


class LoadsBySize(Recorded):
    """Loads of models that were not measured lie on a line through those that were: `start + per MiB × size`."""

    kind: Literal["loads by size"] = "loads by size"
    models: int
    """That were measured."""
    start_ms: float
    ms_per_mib: float
    start_processor_ms: float
    processor_ms_per_mib: float
    spread: float
    """The standard deviation of single loads, relative to the line."""
    measured_mib: tuple[float, float]
    """The weights of the smallest and the largest model that was measured."""
    planned_mib: tuple[float, float]
    """The same of the plan's models."""


class OtherRate(Recorded):
    """The CPU time of a request was measured at another rate than the plan's; rates are requests a second."""

    kind: Literal["other rate"] = "other rate"
    measured: float
    here: float


class SettingLeftOut(Recorded):
    """A setting is left out, because its strategy would not start."""

    kind: Literal["setting left out"] = "setting left out"
    label: str
    reason: str
    """What the strategy says."""


NoteFinding = Annotated[
    Unmeasured
    | EnginesAtATime
    | LoadsFromDisk
    | ModelsAlmostFree
    | MemoryUncertain
    | LoadPriceUnknown
    | LoadsPricedFrom
    | LoadsBySize
    | OtherRate
    | SettingLeftOut,
    Field(discriminator="kind"),
]
