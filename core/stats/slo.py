"""Service level objectives: how many answers a second came within the target, and whether it is met."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..results.figures import Interval, Target, TargetVerdict
from ..results.shortfalls import (
    NoRequests,
    ProcessWithoutAnswer,
    RequestsTooFew,
    RoundsTooFew,
    Shortfall,
    SomeProcessesMiss,
    TargetMissed,
    TrialTarget,
)
from ..results.summary import Measurements
from .intervals import CONFIDENCE, MOST_FURTHER, VERDICT_ROUNDS, interval
from .rounds import Round


def goodput(rounds: Sequence[Round], slo: Mapping[str, float]) -> list[Target]:
    """For each target, `{"p99": seconds}`: the share of the steady requests that were answered within it.

    p99 within 200 ms means that at least 99 % of the requests are answered within 200 ms; one that failed is
    not. From 5 rounds on `verdict` is "met" if that is so in every process and so many requests prove it (the
    whole interval of `wilson`); "missed" if a typical process misses it (the whole interval of `share_ci95`); else
    "not settled". `processes_met` of the `rounds` met it, and `processes_least` is the least share of all such
    processes that does, if every one of these did: with 95 % confidence 0.05^(1/n) of n (Clopper and Pearson,
    Biometrika 26, 1934). `further_rounds` are missing for a verdict, or for "met" if further rounds are alike.
    """
    return [_target(rounds, name, seconds) for name, seconds in slo.items()]


def _target(rounds: Sequence[Round], name: str, seconds: float) -> Target:
    sent = [len(each.steady) for each in rounds]
    within = [sum(sample.ms <= seconds * 1e3 for sample in each.answered) for each in rounds]
    duration, wanted = sum(each.ended.steady_s for each in rounds), quantile(name)
    met = sum(count > 0 and hits / count >= wanted for hits, count in zip(within, sent, strict=True))
    verdict = _verdict(within, sent, met, wanted)
    return Target(
        percentile=name,
        target_ms=seconds * 1e3,
        goodput_rps=sum(within) / duration if duration > 0 else None,
        share_within=sum(within) / sum(sent) if sum(sent) else None,
        share_ci95=verdict.share_ci95,
        rounds=len(rounds),
        verdict=verdict.verdict,
        further_rounds=verdict.further_rounds,
        processes_met=met,
        processes_least=(1 - CONFIDENCE) ** (1 / len(rounds)) if verdict.verdict == "met" else None,
    )


class _Verdict(NamedTuple):
    """The fields of a target that tell whether it is met."""

    share_ci95: Interval | None
    verdict: TargetVerdict | None
    further_rounds: int | None


def _verdict(within: Sequence[int], sent: Sequence[int], met: int, wanted: float) -> _Verdict:
    """From the requests of each process, sent and answered within the target, and the processes that met it."""
    rounds = len(sent)
    if rounds < VERDICT_ROUNDS or 0 in sent:
        return _Verdict(None, None, max(0, VERDICT_ROUNDS - rounds))
    least, _ = wilson(sum(within), sum(sent))
    bounds = share_interval(within, sent)
    if met == rounds and least >= wanted:
        return _Verdict(bounds, "met", None)
    if bounds[1] < wanted:
        return _Verdict(bounds, "missed", None)
    return _Verdict(bounds, "not settled", _further(sum(within), sum(sent), rounds, wanted) if met == rounds else None)


def _further(within: int, sent: int, rounds: int, wanted: float) -> int | None:
    """How many more rounds like these would prove the target; None if over 1000."""
    for further in np.unique(np.ceil(np.geomspace(1, MOST_FURTHER, 100))):
        times = (rounds + further) / rounds
        if wilson(math.floor(within * times), math.ceil(sent * times))[0] >= wanted:
            return int(further)
    return None


def unmet(summary: Measurements) -> list[Shortfall]:
    """Each target that a trial misses, and each of which it is unknown whether it is met: a check that passes what it
    cannot judge is worse than one that fails.
    """
    found = (_shortfall(trial.label, trial.requests, target) for trial in summary.trials for target in trial.slo)
    return [shortfall for shortfall in found if shortfall is not None]


def _shortfall(label: str, requests: int, target: Target) -> Shortfall | None:
    """Why the target is not met; None if it is, as far as 5 rounds or more show."""
    of = TrialTarget(trial=label, percentile=target.percentile, target_ms=target.target_ms)
    share, rounds = target.share_within, target.rounds
    if share is None:
        return NoRequests(target=of)
    low, high = target.share_ci95 or wilson(round(share * requests), requests)
    if target.verdict == "met":
        return None
    if high < quantile(target.percentile):
        return TargetMissed(target=of, share_within=share)
    if target.verdict is None:
        is_short = rounds < VERDICT_ROUNDS
        return RoundsTooFew(target=of, rounds=rounds) if is_short else ProcessWithoutAnswer(target=of)
    if missed := rounds - target.processes_met:
        return SomeProcessesMiss(target=of, missed=missed, rounds=rounds, share_within=share)
    return RequestsTooFew(target=of, share_within=share, share_ci95=(low, high))


def quantile(name: str) -> float:
    """0.999 of `p99.9`."""
    return round(float(name.removeprefix("p")) / 100, 9)


def share_interval(within: Sequence[int], sent: Sequence[int]) -> tuple[float, float]:
    """The 95 % interval of a typical process's share of requests: on each side the wider one of two.

    The interval of the median over the rounds' shares allows for correlated requests in one process, but is empty if
    every round has the same share, such as all. Wilson's (1927), over all requests as if they were independent, is the
    narrowest interval that so many requests support.
    """
    least, most = wilson(sum(within), sum(sent))
    low, high, _ = interval(np.divide(within, sent).tolist())
    return max(0.0, min(low, least)), min(1.0, max(high, most))


def wilson(within: int, sent: int) -> tuple[float, float]:
    """Wilson's (1927) 95 % interval of a share of requests, as if they were independent."""
    from scipy.stats import binomtest  # takes a second to import, and most commands need none of it

    found = binomtest(within, sent).proportion_ci(CONFIDENCE, "wilson")
    return float(found.low), float(found.high)
