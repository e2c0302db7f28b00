"""What is said of two trials compared: a verdict if the data supports one, else figures and what is missing."""

from __future__ import annotations

from ...results.comparisons import Statistic, StatisticName
from ...results.run_findings import (
    Compared,
    ComparedFigure,
    JointVerdicts,
    MeasuredOnly,
    MemoryUnknown,
    NotSeparable,
    SameMemory,
    Separable,
    VerdictRoundsMissing,
)
from ...stats.intervals import VERDICT_ROUNDS
from ..format import count, decimals, milliseconds, missing, percent
from .rounds import say_further_rounds
from .sentences import say

VERBS = {  # of a statistic that is higher, and of one that is lower; {} is the ratio
    "p50": ("takes {} times as long as",) * 2,
    "mean": ("takes {} times as long on average as",) * 2,
    "p99": ("takes {} times as long as",) * 2,
    "throughput": ("answers {} times as many requests per second as",) * 2,
    "cold_share": ("has more cold requests than", "has fewer cold requests than"),
    "loads_per_request": ("loads more often than", "loads less often than"),
}


@say.register
def say_measured_only(finding: MeasuredOnly) -> str:
    both, found = finding.compared, finding.compared.statistic
    amount, *_ = _amounts(both)
    rounds = count(found.rounds or 0, "round")
    return f"{both.trial} against {both.against}: {_figures(both)}, a {_kind(found)} of {amount} in {rounds}."


@say.register
def say_same_memory(finding: SameMemory) -> str:
    both = finding.compared
    return f"{both.trial} holds the same memory as {both.against}, to within 1 MiB: {_figures(both)} ({_within(both)})."


@say.register
def say_separable(finding: Separable) -> str:
    both, found = finding.compared, finding.compared.statistic
    amount, *_ = _amounts(both)
    has_amount = "{}" in VERBS.get(both.name, ("",))[0]
    told = "" if has_amount else f"{_kind(found)} {amount}, "
    verb = _verb(both).format(amount)
    return f"{both.trial} {verb} {both.against}: {_figures(both)} ({told}{_within(both)})."


@say.register
def say_not_separable(finding: NotSeparable) -> str:
    both, found = finding.compared, finding.compared.statistic
    amount, *_ = _amounts(both)
    return (
        f"{both.trial} and {both.against} are not separable: {_figures(both)} ({_kind(found)} {amount},"
        f" {_within(both)}). {_remedy(finding)}"
    )


@say.register
def say_memory_unknown(finding: MemoryUnknown) -> str:
    return f"The memory of {finding.trial} is unknown: this system has no /proc."


@say.register
def say_verdict_rounds_missing(finding: VerdictRoundsMissing) -> str:
    return (
        f"These are measurements, not verdicts: a verdict needs {VERDICT_ROUNDS} rounds finished by both trials;"
        f" {missing(finding.rounds)} (set repeats: {VERDICT_ROUNDS})."
    )


@say.register
def say_joint_verdicts(finding: JointVerdicts) -> str:
    return (
        f"In 95 of 100 runs all {finding.verdicts} verdicts are true at once. They describe a typical server process of"
        " each strategy (the median over rounds)."
    )


def _kind(found: Statistic) -> str:
    return "difference" if found.ratio is None else "ratio"


def _within(both: Compared) -> str:
    _, low, high = _amounts(both)
    return f"95 % interval {low} to {high}, {both.statistic.rounds} rounds"


def _verb(both: Compared) -> str:
    if both.name != "idle_pss":
        return VERBS[both.name][both.statistic.verdict == "lower"]
    more = "more" if both.statistic.verdict == "higher" else "less"
    return f"holds {abs(both.ours.value - both.theirs.value):.0f} MiB {more} than"


def _figures(both: Compared) -> str:
    """The figures of both."""
    ours, theirs = both.ours.value, both.theirs.value
    if both.name == "throughput":
        return f"{decimals(ours, 1)} against {decimals(theirs, 1)} requests/s"
    if both.name == "idle_pss":
        return f"PSS between requests {ours:.0f} against {theirs:.0f} MiB"
    if both.name == "cold_share":
        return f"{percent(ours, 1)} against {percent(theirs, 1)} of the requests"
    if both.name == "loads_per_request":
        return f"{ours:.3f} against {theirs:.3f} loads for each request"
    return f"{both.name} {_latency(both.ours)} against {_latency(both.theirs)}"


def _latency(figure: ComparedFigure) -> str:
    cold = "" if figure.cold_share is None else f" ({percent(figure.cold_share)} cold)"
    return f"{milliseconds(figure.value)}{cold}"


def _amounts(both: Compared) -> tuple[str, str, str]:
    """The ratio or the difference, and its bounds."""
    found = both.statistic
    low, high = found.ci95 or (0.0, 0.0)
    if found.ratio is not None:
        return _times(found.ratio), _times(low), _times(high)
    middle = found.difference or 0.0
    return _change(both.name, middle), _change(both.name, low), _change(both.name, high)


def _times(ratio: float) -> str:
    """Three digits; more if the ratio is close to 1."""
    return f"{ratio:.1f}" if ratio >= 10 else f"{ratio:.3f}" if 0.9 < ratio < 1.1 else f"{ratio:.2f}"


def _change(name: StatisticName, value: float) -> str:
    return f"{value * 100:+.1f} points" if name == "cold_share" else f"{value:+.3f}"


def _remedy(finding: NotSeparable) -> str:
    """What would decide it, if the rounds do not."""
    if finding.is_separable_alone:
        return "Taken alone, the two would be separable; but among several verdicts one can look so by chance."
    found = finding.compared.statistic
    low, high = found.ci95 or (0.0, 0.0)
    bounds = f" (it is between {low - 1:+.1%} and {high - 1:+.1%})" if found.ratio is not None else ""
    return say_further_rounds(found.further_rounds, known=bounds)
