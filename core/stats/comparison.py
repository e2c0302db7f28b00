"""Every pair of trials compared, round by round, over the rounds that both finished."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

from .estimates import samples_for
from .intervals import (
    VERDICT_ROUNDS,
    chance,
    further_rounds,
    interval,
    told_apart,
    typical,
)
from .rounds import (
    DIFFERENCES,
    RATIOS,
    Round,
    Run,
)

MIXED = (0.2, 1.8)  # times 1 − q: with such a share of cold requests, the quantile q falls between cold and warm
OFFERED = "the offered rate decides it; only a closed loop has a throughput of its own"
LACKING = {
    "p50": f"needs {samples_for(0.5)} answered requests in each round",
    "mean": "needs an answered request in each round",
    "p99": f"needs {samples_for(0.99)} answered requests in each round",
    "throughput": "needs an answered request in each round",
    "idle_pss": "this system has no /proc",
    "idle_private": "this system has no /proc",
    "cold_share": "needs an answered request in each round",
    "loads_per_request": "loads were not counted",
}
Pairs = Sequence[tuple[Round, Round]]
Values = list[float] | None
"""One for each round; None if a round has none."""
Comparison = dict[str, Any]


def compare(run: Run) -> list[Comparison]:
    """Compares all pairs of trials: each later trial of the file against each earlier one, for each statistic.

    `{"trial", "against", "rounds", "statistics": {name: …}, "told": names}`, where `told` names the statistics that are
    reported. A statistic is the ratio of `trial` to `against` (`ratio`), or the difference (`difference`), the median
    over rounds, with `ci95`, `method`, `rounds`, `chance`, `verdict` ("higher", "lower", "not separable"; None below 5
    rounds, and for what is not reported) and `further_rounds`; or `{"ratio": None, "null_because": sentence}`. With
    95 % probability the verdicts of all pairs with the first trial are true at once, and so are those of the other
    pairs.
    """
    pairs = []
    for against, trial in combinations(run.labels, 2):
        ours, theirs = run.rounds[trial], run.rounds[against]
        both = [(ours[n], theirs[n]) for n in sorted(set(ours) & set(theirs))]
        values = {name: _values(name, both) for name in (*RATIOS, *DIFFERENCES)}
        told = _told(run, both, values)
        statistics = {name: _statistic(run, name, values[name], is_told=name in told) for name in values}
        pairs.append({"trial": trial, "against": against, "rounds": len(both), "statistics": statistics, "told": told})
    first = run.labels[0] if run.labels else None
    _judge(pair for pair in pairs if pair["against"] == first)
    _judge(pair for pair in pairs if pair["against"] != first)
    return pairs


def _values(name: str, pairs: Pairs) -> Values:
    """For each round, the logarithm of the ratio, or the difference; None if a round has none."""
    return log_ratios(name, pairs) if name in RATIOS else _differences(name, pairs)


def _statistic(run: Run, name: str, values: Values, *, is_told: bool) -> Comparison:
    key, unscaled = ("ratio", math.exp) if name in RATIOS else ("difference", float)
    if name == "throughput" and run.header.states_a_rate:
        return {key: None, "null_because": OFFERED}
    if not values:
        return {key: None, "null_because": LACKING[name] if values is None else "no round was finished by both"}
    result: Comparison = {key: unscaled(typical(values)), "ci95": None, "method": None, "rounds": len(values)}
    result |= {"chance": None, "verdict": None, "further_rounds": VERDICT_ROUNDS - len(values)}
    if len(values) < VERDICT_ROUNDS:
        return result
    low, high, method = interval(values)
    result |= {"ci95": [unscaled(low), unscaled(high)], "method": method}
    return result | {"chance": chance(values) if is_told else None, "further_rounds": further_rounds(values)}


def _told(run: Run, pairs: Pairs, values: Mapping[str, Values]) -> list[str]:
    """The statistics that are reported of a pair. Of latency these are the percentiles, and the mean if p50 is not
    among them. With one client, throughput repeats latency and is not reported. The shares of `DIFFERENCES` are
    reported unless they follow from the strategy.
    """
    found = [name for name in ("p50", "p99") if values[name] and not _is_mixed(name, pairs)]
    if "p50" not in found and values["mean"]:
        found.append("mean")
    found += [name for name in ("idle_pss", *(["throughput"] if run.header.clients > 1 else [])) if values[name]]
    return found + [name for name in DIFFERENCES if values[name] and _is_partial(name, pairs)]


def _is_mixed(name: str, pairs: Pairs) -> bool:
    """Whether, in some round of either trial, the percentile falls between cold and warm requests: a few requests then
    decide on which side it lies, and it describes neither.
    """
    low, high = (bound * (1 - {"p50": 0.5, "p99": 0.99}[name]) for bound in MIXED)
    return any(low <= share <= high for pair in pairs for each in pair if (share := each.statistics["cold_share"]))


def _is_partial(name: str, pairs: Pairs) -> bool:
    """Whether some process loaded for some of its requests only; a share of 0 or 1 follows from the strategy."""
    return any(0 < value < 1 for pair in pairs for each in pair if (value := each.statistics[name]) is not None)


def _judge(pairs: Iterable[Comparison]) -> None:
    """Give each reported statistic its verdict, all of them together by Holm's procedure."""
    told = [pair["statistics"][name] for pair in pairs for name in pair["told"]]
    told = [statistic for statistic in told if statistic["chance"] is not None]
    for statistic, holds in zip(told, told_apart([each["chance"] for each in told]), strict=True):
        above = statistic["ratio"] > 1 if "ratio" in statistic else statistic["difference"] > 0
        statistic["verdict"] = ("higher" if above else "lower") if holds else "not separable"
        if holds:
            statistic["further_rounds"] = None


def log_ratios(name: str, pairs: Pairs) -> Values:
    """ln(first / second) of a statistic in each round; None if a round has none."""
    logs = []
    for one, other in pairs:
        above, below = one.statistics[name], other.statistics[name]
        if not above or not below:
            return None
        logs.append(math.log(above / below))
    return logs


def _differences(name: str, pairs: Pairs) -> Values:
    """First − second of a statistic in each round; None if a round has none."""
    differences = []
    for one, other in pairs:
        ours, theirs = one.statistics[name], other.statistics[name]
        if ours is None or theirs is None:
            return None
        differences.append(ours - theirs)
    return differences
