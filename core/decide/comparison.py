"""Trials against each other, paired by the rounds that both finished."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations
from typing import Any

from .intervals import estimate
from .rounds import STATISTICS, Round, Run
from .statistics import samples_for

OFFERED = "the offered rate decides it; only a closed loop has a throughput of its own"
LACKING = {
    "p50": f"needs {samples_for(0.5)} answered requests in each round",
    "mean": "needs an answered request in each round",
    "p99": f"needs {samples_for(0.99)} answered requests in each round",
    "throughput": "needs an answered request in each round",
    "idle_pss": "this system has no /proc",
}


def compare(run: Run) -> list[dict[str, Any]]:
    """All pairs of trials: each later trial of the file against each earlier one, for each statistic.

    `{"trial", "against", "rounds", "statistics": {name: estimate}}`; an estimate is that of `intervals.estimate`,
    with the ratio of `trial` to `against`, or `{"ratio": None, "null_because": sentence}`.
    """
    pairs = []
    for against, trial in combinations(run.labels, 2):
        ours, theirs = run.rounds[trial], run.rounds[against]
        both = sorted(set(ours) & set(theirs))
        statistics = {name: _statistic(run, name, [(ours[n], theirs[n]) for n in both]) for name in STATISTICS}
        pairs.append({"trial": trial, "against": against, "rounds": len(both), "statistics": statistics})
    return pairs


def _statistic(run: Run, name: str, pairs: list[tuple[Round, Round]]) -> dict[str, Any]:
    if name == "throughput" and not is_closed(run.header.get("workload")):
        return _none(OFFERED)
    if not pairs:
        return _none("no round was finished by both")
    logs = log_ratios(name, pairs)
    return _none(LACKING[name]) if logs is None else estimate(logs)


def log_ratios(name: str, pairs: list[tuple[Round, Round]]) -> list[float] | None:
    """ln(first / second) of a statistic in each round; None where a round has none."""
    logs = []
    for one, other in pairs:
        above, below = one.statistics[name], other.statistics[name]
        if not above or not below:
            return None
        logs.append(math.log(above / below))
    return logs


def is_closed(workload: Mapping[str, Any] | None) -> bool:
    """Whether clients wait for their answers, as the plain `repetitions` form does, too."""
    return workload is None or bool(workload.get("closed"))


def _none(reason: str) -> dict[str, Any]:
    return {"ratio": None, "null_because": reason}
