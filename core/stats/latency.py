"""Distributions of latency: cold and warm requests apart, and the mixture of both with its share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..results.figures import ColdPart, Latency, Part, TooFew
from ..results.records import Sample
from .estimates import median, percentile, samples_for
from .intervals import interval, typical
from .rounds import Round

PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


class Latencies(NamedTuple):
    """Of the answered requests of the steady state."""

    whole: Latency
    warm: Part
    cold: ColdPart


def latencies(rounds: Sequence[Round]) -> Latencies:
    """Of all requests together, and separately of the warm and the cold ones."""
    answered = [each.answered for each in rounds]
    warm = [[sample for sample in each if not sample.cold] for each in answered]
    cold = [[sample for sample in each if sample.cold] for each in answered]
    total, waited = sum(map(len, answered)), sum(map(len, cold))
    return Latencies(
        distribution(answered),
        Part(count=total - waited, share=_share(total - waited, total), latency_ms=distribution(warm)),
        ColdPart(
            count=waited,
            share=_share(waited, total),
            latency_ms=distribution(cold),
            phases_ms=_phases([sample for each in cold for sample in each]),
        ),
    )


def _share(count: int, total: int) -> float | None:
    return count / total if total else None


def distribution(rounds: Sequence[Sequence[Sample]]) -> Latency:
    """Mean and percentiles of a typical process, the median over rounds; the mean has its interval. A percentile for
    which some process has too few requests is that of all requests together; nulls have reasons.
    """
    pooled = [sample.ms for each in rounds for sample in each]
    means = [float(np.mean([sample.ms for sample in each])) for each in rounds if each]
    bounds = interval(means)[:2] if len(means) > 1 else None
    found = {name: _percentile(rounds, pooled, q) for name, q in PERCENTILES.items()}
    why = {} if bounds else {"mean_ci95": TooFew(unit="rounds", needed=2, found=len(means))}
    for name, q in PERCENTILES.items():
        if found[name] is None:
            why[name] = TooFew(unit="requests", needed=samples_for(q), found=len(pooled))
    return Latency(
        mean=typical(means) if means else None,
        mean_ci95=bounds,
        p50=found["p50"],
        p95=found["p95"],
        p99=found["p99"],
        null_because=why,
    )


def _percentile(rounds: Sequence[Sequence[Sample]], pooled: Sequence[float], q: float) -> float | None:
    own = [percentile([sample.ms for sample in each], q) for each in rounds if each]
    return typical([value for value in own if value is not None]) if own and None not in own else percentile(pooled, q)


def _phases(cold: Sequence[Sample]) -> dict[str, float | None]:
    """The median, in ms, of each part of the Server-Timing of cold requests: where their time goes."""
    parts: defaultdict[str, list[float]] = defaultdict(list)
    for sample in cold:
        parts["answer"].append(sample.ms)
        for name, value in sample.timing.items():
            parts[name].append(value)
    return {name: median(values) for name, values in parts.items()}
