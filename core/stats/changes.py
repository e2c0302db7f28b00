"""Two runs of the same trials: what changed from the old one to the new one, and whether it is a regression."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import PurePath

import numpy as np

from ..results.header import WorkloadSpec
from .comparison import log_ratios
from .intervals import CONFIDENCE, VERDICT_ROUNDS, typical
from .rounds import Round, Run

UNITS = {"p50": "ms", "p99": "ms", "throughput": "requests/s", "idle_private": "MiB"}
SHOWN = {"idle_private": "private memory"}
MORE_IS_BETTER = {"throughput"}
BY_ITSELF = {"idle_private"}  # what does not depend on how fast the machine was at that hour


@dataclass(frozen=True)
class Changes:
    """What `--compare` reports."""

    sentences: list[str]
    regressed: bool
    """Whether some interval lies beyond the tolerance, on the worse side, as a whole."""


@dataclass(frozen=True)
class _Change:
    """One statistic of a trial in both runs."""

    figures: str
    old: list[float]
    new: list[float]
    """The logarithm, for each round, of the statistic or of its ratio to the reference in that round."""
    relative_to: str
    """The label of the reference; empty for what needs none."""
    more_is_better: bool


def changes(before: Run, after: Run, tolerance: float) -> Changes:
    """Compares each trial label of both runs, statistic by statistic; `tolerance` is 0.05 for 5 %.

    The machine may have been faster or slower during a whole run, so that figures of two runs differ by more than the
    rounds of one do. Each trial is therefore compared by its ratio, round by round, to a reference in the same run: the
    first trial that is the same in both runs. Private memory alone is compared as it is. The rounds of two runs cannot
    be paired: see `shift`.
    """
    reference = _reference(before, after)
    sentences, regressed, judged = [], False, 0
    for label in before.labels:
        if label not in after.labels:
            sentences.append(f"{label} is in the old run only.")
            continue
        if why := _unlike(before, after, label):
            sentences.append(f"{label} cannot be compared: {why}.")
            continue
        one, other = (_loaded_by(run, label) for run in (before, after))
        if one != other:
            sentences.append(f"{label} was loaded by {one} in the old run, and by {other} in the new one.")
        if not all(run.finished(label) for run in (before, after)):
            which = "new" if before.finished(label) else "old"
            sentences.append(f"{label} cannot be compared: no round of it was finished in the {which} run.")
            continue
        for change in _of_trial(before, after, label, reference):
            sentence, worse = _sentence(change, tolerance)
            sentences.append(sentence)
            regressed, judged = regressed or worse, judged + (_why_none(change) == "")
    sentences += [f"{label} is in the new run only." for label in after.labels if label not in before.labels]
    if judged > 1:
        sentences.append(
            f"Each of these {judged} verdicts stands by itself: where nothing changed, one in twenty says that it did."
        )
    return Changes(sentences, regressed)


def _reference(before: Run, after: Run) -> str:
    """The label of the first trial that both runs finished with the same loaders; empty if there is none."""
    for label in before.labels:
        if label in after.labels and not _unlike(before, after, label):
            one, other = (_loaded_by(run, label) for run in (before, after))
            if one == other and before.finished(label) and after.finished(label):
                return label
    return ""


def _unlike(before: Run, after: Run, label: str) -> str:
    """Why the label's figures are of different things; empty when they are not."""
    dtypes = [run.used[label].dtype for run in (before, after)]
    if dtypes[0] != dtypes[1]:
        return f"the old run computed in {dtypes[0]}, the new one in {dtypes[1]}"
    digests = [{m: model.sha256 for m, model in run.header.models.items()} for run in (before, after)]
    if digests[0] != digests[1]:
        return "the checkpoints are not the same"
    if _traffic(before) != _traffic(after):
        return "the workload is not the same"
    if before.header.texts != after.header.texts:
        return "the texts are not the same"
    return "" if before.header.page_cache == after.header.page_cache else "'page_cache' is not the same"


