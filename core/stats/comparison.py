"""Every pair of trials compared, round by round, over the rounds that both finished."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

from ..results.comparisons import Comparison, Statistic, StatisticName, StatisticUnknown
from .estimates import samples_for
from .intervals import VERDICT_ROUNDS, chance, further_rounds, interval, told_apart, typical
from .rounds import DIFFERENCES, RATIOS, Round, Run

MIXED = (0.2, 1.8)  # times 1 − q: with such a share of cold requests, the quantile q falls between cold and warm


def _too_few(needed: int) -> StatisticUnknown:
    return StatisticUnknown(kind="too few requests", needed=needed)


LACKING: Mapping[StatisticName, StatisticUnknown] = {
    "p50": _too_few(samples_for(0.5)),
    "mean": _too_few(1),
    "p99": _too_few(samples_for(0.99)),
    "throughput": _too_few(1),
    "idle_pss": StatisticUnknown(kind="no memory reported"),
    "idle_private": StatisticUnknown(kind="no memory reported"),
    "cold_share": _too_few(1),
    "loads_per_request": StatisticUnknown(kind="loads not counted"),
}
Pairs = Sequence[tuple[Round, Round]]
Values = list[float] | None
"""One for each round; None if a round has none."""
_Place = tuple[str, str, StatisticName]
"""Of a statistic: the trial, the one against which it is compared, and its name."""


def compare(run: Run) -> list[Comparison]:
    """Compares all pairs of trials: each later trial of the file against each earlier one, for each statistic.

    A statistic is the ratio of the trial to the earlier one, or the difference, the median over rounds. With 95 %
    probability the verdicts of all pairs with the first trial are true at once, and so are those of the other pairs.
    """
    pairs = [_pair(run, trial, against) for against, trial in combinations(run.labels, 2)]
    first = run.labels[0] if run.labels else None
    holds: dict[_Place, bool] = {}
    for with_first in (True, False):
        holds |= _told_apart([pair for pair in pairs if (pair.against == first) is with_first])
    return [_with_verdicts(pair, holds) for pair in pairs]


def _pair(run: Run, trial: str, against: str) -> Comparison:
    """Their statistics, without verdicts."""
    ours, theirs = run.rounds[trial], run.rounds[against]
    both = [(ours[n], theirs[n]) for n in sorted(set(ours) & set(theirs))]
    values = {name: _values(name, both) for name in (*RATIOS, *DIFFERENCES)}
    told = _told(run, both, values)
    statistics = {name: _statistic(run, name, values[name], is_told=name in told) for name in values}
    return Comparison(trial=trial, against=against, rounds=len(both), statistics=statistics, told=told)


def _values(name: StatisticName, pairs: Pairs) -> Values:
    """For each round, the logarithm of the ratio, or the difference; None if a round has none."""
    return log_ratios(name, pairs) if name in RATIOS else _differences(name, pairs)


def _statistic(run: Run, name: StatisticName, values: Values, *, is_told: bool) -> Statistic:
    """The statistic of that name, without a verdict."""
    if name == "throughput" and run.header.states_a_rate:
        return Statistic(null_because=StatisticUnknown(kind="rate is offered"))
    if not values:
        no_round = StatisticUnknown(kind="no round in common")
        return Statistic(null_because=LACKING[name] if values is None else no_round)
    is_ratio = name in RATIOS
    unscaled = math.exp if is_ratio else float
    middle, enough = unscaled(typical(values)), len(values) >= VERDICT_ROUNDS
    low, high, method = interval(values) if enough else (0.0, 0.0, None)
    return Statistic(
        ratio=middle if is_ratio else None,
        difference=None if is_ratio else middle,
        ci95=(unscaled(low), unscaled(high)) if enough else None,
        method=method,
        rounds=len(values),
        chance=chance(values) if enough and is_told else None,
        further_rounds=further_rounds(values) if enough else VERDICT_ROUNDS - len(values),
    )


def _told(run: Run, pairs: Pairs, values: Mapping[StatisticName, Values]) -> list[StatisticName]:
    """The statistics that are reported of a pair. Of latency these are the percentiles, and the mean if p50 is not
    among them. With one client, throughput repeats latency and is not reported. The shares of `DIFFERENCES` are
    reported unless they follow from the strategy.
    """
    percentiles: list[StatisticName] = ["p50", "p99"]
    found = [name for name in percentiles if values[name] and not _is_mixed(name, pairs)]
    others: list[StatisticName] = ["idle_pss", "throughput"] if run.header.clients > 1 else ["idle_pss"]
    if "p50" not in found:
        others.insert(0, "mean")
    found += [name for name in others if values[name]]
    return found + [name for name in DIFFERENCES if values[name] and _is_partial(name, pairs)]


def _is_mixed(name: StatisticName, pairs: Pairs) -> bool:
    """Whether, in some round of either trial, the percentile falls between cold and warm requests: a few requests then
    decide on which side it lies, and it describes neither.
    """
    low, high = (bound * (1 - {"p50": 0.5, "p99": 0.99}[name]) for bound in MIXED)
    return any(low <= share <= high for pair in pairs for each in pair if (share := each.statistics["cold_share"]))


def _is_partial(name: StatisticName, pairs: Pairs) -> bool:
    """Whether some process loaded for some of its requests only; a share of 0 or 1 follows from the strategy."""
    return any(0 < value < 1 for pair in pairs for each in pair if (value := each.statistics[name]) is not None)


def _told_apart(pairs: Sequence[Comparison]) -> dict[_Place, bool]:
    """Whether the reported statistics are higher or lower, for sure: all of them together, by Holm's procedure."""
    chances = {
        (pair.trial, pair.against, name): p
        for pair in pairs
        for name in pair.told
        if (p := pair.statistics[name].chance) is not None
    }
    return dict(zip(chances, told_apart(list(chances.values())), strict=True))


def _with_verdicts(pair: Comparison, holds: Mapping[_Place, bool]) -> Comparison:
    """The pair, with a verdict on each statistic that was judged."""
    statistics = {
        name: found if (place := (pair.trial, pair.against, name)) not in holds else _judged(found, holds=holds[place])
        for name, found in pair.statistics.items()
    }
    return pair.model_copy(update={"statistics": statistics})


def _judged(statistic: Statistic, *, holds: bool) -> Statistic:
    """With the verdict that it is higher or lower, if that holds."""
    if not holds:
        return statistic.model_copy(update={"verdict": "not separable"})
    is_higher = statistic.ratio > 1 if statistic.ratio is not None else (statistic.difference or 0.0) > 0
    return statistic.model_copy(update={"verdict": "higher" if is_higher else "lower", "further_rounds": None})


def log_ratios(name: StatisticName, pairs: Pairs) -> Values:
    """ln(first / second) of a statistic in each round; None if a round has none."""
    logs = []
    for one, other in pairs:
        above, below = one.statistics[name], other.statistics[name]
        if not above or not below:
            return None
        logs.append(math.log(above / below))
    return logs


def _differences(name: StatisticName, pairs: Pairs) -> Values:
    """First − second of a statistic in each round; None if a round has none."""
    differences = []
    for one, other in pairs:
        ours, theirs = one.statistics[name], other.statistics[name]
        if ours is None or theirs is None:
            return None
        differences.append(ours - theirs)
    return differences
