"""Service level objectives: how many answers a second came within the target, and whether it is met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..quantities import limit
from .intervals import VERDICT_ROUNDS
from .rounds import Round
from .statistics import mean_interval, samples_for


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


def unmet(summary: Mapping[str, Any]) -> list[str]:
    """A sentence for each target that a trial misses, and for each of which nobody can tell whether it is met: a check
    that passes what it cannot judge is worse than one that fails.
    """
    targets = ((trial, target) for trial in summary["trials"] for target in trial["slo"])
    return [f"{trial['label']} {why}" for trial, target in targets if (why := _shortfall(trial["requests"], target))]


def _shortfall(requests: int, target: Mapping[str, Any]) -> str:
    """Empty where the target is met. Below 5 rounds, requests count as if they were independent."""
    name, share = f"{target['percentile']} ≤ {limit(target['target_ms'] / 1e3)}", target["share_within"]
    wanted = quantile(target["percentile"])
    if share is None:
        return f"was asked nothing to judge {name} by."
    low, high = target["share_ci95"] or _wilson(round(share * requests), requests)
    within = f"{share:.2%} of the requests are within it"
    if high < wanted:
        return f"misses {name}: {within}."
    needed = samples_for(wanted)
    if target["verdict"] is None and requests < needed:
        return f"has too few requests to judge {name}: that takes {needed}, and it has {requests}."
    if low < wanted:
        return f"may miss {name}: {within} (95 % interval {low:.2%} to {high:.2%}); more rounds would tell."
    return ""


def quantile(name: str) -> float:
    """0.999 of `p99.9`."""
    return round(float(name.removeprefix("p")) / 100, 9)


def share_interval(within: Sequence[int], sent: Sequence[int]) -> tuple[float, float]:
    """The 95 % interval of a share of requests: on each side the wider one of two.

    Student's, over the shares of the rounds, knows that requests of one process are correlated, but is empty
    where every round has the same share, such as all. Wilson's (1927), over all requests as if they were
    independent, is the least that so many requests leave open.
    """
    least, most = _wilson(sum(within), sum(sent))
    low, high = mean_interval(np.divide(within, sent).tolist()) or (0.0, 1.0)
    return max(0.0, min(low, least)), min(1.0, max(high, most))


def _wilson(within: int, sent: int) -> tuple[float, float]:
    from scipy.stats import binomtest  # takes a second to import, and most commands need none of it

    found = binomtest(within, sent).proportion_ci(0.95, "wilson")
    return float(found.low), float(found.high)
