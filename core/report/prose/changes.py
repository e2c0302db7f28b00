"""What is said of two runs of the same trials: what changed from the old one to the new one."""

from __future__ import annotations

from ...results.changes import (
    BaselineChanged,
    Changed,
    ChangedStatistic,
    ChangeNotJudged,
    DtypeDiffers,
    InOneRunOnly,
    LoadedBy,
    LoaderDiffers,
    NoRoundFinished,
    SeparateVerdicts,
    SetupDiffers,
)
from ...stats.intervals import VERDICT_ROUNDS
from ..format import decimals, percent
from .sentences import say

UNITS: dict[ChangedStatistic, str] = {"p50": "ms", "p99": "ms", "throughput": "requests/s", "idle_private": "MiB"}
NAMES: dict[ChangedStatistic, str] = {
    "p50": "p50",
    "p99": "p99",
    "throughput": "throughput",
    "idle_private": "private memory",
}
UNLIKE = {
    "checkpoints": "the checkpoints are not the same",
    "workload": "the workload is not the same",
    "texts": "the texts are not the same",
    "page_cache": "'page_cache' is not the same",
    "cluster": "its 'cluster' is not the same",
}


@say.register
def say_in_one_run_only(finding: InOneRunOnly) -> str:
    return f"{finding.trial} is in the {finding.run} run only."


@say.register
def say_dtype_differs(finding: DtypeDiffers) -> str:
    why = f"the old run computed in {finding.old}, the new one in {finding.new}"
    return f"{finding.trial} cannot be compared: {why}."


@say.register
def say_setup_differs(finding: SetupDiffers) -> str:
    return f"{finding.trial} cannot be compared: {UNLIKE[finding.what]}."


@say.register
def say_loader_differs(finding: LoaderDiffers) -> str:
    old, new = _loaders(finding.old), _loaders(finding.new)
    return f"{finding.trial} was loaded by {old} in the old run, and by {new} in the new one."


def _loaders(loaded: LoadedBy) -> str:
    """With the options: `mapped (linear stock)`."""
    options = ", ".join(f"{key} {value}" for key, value in loaded.options.items())
    return " and ".join(loaded.loaders) + (f" ({options})" if options else "")


@say.register
def say_no_round_finished(finding: NoRoundFinished) -> str:
    return f"{finding.trial} cannot be compared: no round of it was finished in the {finding.run} run."


@say.register
def say_changed(finding: Changed) -> str:
    low, high = finding.change_ci95
    than = f"relative to {finding.relative_to}, " if finding.relative_to else ""
    tolerance = percent(finding.tolerance, 1)
    verdict = {
        "regression": f"a regression beyond {tolerance}",
        "worse": f"worse, but not certainly by more than {tolerance}",
    }.get(finding.outcome, finding.outcome)
    return f"{_figures(finding)} ({than}95 % interval {low:+.1%} to {high:+.1%}): {verdict}."


@say.register
def say_baseline_changed(finding: BaselineChanged) -> str:
    return (
        f"{_figures(finding)}. No verdict: this trial is the baseline for the others, and the speed of the machine may"
        " have changed between the two runs. If only this trial became slower, the others appear faster."
    )


@say.register
def say_change_not_judged(finding: ChangeNotJudged) -> str:
    return (
        f"{_figures(finding)}. No verdict: that needs {VERDICT_ROUNDS} rounds in both runs, and the {finding.run} one"
        f" has {finding.rounds}."
    )


@say.register
def say_separate_verdicts(finding: SeparateVerdicts) -> str:
    return (
        f"Each of these {finding.verdicts} verdicts stands by itself: where nothing changed, one in twenty says that"
        " something did."
    )


def _figures(finding: Changed | BaselineChanged | ChangeNotJudged) -> str:
    """`a, p50: 10.0 → 12.0 ms, +20.0%`."""
    name, digits = finding.statistic, 0 if finding.statistic == "idle_private" else 1
    old, new = (decimals(value, digits) for value in (finding.old, finding.new))
    return f"{finding.trial}, {NAMES[name]}: {old} → {new} {UNITS[name]}, {finding.new / finding.old - 1:+.1%}"
