"""Service level objectives: how many answers a second came within the target, and whether it is met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .intervals import VERDICT_ROUNDS
from .rounds import Round
from .statistics import mean_interval


def goodput(rounds: Sequence[Round], slo: Mapping[str, float]) -> list[dict[str, Any]]:
    """For each target, `{"p99": seconds}`: the share of the steady requests that were answered within it.

    p99 within 200 ms means that at least 99 % of the requests are answered within 200 ms; one that failed is
    not. `verdict` is "met" or "missed" where the share's whole 95 % interval lies on one side of that, else
    "not separable"; None below 5 rounds, which `further_rounds` says.
    """
    return [_target(rounds, name, seconds) for name, seconds in slo.items()]


def _target(rounds: Sequence[Round], name: str, seconds: float) -> dict[str, Any]:
    sent = [len(each.steady) for each in rounds]
    within = [sum(sample["ms"] <= seconds * 1e3 for sample in each.answered) for each in rounds]
    duration = sum(each.ended["steady_s"] for each in rounds)
    result: dict[str, Any] = {"percentile": name, "target_ms": seconds * 1e3}
    result["goodput_rps"] = sum(within) / duration if duration > 0 else None
    result["share_within"] = sum(within) / sum(sent) if sum(sent) else None
    result |= {"share_ci95": None, "rounds": len(rounds), "verdict": None, "further_rounds": None}
    if len(rounds) < VERDICT_ROUNDS or 0 in sent:
        return result | {"further_rounds": max(0, VERDICT_ROUNDS - len(rounds))}
    low, high = share_interval(within, sent)
    wanted = quantile(name)
    verdict = "met" if low >= wanted else "missed" if high < wanted else "not separable"
    return result | {"share_ci95": [low, high], "verdict": verdict}


def quantile(name: str) -> float:
    """0.999 of `p99.9`."""
    return round(float(name.removeprefix("p")) / 100, 9)


def share_interval(within: Sequence[int], sent: Sequence[int]) -> tuple[float, float]:
    """The 95 % interval of a share of requests: on each side the wider one of two.

    Student's, over the shares of the rounds, knows that requests of one process are correlated, but is empty
    where every round has the same share, such as all. Wilson's (1927), over all requests as if they were
    independent, is the least that so many requests leave open.
    """
    from scipy.stats import binomtest  # takes a second to import, and most commands need none of it

    wilson = binomtest(sum(within), sum(sent)).proportion_ci(0.95, "wilson")
    low, high = mean_interval(np.divide(within, sent).tolist()) or (0.0, 1.0)
    return max(0.0, min(low, float(wilson.low))), min(1.0, max(high, float(wilson.high)))
