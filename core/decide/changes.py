"""Two runs of the same trials: what changed from the old one to the new one, and whether it is a regression."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
from scipy.special import stdtrit

from .comparison import is_closed
from .intervals import CONFIDENCE, VERDICT_ROUNDS
from .rounds import Record, Round, Run, arrange

COMPARED = {"p50": "ms", "p99": "ms", "throughput": "requests/s", "idle_pss": "MiB"}
SHOWN = {"throughput": "throughput", "idle_pss": "idle PSS"}
MORE_IS_BETTER = {"throughput"}


@dataclass(frozen=True)
class Changes:
    """What `--compare` says."""

    sentences: list[str]
    regressed: bool
    """Whether some interval lies beyond the tolerance, on the worse side, as a whole."""


def changes(old: Sequence[Record], new: Sequence[Record], tolerance: float) -> Changes:
    """Each trial label of both runs, statistic by statistic; `tolerance` as 0.05 for 5 %.

    The rounds of two runs are no pairs, so the interval is Welch's (1947), on logarithms.
    """
    before, after = arrange(old), arrange(new)
    sentences, regressed = [], False
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
        for sentence, worse in _of_trial(before, after, label, tolerance):
            sentences.append(sentence)
            regressed = regressed or worse
    sentences += [f"{label} is in the new run only." for label in after.labels if label not in before.labels]
    return Changes(sentences, regressed)


def _unlike(before: Run, after: Run, label: str) -> str:
    """Why the label's figures are of different things; empty when they are not."""
    dtypes = [next(t["dtype"] for t in run.header["trials"] if t["label"] == label) for run in (before, after)]
    if dtypes[0] != dtypes[1]:
        return f"the old run computed in {dtypes[0]}, the new one in {dtypes[1]}"
    digests = [{m: model["sha256"] for m, model in run.header["models"].items()} for run in (before, after)]
    if digests[0] != digests[1]:
        return "the checkpoints are not the same"
    if _traffic(before) != _traffic(after):
        return "the workload is not the same"
    for key, what in (("texts", "the texts are"), ("page_cache", "'page_cache' is")):
        if before.header.get(key) != after.header.get(key):
            return f"{what} not the same"
    return ""


def _loaded_by(run: Run, label: str) -> str:
    """The loaders that the trial's servers used, and the options that were asked for: `mapped (linear stock)`."""
    trial = next(trial for trial in run.header["trials"] if trial["label"] == label)
    options = ", ".join(f"{key} {value}" for key, value in trial["loader_options"].items())
    return " and ".join(trial["used_loaders"]) + (f" ({options})" if options else "")


def _traffic(run: Run) -> Record | None:
    """The workload; of a trace's file only the name, because a checkout may have moved."""
    workload = run.header.get("workload")
    if workload and (trace := workload.get("trace")):
        return {"trace": trace | {"file": PurePath(trace["file"]).name}}
    return workload


def _of_trial(before: Run, after: Run, label: str, tolerance: float) -> Iterator[tuple[str, bool]]:
    """(sentence, whether it is a regression) for each statistic that every round of both runs has."""
    old, new = before.finished(label), after.finished(label)
    if not old or not new:
        yield f"{label} cannot be compared: no round of it was finished in the {'new' if old else 'old'} run.", False
        return
    names = [name for name in COMPARED if name != "throughput" or is_closed(after.header.get("workload"))]
    for name in names:
        one, other = _values(old, name), _values(new, name)
        if one and other:
            yield _change(label, name, one, other, tolerance)


def _change(label: str, name: str, old: Sequence[float], new: Sequence[float], tolerance: float) -> tuple[str, bool]:
    before, after = (math.exp(float(np.mean(np.log(values)))) for values in (old, new))
    digits = 0 if name == "idle_pss" else 1
    figures = (
        f"{label}, {SHOWN.get(name, name)}: {before:.{digits}f} → {after:.{digits}f} {COMPARED[name]},"
        f" {after / before - 1:+.1%}"
    )
    fewest = min(len(old), len(new))
    if fewest < VERDICT_ROUNDS:
        which = "old" if len(old) == fewest else "new"
        lacking = f"that needs {VERDICT_ROUNDS} rounds in both runs, and the {which} one has {fewest}"
        return f"{figures}. No verdict: {lacking}.", False
    low, high = (math.exp(bound) - 1 for bound in welch(np.log(old), np.log(new)))
    figures += f" (95 % interval {low:+.1%} to {high:+.1%})"
    better, worse = (high < 0, low > 0) if name not in MORE_IS_BETTER else (low > 0, high < 0)
    beyond = low > tolerance if name not in MORE_IS_BETTER else high < -tolerance
    if beyond:
        return f"{figures}: a regression beyond {tolerance:.1%}.", True
    if worse:
        return f"{figures}: worse, but not certainly by more than {tolerance:.1%}.", False
    return f"{figures}: {'better' if better else 'not separable'}.", False


def welch(old: Any, new: Any) -> tuple[float, float]:
    """The 95 % interval of mean(new) − mean(old), with a variance of its own on each side (Welch 1947).

    As SciPy's `ttest_ind(new, old, equal_var=False).confidence_interval()`, but also where all values are equal.
    """
    change = float(np.mean(new) - np.mean(old))
    errors = [float(np.var(values, ddof=1)) / len(values) for values in (old, new)]
    if not any(errors):
        return change, change
    weights = (error**2 / (len(values) - 1) for error, values in zip(errors, (old, new), strict=True))
    freedom = sum(errors) ** 2 / sum(weights)
    half = float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * math.sqrt(sum(errors))
    return change - half, change + half


def _values(rounds: Sequence[Round], name: str) -> list[float]:
    """The statistic of each round; empty where a round has none."""
    values = [each.statistics[name] for each in rounds]
    return [float(value) for value in values if value] if all(values) else []
