"""Which trials are eligible, and which of them is cheapest at which rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import NamedTuple

from ..costs.economics import TrialCost
from ..results.economics import BreakEven, BreakEvenReason
from ..results.figures import TrialFigures
from ..results.notes import LeftOut, LeftOutForAnswers, LeftOutForErrors, LeftOutForMemory, LeftOutForTarget


class Segment(NamedTuple):
    """A range of rates, in requests per hour, at which one trial is the cheapest."""

    label: str
    start: float
    end: float


@dataclass(frozen=True)
class Contenders:
    """The trials that are the cheapest at some rate, and why each of the others is not."""

    trials: list[TrialCost]
    reasons: list[BreakEvenReason]


def left_out(trial: TrialFigures) -> LeftOut | None:
    """Why a trial is not to be recommended, whatever it costs; None if it may be, as it may if it is unknown whether it
    meets a target.
    """
    if trial.errors:
        return LeftOutForErrors(label=trial.label, errors=trial.errors)
    if not trial.labels_agree:
        return LeftOutForAnswers(label=trial.label)
    if trial.over_limit is not None:
        return LeftOutForMemory(label=trial.label, over=trial.over_limit)
    for target in trial.slo:
        if target.verdict == "missed":
            return LeftOutForTarget(label=trial.label, percentile=target.percentile, target_ms=target.target_ms)
    return None


def contenders(trials: Sequence[TrialCost], pairs: Sequence[BreakEven]) -> Contenders:
    """The trials without those that another one beats at every rate; of two between which the rounds show no
    difference, the first is taken.
    """
    known = {frozenset((pair.trial, pair.against)): pair for pair in pairs}
    kept: list[TrialCost] = []
    reasons: list[BreakEvenReason] = []
    for trial in trials:
        found = [known[frozenset((trial.label, other.label))] for other in trials if other is not trial]
        limited = {other.label for other in trials if other.is_limited_by_size}  # what answers more is no loser
        beaten = next((p for p in found if _loses(trial.label, p) and _other(trial.label, p) not in limited), None)
        same = next(
            (pair for pair in found if is_undecided(pair) and _other(trial.label, pair) in [k.label for k in kept]),
            None,
        )
        lost = beaten or same
        if lost is None:
            kept.append(trial)
        elif lost.reason is not None:
            reasons.append(lost.reason)
    # Pairwise verdicts need not be transitive: if they form a ring, the figures decide.
    return Contenders(kept, reasons) if kept else Contenders(list(trials), [])


def _other(label: str, pair: BreakEven) -> str:
    return pair.against if pair.trial == label else pair.trial


def _loses(label: str, pair: BreakEven) -> bool:
    """Whether the rounds show that the other one is cheaper at every rate."""
    return pair.rate_per_hour is None and pair.cheaper_below == _other(label, pair)


def is_told(pair: BreakEven) -> bool:
    """Whether the rounds show which of both is cheaper at low rates, and which at high ones."""
    return pair.settled and None not in (pair.cheaper_below, pair.cheaper_above)


def is_undecided(pair: BreakEven) -> bool:
    """Whether the rounds show neither which is cheaper at low rates nor which at high ones: both cost the same, or it
    is not settled (`settled` says which).
    """
    known = (pair.rate_per_hour, pair.cheaper_below, pair.cheaper_above)
    return known == (None, None, None) and bool(pair.rounds)


def cheapest_by_rate(trials: Sequence[TrialCost], pairs: Sequence[BreakEven] = ()) -> list[Segment]:
    """The lower envelope of a + b λ, each line up to its trial's capacity; from 0 on, without gaps. Two lines meet at
    the break-even rate of their pair, if that is known.
    """
    edges = {0.0, *(trial.capacity for trial in trials if trial.capacity is not None)}
    for one, other in combinations(trials, 2):
        more = one.typical("holding") - other.typical("holding")
        less = other.typical("per_request") - one.typical("per_request")
        if less and more / less > 0:
            edges.add(more / less)
    starts = sorted(edges)
    segments: list[Segment] = []
    for start, end in zip(starts, [*starts[1:], math.inf], strict=True):
        able = [trial for trial in trials if trial.capacity is None or trial.capacity >= end]
        if not able:
            break
        inside = (start + end) / 2 if end < math.inf else 2 * start + 1
        _, label = min((at_rate(trial, inside), trial.label) for trial in able)
        if segments and segments[-1].label == label:
            segments[-1] = segments[-1]._replace(end=end)
        else:
            segments.append(Segment(label, start, end))
    known = {frozenset((pair.trial, pair.against)): pair.rate_per_hour for pair in pairs}
    capacities = {trial.label: trial.capacity for trial in trials}
    for i, (below, above) in enumerate(pairwise(segments)):
        even = known.get(frozenset((below.label, above.label)))
        if even is not None and below.end != capacities[below.label] and segments[i].start < even < above.end:
            segments[i], segments[i + 1] = segments[i]._replace(end=even), above._replace(start=even)
    return segments


def at_rate(trial: TrialCost, per_hour: float) -> float:
    """What the trial costs at that rate, money per hour."""
    return trial.typical("holding") + trial.typical("per_request") * per_hour
