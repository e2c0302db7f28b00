"""Whether a setting meets the targets for latency, as far as the simulated requests show."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ..results.plan_findings import SettingVerdict, TargetShare
from ..stats.estimates import mean_interval, samples_for
from ..stats.slo import quantile, wilson
from .outcome import Outcome

PARTS = 10  # of the requests in a row, each long enough to hold whole bursts


def judge(outcome: Outcome, slo: Mapping[str, float]) -> list[TargetShare]:
    """For each target, `{"p99": seconds}`: the share of the requests that are answered within it, and a verdict.

    p99 within 200 ms means that at least 99 % of the requests are answered within 200 ms. The verdict is "missed" if
    the share's whole 95 % interval is below that, and "met" if none of it is and there are 10/(1 − q) requests. A
    simulation begins with an empty server. To keep the first loads from deciding, a target counts as missed only if it
    is missed even with every request that waited for its model's first load counted as within it; it counts as met only
    if it is met with these requests as they were simulated.
    """
    return [_judge(outcome, name, seconds) for name, seconds in slo.items()]


def _judge(outcome: Outcome, name: str, seconds: float) -> TargetShare:
    wanted, count = quantile(name), len(outcome.latencies)
    within = outcome.latencies <= seconds
    low, high = _interval(within)[0], _interval(within | outcome.at_first)[1]
    needed = samples_for(wanted)
    verdict: SettingVerdict = "not known"
    if high < wanted:
        verdict = "missed"
    elif low >= wanted and count >= needed:
        verdict = "met"
    return TargetShare(
        percentile=name,
        target_ms=seconds * 1e3,
        share_within=float(np.mean(within)),
        share_ci95=(low, high),
        requests_needed=needed,
        verdict=verdict,
    )


def _interval(within: NDArray[np.bool_]) -> tuple[float, float]:
    """The 95 % interval of a share, on each side the wider one of two: Wilson's (1927), over all requests as if they
    were independent, and Student's over the shares of consecutive parts, because in a burst they are not.
    """
    shares = [float(part.mean()) for part in np.array_split(within, min(PARTS, len(within)))]
    low, high = mean_interval(shares) or (0.0, 1.0)
    least, most = wilson(int(within.sum()), len(within))
    return max(0.0, min(low, least)), min(1.0, max(high, most))