def _loaded_by(run: Run, label: str) -> str:
    """The loaders that the trial's servers used, and the options that were asked for: `mapped (linear stock)`."""
    options = ", ".join(f"{key} {value}" for key, value in run.spec(label).loader_options.items())
    return " and ".join(run.used[label].loaders) + (f" ({options})" if options else "")


def _traffic(run: Run) -> WorkloadSpec | None:
    """The workload, with only the name of a trace's file, because a checkout may have moved."""
    workload = run.header.workload
    if workload is None or workload.trace is None:
        return workload
    trace = workload.trace.model_copy(update={"file": PurePath(workload.trace.file).name})
    return WorkloadSpec(trace=trace)


def _of_trial(before: Run, after: Run, label: str, reference: str) -> Iterator[_Change]:
    """The statistics that every round of both runs has."""
    for name in UNITS:
        if name == "throughput" and not _is_of_its_own(after):
            continue
        figures = [_values(run.finished(label), name) for run in (before, after)]
        if not all(figures):
            continue
        relative_to = "" if name in BY_ITSELF or label == reference else reference
        logs = [_relative(run, label, relative_to, name) for run in (before, after)]
        old, new = (math.exp(typical(np.log(values).tolist())) for values in figures)
        digits = 0 if name == "idle_private" else 1
        told = (
            f"{label}, {SHOWN.get(name, name)}: {old:.{digits}f} → {new:.{digits}f} {UNITS[name]}, {new / old - 1:+.1%}"
        )
        judged = name in BY_ITSELF or bool(relative_to)
        one, other = logs if judged else ([], [])
        yield _Change(told, one, other, relative_to, name in MORE_IS_BETTER)


def _is_of_its_own(run: Run) -> bool:
    """Whether throughput adds to latency: with one client it repeats it."""
    return run.header.clients > 1


def _relative(run: Run, label: str, reference: str, name: str) -> list[float]:
    """The logarithms of each round; with a reference, of the ratios in the rounds that both finished."""
    if not reference:
        return [math.log(value) for value in _values(run.finished(label), name)]
    ours, theirs = run.rounds[label], run.rounds[reference]
    return log_ratios(name, [(ours[n], theirs[n]) for n in sorted(set(ours) & set(theirs))]) or []


def _why_none(change: _Change) -> str:
    """Why there is no verdict; empty if there is one."""
    if not change.old and not change.new:
        return (
            "this trial is the baseline for the others, and the speed of the machine may have changed between the two"
            " runs. If only this trial became slower, the others appear faster"
        )
    fewest = min(len(change.old), len(change.new))
    if fewest >= VERDICT_ROUNDS:
        return ""
    which = "old" if len(change.old) == fewest else "new"
    return f"that needs {VERDICT_ROUNDS} rounds in both runs, and the {which} one has {fewest}"


def _sentence(change: _Change, tolerance: float) -> tuple[str, bool]:
    """A sentence on what changed, and whether it is a regression."""
    if why := _why_none(change):
        return f"{change.figures}. No verdict: {why}.", False
    low, high = (math.exp(bound) - 1 for bound in shift(change.old, change.new))
    than = f"relative to {change.relative_to}, " if change.relative_to else ""
    figures = f"{change.figures} ({than}95 % interval {low:+.1%} to {high:+.1%})"
    better, worse = (high < 0, low > 0) if not change.more_is_better else (low > 0, high < 0)
    if low > tolerance if not change.more_is_better else high < -tolerance:
        return f"{figures}: a regression beyond {tolerance:.1%}.", True
    if worse:
        return f"{figures}: worse, but not certainly by more than {tolerance:.1%}.", False
    return f"{figures}: {'better' if better else 'not separable'}.", False


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


def _values(rounds: Sequence[Round], name: str) -> list[float]:
    """The statistic of each round; empty if a round has none."""
    values = [each.statistics[name] for each in rounds]
    return [float(value) for value in values if value] if all(values) else []
