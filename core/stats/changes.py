"""Two runs of the same trials: what changed from the old one to the new one, and whether it is a regression."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import PurePath

import numpy as np

from ..results.changes import (
    BaselineChanged,
    Changed,
    ChangedStatistic,
    ChangeNotJudged,
    DtypeDiffers,
    Finding,
    InOneRunOnly,
    LoadedBy,
    LoaderDiffers,
    NoRoundFinished,
    Outcome,
    SeparateVerdicts,
    SetupDiffers,
    Which,
)
from ..results.header import RunHeader, WorkloadSpec
from .comparison import log_ratios
from .intervals import CONFIDENCE, VERDICT_ROUNDS, typical
from .rounds import Round, Run

STATISTICS: tuple[ChangedStatistic, ...] = ("p50", "p99", "throughput", "idle_private")
MORE_IS_BETTER: set[ChangedStatistic] = {"throughput"}
BY_ITSELF: set[ChangedStatistic] = {"idle_private"}  # what does not depend on how fast the machine was at that hour


@dataclass(frozen=True)
class Changes:
    """What `--compare` reports."""

    findings: list[Finding]
    regressed: bool
    """Whether some interval lies beyond the tolerance, on the worse side, as a whole."""


def changes(before: Run, after: Run, tolerance: float) -> Changes:
    """Compares each trial label of both runs, statistic by statistic; `tolerance` is 0.05 for 5 %.

    The machine may have been faster or slower during a whole run, so that figures of two runs differ by more than the
    rounds of one do. Each trial is therefore compared by its ratio, round by round, to a reference in the same run: the
    first trial that is the same in both runs. Private memory alone is compared as it is. The rounds of two runs cannot
    be paired: see `shift`.
    """
    reference = _reference(before, after)
    findings: list[Finding] = []
    for label in before.labels:
        findings += _of_label(before, after, label, reference, tolerance)
    findings += [InOneRunOnly(trial=label, run="new") for label in after.labels if label not in before.labels]
    judged = [finding for finding in findings if isinstance(finding, Changed)]
    if len(judged) > 1:
        findings.append(SeparateVerdicts(verdicts=len(judged)))
    return Changes(findings, any(finding.outcome == "regression" for finding in judged))


def _of_label(before: Run, after: Run, label: str, reference: str | None, tolerance: float) -> Iterator[Finding]:
    """What changed in a trial of the old run, or why that is not known."""
    if label not in after.labels:
        yield InOneRunOnly(trial=label, run="old")
        return
    if why := _unlike(before, after, label):
        yield why
        return
    one, other = (_loaded_by(run, label) for run in (before, after))
    if one != other:
        yield LoaderDiffers(trial=label, old=one, new=other)
    if not all(run.finished(label) for run in (before, after)):
        yield NoRoundFinished(trial=label, run="new" if before.finished(label) else "old")
        return
    for name in STATISTICS:
        if name != "throughput" or _is_of_its_own(after):
            yield from _of_statistic(before, after, label, name, reference, tolerance)


def _reference(before: Run, after: Run) -> str | None:
    """The label of the first trial that both runs finished with the same loaders; None if there is none."""
    for label in before.labels:
        if label in after.labels and not _unlike(before, after, label):
            one, other = (_loaded_by(run, label) for run in (before, after))
            if one == other and before.finished(label) and after.finished(label):
                return label
    return None


def _unlike(before: Run, after: Run, label: str) -> DtypeDiffers | SetupDiffers | None:
    """Why the label's figures are of different things; None when they are not."""
    old, new = before.header, after.header
    dtypes = [run.used[label].dtype for run in (before, after)]
    if dtypes[0] != dtypes[1]:
        return DtypeDiffers(trial=label, old=dtypes[0], new=dtypes[1])
    if _digests(old) != _digests(new):
        return SetupDiffers(trial=label, what="checkpoints")
    if _traffic(before) != _traffic(after):
        return SetupDiffers(trial=label, what="workload")
    if before.spec(label).cluster != after.spec(label).cluster:
        return SetupDiffers(trial=label, what="cluster")
    if old.texts != new.texts:
        return SetupDiffers(trial=label, what="texts")
    return None if old.page_cache == new.page_cache else SetupDiffers(trial=label, what="page_cache")


def _digests(header: RunHeader) -> dict[str, str]:
    """Of the checkpoints, by model id."""
    return {model_id: model.sha256 for model_id, model in header.models.items()}


