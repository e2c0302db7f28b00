"""Distributions of latency: cold and warm requests apart, and the mixture of both with its share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..results.records import Sample
from .estimates import median, percentile, samples_for
from .intervals import interval, typical
from .rounds import Round

PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def latencies(rounds: Sequence[Round]) -> dict[str, Any]:
    """`latency_ms` of all answered steady requests, and separately of the `warm` and the `cold` ones.

    A share is of the answered requests; None if there is none.
    """
    answered = [each.answered for each in rounds]
    warm = [[sample for sample in each if not sample.cold] for each in answered]
    cold = [[sample for sample in each if sample.cold] for each in answered]
    total = sum(map(len, answered))
    parts = {}
    for name, samples in (("warm", warm), ("cold", cold)):
        count = sum(map(len, samples))
        parts[name] = {"count": count, "share": count / total if total else None, "latency_ms": distribution(samples)}
    phases = _phases([sample for each in cold for sample in each])
    return {
        "latency_ms": distribution(answered),
        "warm": parts["warm"],
        "cold": parts["cold"] | {"phases_ms": phases},
    }


def distribution(rounds: Sequence[Sequence[Sample]]) -> dict[str, Any]:
    """Mean and percentiles of a typical process, the median over rounds; the mean has its interval. A percentile for
    which some process has too few requests is that of all requests together; nulls have reasons.
    """
    pooled = [sample.ms for each in rounds for sample in each]
    means = [float(np.mean([sample.ms for sample in each])) for each in rounds if each]
    bounds = interval(means)[:2] if len(means) > 1 else None
    result: dict[str, Any] = {"mean": typical(means) if means else None}
    result["mean_ci95"] = list(bounds) if bounds else None
    why = {} if bounds else {"mean_ci95": f"needs 2 rounds and has {len(means)}"}
    for name, q in PERCENTILES.items():
        result[name] = _percentile(rounds, pooled, q)
        if result[name] is None:
            why[name] = f"needs {samples_for(q)} requests and has {len(pooled)}"
    return result | {"null_because": why}


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
