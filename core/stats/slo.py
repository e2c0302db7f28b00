"""Service level objectives: how many answers a second came within the target, and whether it is met."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..config.quantities import limit
from .intervals import (
    CONFIDENCE,
    MOST_FURTHER,
    VERDICT_ROUNDS,
    interval,
)
from .rounds import Round


def goodput(rounds: Sequence[Round], slo: Mapping[str, float]) -> list[dict[str, Any]]:
    """For each target, `{"p99": seconds}`: the share of the steady requests that were answered within it.

    p99 within 200 ms means that at least 99 % of the requests are answered within 200 ms; one that failed is
    not. From 5 rounds on `verdict` is "met" if that is so in every process and so many requests prove it (the
    whole interval of `wilson`); "missed" if a typical process misses it (the whole interval of `share_ci95`); else
    "not settled". `processes_met` of the `rounds` met it, and `processes_least` is the least share of all such
    processes that does, if every one of these did: with 95 % confidence 0.05^(1/n) of n (Clopper and Pearson,
    Biometrika 26, 1934). `further_rounds` are missing for a verdict, or for "met" if further rounds are alike.
    """
    return [_target(rounds, name, seconds) for name, seconds in slo.items()]


def _target(rounds: Sequence[Round], name: str, seconds: float) -> dict[str, Any]:
    sent = [len(each.steady) for each in rounds]
    within = [sum(sample.ms <= seconds * 1e3 for sample in each.answered) for each in rounds]
    duration, wanted = sum(each.ended.steady_s for each in rounds), quantile(name)
    met = sum(count > 0 and hits / count >= wanted for hits, count in zip(within, sent, strict=True))
    result: dict[str, Any] = {"percentile": name, "target_ms": seconds * 1e3}
    result["goodput_rps"] = sum(within) / duration if duration > 0 else None
    result["share_within"] = sum(within) / sum(sent) if sum(sent) else None
    result |= {"share_ci95": None, "rounds": len(rounds), "verdict": None, "further_rounds": None}
    result |= {"processes_met": met, "processes_least": None}
    if len(rounds) < VERDICT_ROUNDS or 0 in sent:
        return result | {"further_rounds": max(0, VERDICT_ROUNDS - len(rounds))}
    least, _ = wilson(sum(within), sum(sent))
    low, high = share_interval(within, sent)
    result["share_ci95"] = [low, high]
    if met == len(rounds) and least >= wanted:
        return result | {"verdict": "met", "processes_least": (1 - CONFIDENCE) ** (1 / len(rounds))}
    if high < wanted:
        return result | {"verdict": "missed"}
    further = _further(sum(within), sum(sent), len(rounds), wanted) if met == len(rounds) else None
    return result | {"verdict": "not settled", "further_rounds": further}


def _further(within: int, sent: int, rounds: int, wanted: float) -> int | None:
    """How many more rounds like these would prove the target; None if over 1000."""
    for further in np.unique(np.ceil(np.geomspace(1, MOST_FURTHER, 100))):
        times = (rounds + further) / rounds
        if wilson(math.floor(within * times), math.ceil(sent * times))[0] >= wanted:
            return int(further)
    return None


def unmet(summary: Mapping[str, Any]) -> list[str]:
    """A sentence for each target that a trial misses, and for each of which it is unknown whether it is met: a check
    that passes what it cannot judge is worse than one that fails.
    """
    targets = ((trial, target) for trial in summary["trials"] for target in trial["slo"])
    return [f"{trial['label']} {why}" for trial, target in targets if (why := _shortfall(trial["requests"], target))]


def _shortfall(requests: int, target: Mapping[str, Any]) -> str:
    """Why the target is not met; empty if it is, as far as 5 rounds or more show."""
    name, share = f"{target['percentile']} ≤ {limit(target['target_ms'] / 1e3)}", target["share_within"]
    wanted = quantile(target["percentile"])
    if share is None:
        return f"has no requests in a finished round, so {name} cannot be judged."
    low, high = target["share_ci95"] or wilson(round(share * requests), requests)
    within = f"{share:.2%} of the requests are within it"
    if target["verdict"] == "met":
        return ""
    if high < wanted:
        return f"misses {name}: {within}."
    if target["verdict"] is None and target["rounds"] >= VERDICT_ROUNDS:
        return f"cannot be judged by {name}: one of its server processes answered no request."
    if target["verdict"] is None:
        return f"has too few rounds to judge {name}: {VERDICT_ROUNDS} are needed, it has {target['rounds']}."
    if missed := target["rounds"] - target["processes_met"]:
        return f"may miss {name}: {missed} of {target['rounds']} server processes missed it, although {within}."
    return f"may miss {name}: {within} (95 % interval {low:.2%} to {high:.2%}); more rounds would decide it."


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
