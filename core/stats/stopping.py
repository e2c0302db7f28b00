"""Whether a run knows enough to stop: by the width of its intervals, never by what they say."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..results.records import NarrowIntervals
from .comparison import log_ratios
from .intervals import VERDICT_ROUNDS, interval, typical
from .rounds import Run

IN_A_ROW = 6  # rounds after which the intervals must have been narrow; see `precise_enough`


def precise_enough(run: Run, precision: float) -> NarrowIntervals | None:
    """A reason to stop, or None; to be called after each complete round.

    Every ratio of p50 to the first trial's must have a 95 % interval no wider than `precision` of itself
    (with a single trial: its mean latency, of a typical round), after each of the latest six complete rounds, the
    first of them the fifth or later. Once would not do: an interval is at its narrowest where the rounds
    happen to look alike, and a run that stops there holds the truth in 92 % of cases only; with six in a
    row it is 94 % (tests/proofs/test_coverage.py). Stopping when an interval leaves 1 out would be worse, for
    it finds a difference in every noise sooner or later; the width does not favour either answer.
    """
    logs = _logs(run)
    rounds = len(run.complete())
    latest = range(rounds, rounds - IN_A_ROW, -1)
    if not logs or latest[-1] < VERDICT_ROUNDS:
        return None
    widths = [{label: width(values[:n]) for label, values in logs.items()} for n in latest]
    if any(each > precision for known in widths for each in known.values()):
        return None
    relative_to = run.labels[0] if len(run.labels) > 1 else None
    return NarrowIntervals(rounds=rounds, precision=precision, relative_to=relative_to, widths=widths[0])


def reached(run: Run) -> dict[str, float] | None:
    """The relative width of the intervals that `precision` limits, by trial label; None below 5 complete rounds."""
    logs = _logs(run)
    return {label: width(values) for label, values in logs.items()} if len(run.complete()) >= VERDICT_ROUNDS else None


def width(logs: Sequence[float]) -> float:
    """The width of the 95 % interval, relative to the estimate: 0.05 for 1.00 (0.98 to 1.03). From 5 rounds on."""
    low, high, _ = interval(logs)
    return (math.exp(high) - math.exp(low)) / math.exp(typical(logs))


def _logs(run: Run) -> dict[str, list[float]]:
    """One value for each complete round, by trial label; empty if a round lacks one."""
    first, *others = run.labels
    complete = run.complete()
    if not others:
        means = [run.rounds[first][n].statistics["mean"] for n in complete]
        return {first: [math.log(mean) for mean in means if mean]} if means and all(means) else {}
    ratios = {
        label: log_ratios("p50", [(run.rounds[label][n], run.rounds[first][n]) for n in complete]) for label in others
    }
    return {label: logs for label, logs in ratios.items() if logs} if all(ratios.values()) else {}
