"""A limit for memory: which trials exceed it, and the floor, which is the memory of a server without a model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..results.economics import Floor
from ..results.figures import OverLimit
from ..results.header import LimitSpec
from ..stats.rounds import Round, Run


def most_rss(rounds: Sequence[Round]) -> float | None:
    """MiB of resident memory that any of these processes held at most, start-up included; None if that is unknown."""
    most = [each.most_rss for each in rounds]
    known = [mib for mib in most if mib is not None]
    return max(known) if known and len(known) == len(most) else None


def over_limit(most: float | None, limit: LimitSpec | None) -> OverLimit | None:
    """That the trial held too much; None if it did not, or if that is unknown."""
    if limit is None or most is None or most <= limit.memory_mib:
        return None
    return OverLimit(held_mib=most, limit_mib=limit.memory_mib)


def floor(run: Run) -> Floor | None:
    """The least memory of a server between requests without a model; None if no trial had such a server."""
    found: list[tuple[float, float, str]] = []
    for label in run.labels:
        rounds = run.finished(label)
        memory = [(each.ended.memory_mib.idle_rss, each.ended.memory_mib.idle_pss) for each in rounds]
        is_empty = all(each.ended.resident == [] for each in rounds)
        if rounds and is_empty and not any(None in row for row in memory):
            rss, pss = map(float, np.median(np.array(memory, dtype=float), axis=0))
            found.append((rss, pss, label))
    if not found:
        return None
    rss, pss, label = min(found)
    return Floor(trial=label, rss_mib=rss, pss_mib=pss)