def _loaded_by(run: Run, label: str) -> LoadedBy:
    """The loaders that the trial's servers used, and the options that were asked for."""
    return LoadedBy(loaders=run.used[label].loaders, options=run.spec(label).loader_options)


def _traffic(run: Run) -> WorkloadSpec | None:
    """The workload, with only the name of a trace's file, because a checkout may have moved."""
    workload = run.header.workload
    if workload is None or workload.trace is None:
        return workload
    trace = workload.trace.model_copy(update={"file": PurePath(workload.trace.file).name})
    return WorkloadSpec(trace=trace)


def _of_statistic(
    before: Run, after: Run, label: str, name: ChangedStatistic, reference: str | None, tolerance: float
) -> Iterator[Changed | BaselineChanged | ChangeNotJudged]:
    """How the statistic changed; nothing unless every round of both runs has it."""
    figures = [_values(run.finished(label), name) for run in (before, after)]
    if not all(figures):
        return
    old, new = (math.exp(typical(np.log(values).tolist())) for values in figures)
    relative_to = None if name in BY_ITSELF or label == reference else reference
    logs = [_relative(run, label, relative_to, name) for run in (before, after)]
    if not any(logs) or (relative_to is None and name not in BY_ITSELF):
        yield BaselineChanged(trial=label, statistic=name, old=old, new=new)
    elif (fewest := min(map(len, logs))) < VERDICT_ROUNDS:
        which: Which = "old" if len(logs[0]) == fewest else "new"
        yield ChangeNotJudged(trial=label, statistic=name, old=old, new=new, run=which, rounds=fewest)
    else:
        low, high = (math.exp(bound) - 1 for bound in shift(*logs))
        yield Changed(
            trial=label,
            statistic=name,
            old=old,
            new=new,
            relative_to=relative_to,
            change_ci95=(low, high),
            tolerance=tolerance,
            outcome=_outcome(-high, -low, tolerance) if name in MORE_IS_BETTER else _outcome(low, high, tolerance),
        )


def _outcome(low: float, high: float, tolerance: float) -> Outcome:
    """Of the interval of a change of what should be low."""
    if low > tolerance:
        return "regression"
    return "worse" if low > 0 else "better" if high < 0 else "not separable"


def _is_of_its_own(run: Run) -> bool:
    """Whether throughput adds to latency: with one client it repeats it."""
    return run.header.clients > 1


def _relative(run: Run, label: str, reference: str | None, name: ChangedStatistic) -> list[float]:
    """The logarithms of each round; with a reference, of the ratios in the rounds that both finished."""
    if reference is None:
        return [math.log(value) for value in _values(run.finished(label), name)]
    ours, theirs = run.rounds[label], run.rounds[reference]
    return log_ratios(name, [(ours[n], theirs[n]) for n in sorted(set(ours) & set(theirs))]) or []


def shift(old: Sequence[float], new: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of how far `new` lies above `old`: all shifts that Mann and Whitney's test does not refute
    (Annals of Mathematical Statistics 18, 1947; Hodges and Lehmann, the same 34, 1963).

    It assumes no distribution: two runs of the same are reported to differ in at most 5 of 100 cases.
    """
    differences = np.sort(np.subtract.outer(new, old), axis=None)
    beyond = _left_out(len(old), len(new))
    return float(differences[beyond]), float(differences[-1 - beyond])


@cache
def _left_out(old: int, new: int) -> int:
    """How many of the differences between so many values are left out on each side: of values 0, 1, … without ties,
    those shifts at which the test refutes that they are alike.
    """
    from scipy.stats import mannwhitneyu  # takes a second to import, and most commands need none of it

    first, second = np.arange(old), np.arange(new) * old
    shifts = np.sort(np.subtract.outer(second, first), axis=None) - 0.5

    def is_refuted(shift: float) -> bool:
        return bool(mannwhitneyu(second - shift, first, method="exact").pvalue <= 1 - CONFIDENCE)

    return bisect_left(shifts[: len(shifts) // 2], True, key=lambda shift: not is_refuted(shift)) - 1


def _values(rounds: Sequence[Round], name: ChangedStatistic) -> list[float]:
    """The statistic of each round; empty if a round has none."""
    values = [each.statistics[name] for each in rounds]
    return [float(value) for value in values if value] if all(values) else []
